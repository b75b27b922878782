"""Where each document stands on the site, and its links from there."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from slipway.core import SlipwayError

_LINK = re.compile(r"(?P<open>\]\()(?!\w+:|#)(?P<path>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")
_FENCE = re.compile(r"^(```|~~~)")
_TITLE = re.compile(r"^# (.+)$", re.MULTILINE)

GROUPS: Mapping[str, tuple[str, ...]] = {
    "Begin": ("index.md", "start.md", "images.md", "versions.md", "settings.md", "tasks.md"),
    "Use": (
        "sqsh.md", "registry.md", "inventory.md", "report.md", "storage.md", "checks.md",
        "demo.md", "troubleshooting.md", "glossary.md",
    ),
    "Train": ("launcher.md", "slurm.md", "sagemaker.md", "cluster.md", "fanout.md"),
    "Maintain": ("architecture.md", "testing.md", "contributing.md", "security.md", "changelog.md"),
}  # fmt: skip
"""The pages of each part of the site's menu, in this order; what is named nowhere comes after."""

REPORT_FOLDER = "demo"
"""Where the site has a report of the checkout that it was built in."""

_DEMO = f"""# A report

What `inv report` makes of the checkout that this site was built in:
<a href="{REPORT_FOLDER}/index.html">its pages</a>.
"""

_PLACES = {
    "README.md": "index.md",
    "entrypoints/README.md": "launcher.md",
    "bench/gpu/README.md": "lab/gpu-bench.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}


@dataclass(frozen=True)
class StagedSite:
    """What the generator is given: texts of pages, files as they are, and the menu."""

    pages: Mapping[str, str]
    files: Mapping[str, Path]
    menu: Mapping[str, tuple[tuple[str, str], ...]]


def stage_pages(root: Path) -> StagedSite:
    """All documents of the repository at `root`, with every link leading to a page or a file.

    Files that a document links to are on the site below `files/`. Raises SlipwayError for a link
    that leads nowhere.
    """
    places = _places(root)
    pages: dict[str, str] = {}
    files: dict[str, Path] = {}
    for source, place in places.items():
        pages[place] = _relink(root, source, places, files)
    pages["demo.md"] = _DEMO
    return StagedSite(pages, files, _menu(pages))


def _places(root: Path) -> dict[str, str]:
    """Path in the repository -> path on the site."""
    places = {name: place for name, place in _PLACES.items() if (root / name).is_file()}
    for path in sorted((root / "docs").rglob("*.md")):
        places[path.relative_to(root).as_posix()] = path.relative_to(root / "docs").as_posix()
    for path in sorted((root / "examples").rglob("*.md")):
        name = path.relative_to(root).as_posix()
        places[name] = name.replace("/README.md", ".md")
    return places


def _relink(root: Path, source: str, places: Mapping[str, str], files: dict[str, Path]) -> str:
    here = posixpath.dirname(places[source])

    def change(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link["path"]))
        if (root / target).is_dir() and f"{target}/README.md" in places:
            target = f"{target}/README.md"
        place = places.get(target)
        if place is None:
            if target.startswith(("../", "/")) or not (root / target).is_file():
                raise SlipwayError(f"a link leads to no file: {link['path']}", where=source)
            place = f"files/{target}"
            files[place] = root / target
        return f"]({posixpath.relpath(place, here or '.')}{link['anchor'] or ''})"

    lines, fenced = [], False
    for line in (root / source).read_text("utf-8").split("\n"):
        fenced ^= bool(_FENCE.match(line))
        code = fenced or line.startswith("    ")
        lines.append(line if code else _LINK.sub(change, line))
    return "\n".join(lines)


def _menu(pages: Mapping[str, str]) -> dict[str, tuple[tuple[str, str], ...]]:
    """Group -> (title, page) of its pages."""
    listed = {name for group in GROUPS.values() for name in group}
    groups = dict(GROUPS)
    for name in sorted(pages):
        if name not in listed:
            group = "Measurements" if name.startswith("lab/") else "Examples"
            groups[group] = (*groups.get(group, ()), name)
    return {
        group: tuple((_title(name, pages[name]), name) for name in names if name in pages)
        for group, names in groups.items()
    }


def _title(name: str, text: str) -> str:
    found = _TITLE.search(text)
    return found[1].strip("`") if found else PurePosixPath(name).stem


def write_staged(site: StagedSite, folder: Path) -> None:
    """Write pages and files below `folder`. Raises OSError."""
    for name, text in site.pages.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    for name, source in site.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.read_bytes())
        os.chmod(path, 0o644)  # noqa: PTH101
