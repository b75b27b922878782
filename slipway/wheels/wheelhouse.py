"""The wheelhouse: pinned files on disk, each by its hash, fetched once with the host's pip."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from slipway.core import (
    Event,
    OnEvent,
    PartClaim,
    Project,
    SharedParts,
    SlipwayError,
    commit,
    cpu_count,
    partial_file,
    recall_sha256,
    sha256_file,
    silent,
)
from slipway.matrix import Base
from slipway.records import Pin, platform_tags
from slipway.wheels.named_indexes import index_url

SHARED_KIND = "wheels"
_TASK = "fetch wheels"


class NotOfferedError(SlipwayError):
    """No index that pip knows here has a file with the pinned hash; `names` lists whose."""

    def __init__(self, what: str, names: tuple[str, ...], cure: str) -> None:
        super().__init__(what, cure=cure)
        self.names = names


def wheel_folder(project: Project) -> Path:
    """Where the files are: ``<sha256>/<file name>``."""
    return project.cache / "wheels"


def cached_wheels(project: Project, pin: Pin) -> Path | None:
    """The file of a pin if it is here and whole; one that is damaged is removed."""
    for digest in pin.hashes:
        sha = digest.removeprefix("sha256:")
        for path in sorted((wheel_folder(project) / sha).glob("[!.]*")):
            if recall_sha256(path) == sha:
                return path
            path.unlink(missing_ok=True)
    return None


def fetch_wheels(
    project: Project,
    pins: Iterable[Pin],
    python: str,
    arch: str = "amd64",
    on_event: OnEvent = silent,
    index: str = "",
) -> list[Path]:
    """The pinned files (wheels, and sdists of pins with `source`), in the order of `pins`.

    What is here, or what another machine shares, is verified and used; the rest is fetched,
    verified and kept. Safe for several processes at once. Raises NotOfferedError, or SlipwayError
    for an index that does not answer and for a file that is not what the lock says. `index` is one
    by its name in versions.yaml, asked beside pip's own.
    """
    wanted = list(pins)
    with ThreadPoolExecutor(cpu_count()) as pool:  # those of a GPU stack have gigabytes to verify
        here = pool.map(lambda pin: cached_wheels(project, pin), wanted)
        paths = dict(zip(wanted, here, strict=True))
    with contextlib.ExitStack() as stack:
        claims: dict[Pin, PartClaim] = {}
        if project.shared is not None:
            lacking = {_part_key(pin): pin for pin, path in paths.items() if path is None}
            for key, pin in sorted(lacking.items()):
                claim = project.shared.claim(SHARED_KIND, key)
                if claim is not None:
                    claims[pin] = stack.enter_context(claim)
                else:
                    paths[pin] = _copy_shared(project, project.shared, pin)
        missing = [pin for pin, path in paths.items() if path is None]
        if missing:
            wheel_folder(project).mkdir(parents=True, exist_ok=True)
            _sweep(wheel_folder(project))
            on_event(Event("start", _TASK, text=f"{len(missing)} files", total=len(missing)))
            try:
                fetched = _fetch(project, missing, (python, arch, index), on_event)
            except SlipwayError as error:
                on_event(Event("failed", _TASK, text=error.what))
                raise
            on_event(Event("done", _TASK, text=f"{len(missing)} files"))
            paths.update(fetched)
            for pin, claim in claims.items():
                claim.publish(fetched[pin].parent)
    return [path for pin in wanted if (path := paths[pin])]


def _part_key(pin: Pin) -> str:
    """Names the file of a pin among what machines share, whichever of its hashes it has."""
    return hashlib.sha256(" ".join(sorted(pin.hashes)).encode()).hexdigest()


def _copy_shared(project: Project, shared: SharedParts, pin: Pin) -> Path | None:
    """The file of a pin that another machine has fetched; None where it is another one."""
    part = shared.part(SHARED_KIND, _part_key(pin))
    for source in sorted(part.glob("[!.]*")) if part else ():
        target = wheel_folder(project) / sha256_file(source) / source.name
        with partial_file(target) as partial:
            shutil.copyfile(source, partial)
            commit(partial, target)
    return cached_wheels(project, pin)


def _fetch(
    project: Project, pins: Sequence[Pin], wanted_for: tuple[str, str, str], on_event: OnEvent
) -> dict[Pin, Path]:
    python, arch, index = wanted_for
    request = {
        "folder": str(wheel_folder(project)),
        "python": python,
        "platforms": platform_tags(arch),
        "indexes": [index_url(index)] if index else [],
        "wanted": [
            {
                "name": pin.name,
                "version": pin.version,
                "sha256": [digest.removeprefix("sha256:") for digest in pin.hashes],
            }
            for pin in pins
        ],
    }
    # -I keeps the folder of the program out of the modules that pip imports.
    program = [sys.executable, "-I", str(Path(__file__).with_name("pip_fetch.py"))]
    answers: dict[str, dict[str, Any]] = {}
    with subprocess.Popen(
        program,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        try:
            process.stdin.write(json.dumps(request))
            process.stdin.close()
            for line in process.stdout:
                answer = json.loads(line)
                if "received" in answer:
                    on_event(_progress(answer))
                else:
                    answers[answer["name"]] = answer
            errors = process.stderr.read()
        except BaseException:
            process.terminate()
            raise
    _complain(pins, answers, errors)
    return {pin: Path(answers[pin.name]["path"]) for pin in pins}


def _progress(answer: dict[str, Any]) -> Event:
    return Event(
        "progress",
        _TASK,
        answer["name"],
        current=answer["received"],
        total=answer["total"],
        unit="B",
    )


def _complain(pins: Sequence[Pin], answers: dict[str, dict[str, Any]], errors: str) -> None:
    """Raise for what was not fetched, the most telling kind first."""
    failed: dict[str, list[str]] = {}
    for pin in pins:
        answer = answers.get(pin.name, {"error": "pip", "detail": errors.strip()[-500:]})
        if "error" in answer:
            failed.setdefault(answer["error"], []).append(f"{pin.name}: {answer['detail']}")
    if not failed:
        return
    if texts := failed.get("hash mismatch"):
        raise SlipwayError(
            f"the index gives other files than the lock names: {'; '.join(texts)}",
            cure="Do not install them: a released file never changes. Ask who runs the index.",
        )
    if texts := failed.get("network"):
        raise SlipwayError(
            f"cannot fetch {len(texts)} of {len(pins)} files, first {texts[0]}",
            cure="Check the network, and index-url, proxy and cert of `pip config list`.",
        )
    if texts := failed.get("not offered"):
        names = tuple(text.partition(":")[0] for text in texts)
        raise NotOfferedError(
            "no index that pip knows here offers the locked file of "
            + ", ".join(text.partition(": ")[2] for text in texts),
            names,
            "Offer it through pip's index-url, extra-index-url or find-links, or run `./inv lock`.",
        )
    (kind, texts), *_ = failed.items()
    raise SlipwayError(
        f"{kind} cannot be used to fetch files: {texts[0]}",
        cure="Use another version of pip in .venv (`.venv/bin/pip install --upgrade pip`).",
    )


def _sweep(folder: Path) -> None:
    """Remove what killed fetches left; those of living processes stay."""
    for path in folder.glob(".partial-*"):
        owner = re.match(r"\.partial-(\d+)-", path.name)
        if owner and not _alive(int(owner[1])):
            path.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def no_cpu_torch(base: Base) -> SlipwayError:
    """What to do where pip knows of no CPU build of torch."""
    return SlipwayError(
        f"no index that pip knows here offers the CPU build torch {base.facts.torch}+cpu for "
        f"Python {base.facts.python}, which {base.name} is made of",
        cure="Give pip an index that has it (PIP_EXTRA_INDEX_URL; PyTorch's own is named in its "
        "installation guide) or a folder with the wheel (PIP_FIND_LINKS), then run this again.",
    )
