"""Running zensical on the staged pages, in an environment of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from slipway.core import Event, OnEvent, Project, SlipwayError, sha256_file
from slipway.report.docs_site.site_pages import StagedSite, stage_pages, write_staged

LOCK = "docs/requirements.lock"
NEEDS = (3, 11)
_TASK = "documents"


def build_site(project: Project, output: Path, on_event: OnEvent) -> Path:
    """Build the site in `output`, which it replaces; its first page.

    Zensical is installed by its hashes into the state folder once. Raises SlipwayError where it
    cannot be, where a link leads nowhere, and where `output` holds something else.
    """
    if sys.version_info < NEEDS:
        raise SlipwayError(
            f"zensical needs Python {'.'.join(map(str, NEEDS))}; this is {sys.version.split()[0]}",
            cure="Put a newer python3 first on PATH, remove .venv, and run `./inv docs` again.",
        )
    site = stage_pages(project.root)
    mark = output / "search.json"
    if output.exists() and any(output.iterdir()) and not mark.exists():
        raise SlipwayError(
            "the folder holds something else than a site", where=str(output),
            cure="Name another --output.",
        )  # fmt: skip
    on_event(Event("start", _TASK, "zensical"))
    program = _zensical(project)
    with tempfile.TemporaryDirectory(prefix="docs-site-") as folder:
        work = Path(folder)
        write_staged(site, work / "docs")
        (work / "zensical.toml").write_text(configuration(site), "utf-8")
        done = subprocess.run(
            [str(program), "build", "--strict"],
            cwd=work, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0 or not (work / "site" / "index.html").is_file():
            on_event(Event("failed", _TASK))
            raise SlipwayError(
                f"zensical could not build the documents: {_last_words(done.stdout + done.stderr)}"
            )
        shutil.rmtree(output, ignore_errors=True)
        output.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(work / "site", output)
    on_event(Event("done", _TASK, f"{len(site.pages)} pages"))
    return output / "index.html"


def configuration(site: StagedSite) -> str:
    """zensical.toml: nothing is fetched by who reads the pages, and they open from file://."""
    lines = [
        "[project]",
        'site_name = "Slipway"',
        'site_description = "GPU training images for AWS, and the jobs that use them"',
        "use_directory_urls = false",
        "nav = [",
        *(
            f"  {{{json.dumps(group)} = ["
            + ", ".join(f"{{{json.dumps(title)} = {json.dumps(name)}}}" for title, name in pages)
            + "]},"
            for group, pages in site.menu.items()
        ),
        "]",
        "[project.theme]",
        "font = false",
        'features = ["navigation.sections", "navigation.top", "content.code.copy"]',
        "[[project.theme.palette]]",
        'media = "(prefers-color-scheme: light)"',
        'scheme = "default"',
        "[[project.theme.palette]]",
        'media = "(prefers-color-scheme: dark)"',
        'scheme = "slate"',
        "",
    ]
    return "\n".join(lines)


def _zensical(project: Project) -> Path:
    """The program, in an environment that is made again when the lock changes."""
    lock = project.root / LOCK
    folder = project.cache / "docs-site" / sha256_file(lock)[:16]
    program = folder / "bin" / "zensical"
    whole = folder / "made"  # written last: an install that was killed has none
    if whole.exists():
        return program
    python = str(folder / "bin" / "python")
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [
            *(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *("--only-binary=:all:", "--require-hashes", "-r", str(lock)),
        ],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            shutil.rmtree(folder, ignore_errors=True)
            raise SlipwayError(
                f"zensical could not be installed: {_last_words(done.stderr)}",
                cure=f"pip takes it from its index by {LOCK}: see what pip's own settings say.",
            )
    whole.touch()
    return program


def _last_words(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines[-3:])[-600:] or "it did not say why"
