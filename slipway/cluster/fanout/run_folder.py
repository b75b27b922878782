"""The folder of a run, on storage that the head node and all workers see.

plan.json               images, flags, and which checkout
checkout-DIGEST.tar     what every worker works with, whatever happens to the original
script.sh               what Slurm starts, once a worker
leases/NAME.NUMBER      while a worker has the image
results/NAME.json       what became of it; the first one stands
failed/N/               results of earlier tries
logs/NAME.log, worker-*.log
parts/                  wheels, layers, compiled layers (SLIPWAY_SHARED)
sqsh/                   the .sqsh files
"""

from __future__ import annotations

import json
import os
import tarfile
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path

from slipway.cluster.fanout.fanout_plan import FanoutPlan, PlannedImage
from slipway.cluster.fanout.image_results import ImageResult
from slipway.core import (
    DOCUMENT_FAULTS,
    SlipwayError,
    UsageError,
    commit,
    error_text,
    partial_file,
    refresh_folder,
    sha256_file,
    write_atomic,
)

_LEFT_OUT = (".git", ".venv*", ".slipway", "*_cache", "__pycache__", "*.sqsh", "node_modules")
MOST_BYTES = 500_000_000
"""Of a checkout: every worker unpacks it."""


@dataclass(frozen=True)
class RunFolder:
    """A run's folder; `plan` and `checkout` are what its workers go by."""

    path: Path
    plan: FanoutPlan
    checkout: Path

    @property
    def results(self) -> Path:
        """Where results are."""
        return self.path / "results"

    @property
    def leases(self) -> Path:
        """Where leases are."""
        return self.path / "leases"

    @property
    def logs(self) -> Path:
        """Where logs are."""
        return self.path / "logs"

    def result(self, image: PlannedImage) -> ImageResult | None:
        """What became of an image, None where nothing yet.

        A file that cannot be read is a failure of its image, which --resume makes again.
        """
        path = self.results / f"{image.name}.json"
        try:
            return ImageResult.of_json(json.loads(path.read_text()))
        except FileNotFoundError:
            return None
        except (OSError, *DOCUMENT_FAULTS) as error:
            text = f"{path}: this version of Slipway cannot read the result ({error_text(error)})"
            return ImageResult(image.name, image.base, image.build_id, failure=text, worker="?")

    def has_result(self, image: PlannedImage) -> bool:
        """Whether an image is done, well or not, on whichever machine."""
        refresh_folder(self.results)
        return (self.results / f"{image.name}.json").exists()

    def images_left(self) -> list[PlannedImage]:
        """Those without a result."""
        done = {path.name for path in self.results.iterdir()}
        return [image for image in self.plan.images if f"{image.name}.json" not in done]

    def all_results(self) -> Iterator[ImageResult]:
        """What there is."""
        for image in self.plan.images:
            if (result := self.result(image)) is not None:
                yield result

    def publish(self, result: ImageResult) -> bool:
        """Put a result there, whole; False where another one stands already."""
        whole = self.results / f".{result.name}.{uuid.uuid4().hex}"
        write_atomic(whole, json.dumps(asdict(result), indent=1))
        try:
            os.link(whole, self.results / f"{result.name}.json")
        except FileExistsError:
            return False
        finally:
            whole.unlink()
        return True


def open_run(path: Path) -> RunFolder:
    """A run that was begun. Raises UsageError where there is none."""
    try:
        value = json.loads((path / "plan.json").read_text())
        return RunFolder(path, FanoutPlan.of_json(value), path / value["checkout"])
    except OSError as error:
        raise UsageError(
            f"there is no run: {error.strerror}",
            where=str(path),
            cure="Give the --dir of `./inv fanout`.",
        ) from error
    except DOCUMENT_FAULTS as error:
        raise SlipwayError(
            "its plan.json is not one of ours",
            where=str(path),
            cure="Give the --dir of `./inv fanout`.",
        ) from error


def begin_run(path: Path, plan: FanoutPlan, root: Path, *, resume: bool) -> RunFolder:
    """Write down a run. With `resume` results that are good and of the same inputs stay.

    Raises UsageError where the folder has a run already, and `resume` is not wanted.
    """
    if (path / "plan.json").exists() and not resume:
        raise UsageError(
            "this folder has a run already",
            where=str(path),
            cure="--resume does what it has left, or give another --dir.",
        )
    try:
        for name in ("leases", "results", "logs", "sqsh", "failed", "parts"):
            (path / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"the run cannot be kept there: {error.strerror}",
            where=str(path),
            cure="Give a --dir on a file system that all nodes mount and you may write.",
        ) from error
    checkout = pack_checkout(root, path)
    document = {**plan.as_json(), "checkout": checkout.name}
    write_atomic(path / "plan.json", json.dumps(document, indent=1) + "\n")
    run = RunFolder(path, plan, checkout)
    _set_aside(run)
    return run


def _set_aside(run: RunFolder) -> None:
    """Move what is not to stay out of the way: failures, and what was made of other inputs."""
    number = sum(1 for _ in (run.path / "failed").iterdir()) + 1
    for image in run.plan.images:
        result = run.result(image)
        if result is not None and not (result.ok and result.build_id == image.build_id):
            folder = run.path / "failed" / str(number)
            folder.mkdir(exist_ok=True)
            (run.results / f"{image.name}.json").rename(folder / f"{image.name}.json")


def pack_checkout(root: Path, folder: Path) -> Path:
    """A tar of the checkout, without what is not its own, named by its content."""
    target = folder / "checkout.tar"
    with partial_file(target) as partial:
        with tarfile.open(partial, "w") as tar:
            for path in checkout_files(root):
                member = tar.gettarinfo(path, path.relative_to(root).as_posix())
                member.mtime, member.uid, member.gid, member.uname, member.gname = 0, 0, 0, "", ""
                if member.isreg():
                    with path.open("rb") as stream:
                        tar.addfile(member, stream)
                else:
                    tar.addfile(member)
        size = partial.stat().st_size
        if size > MOST_BYTES:
            raise UsageError(
                f"the checkout is {size // 10**6} MB, and every worker unpacks it",
                where=str(root),
                cure="Move large files out of it, or below .slipway.",
            )
        target = folder / f"checkout-{sha256_file(partial)[:12]}.tar"
        commit(partial, target)
    return target


def checkout_files(folder: Path) -> Iterator[Path]:
    """The files and folders of a checkout that are its own."""
    for path in sorted(folder.iterdir()):
        if any(fnmatch(path.name, pattern) for pattern in _LEFT_OUT):
            continue
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from checkout_files(path)
