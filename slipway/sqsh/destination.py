"""Whether an export can succeed, asked before it costs anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slipway.core import DiskSpace, SlipwayError, UsageError, human_bytes
from slipway.sqsh.sidecar import MadeFrom, Sidecar, read_any_sidecar
from slipway.squashfs import SqshOptions

RATIO = {"zstd": 0.45, "gzip": 0.45, "xz": 0.4, "lzo": 0.8, "lz4": 0.8, "none": 1.0}
"""Size of a .sqsh over the size of its image, rounded up from training images: 4.65 GB of python,
torch and DeepSpeed gave 1.75 GB with zstd-3 and 3.75 GB with lzo."""

_MAX_FILE = {"vfat": (1 << 32) - 1, "msdos": (1 << 32) - 1}
_IN_MEMORY = ("tmpfs", "ramfs")


def expected_size(image_size: int, options: SqshOptions) -> int:
    """Bytes that a .sqsh of an image of `image_size` bytes is likely to take."""
    return int(image_size * RATIO[options.compressor])


_REFLINK = ("xfs", "btrfs")


@dataclass(frozen=True)
class ExportDisk:
    """Bytes that an export takes on its disk at its fullest, all of them estimates.

    `compiled` layers stay in the cache; `unpacked` are the contents of the two layers in work, gone
    before the file is written; `file` is the .sqsh.
    """

    compiled: int
    unpacked: int
    file: int

    @property
    def fullest(self) -> int:
        """The most at one time."""
        return self.compiled + max(self.unpacked, self.file)


def export_disk(
    missing: Sequence[int], image_size: int, options: SqshOptions, file_system: str = ""
) -> ExportDisk:
    """What an export takes where the cache lacks layers of these unpacked sizes, in their order.

    `image_size` is the whole image's, unpacked. Where the file system shares what is copied, the
    file takes nothing beside compiled layers that lie there, too.
    """
    pairs = [sum(missing[at : at + 2]) for at in range(len(missing))]
    shared = file_system in _REFLINK
    return ExportDisk(
        compiled=sum(expected_size(size, options) for size in missing),
        unpacked=max(pairs, default=0),
        file=0 if shared else expected_size(image_size, options),
    )


def check_export_disk(room: DiskSpace, need: ExportDisk, destination: Path) -> None:
    """Raise SlipwayError where file and compiled layers, on one file system, will not fit."""
    if need.fullest <= room.free:
        return
    raise SlipwayError(
        f"the export takes about {human_bytes(need.fullest)} at its fullest (compiled layers "
        f"{human_bytes(need.compiled)}, then the .sqsh of {human_bytes(need.file)}; while layers "
        f"are read {human_bytes(need.unpacked)} of contents), and {human_bytes(room.free)} are "
        "free",
        where=str(destination.parent),
        cure="Free some space there, or choose a folder on another file system (--output): the "
        "layer cache is below SLIPWAY_STATE.",
    )


def check_space(
    room: DiskSpace, image_size: int, options: SqshOptions, destination: Path
) -> str | None:
    """Raise SlipwayError where the file will not fit; return a warning, or None."""
    need = expected_size(image_size, options)
    ratio = RATIO[options.compressor]
    sum_text = f"about {human_bytes(need)} (image {human_bytes(image_size)} x {ratio})"
    if need > room.free:
        raise SlipwayError(
            f"the .sqsh needs {sum_text}, and {human_bytes(room.free)} are free",
            where=str(destination.parent),
            cure="Free some space there, or choose a folder on a larger file system.",
        )
    largest = _MAX_FILE.get(room.file_system)
    if largest is not None and need > largest:
        raise SlipwayError(
            f"the .sqsh needs {sum_text}, and a file on {room.file_system} holds at most"
            f" {human_bytes(largest)}",
            where=str(destination.parent),
            cure="Choose a folder on ext4, xfs or a cluster's file system.",
        )
    if room.file_system in _IN_MEMORY:
        return f"{destination.parent} is a {room.file_system}: it is memory, gone after a reboot"
    return None


@dataclass(frozen=True)
class SqshIdentity:
    """What a destination should hold. `digests` are those that registries or the engine gave it.

    An engine with containerd's store calls an image by its manifest, and only who can read the
    store knows the configuration, which is what others call it by: so the digests tell, too.
    """

    image_id: str
    build_id: str
    options: SqshOptions
    digests: tuple[str, ...] = ()

    def is_image_of(self, sidecar: Sidecar | MadeFrom) -> bool:
        """Whether the file of this sidecar holds the same image."""
        if sidecar.image_id == self.image_id:
            return True
        known = sidecar.image_digests if isinstance(sidecar, Sidecar) else ()
        one, other = ({text.rpartition("@")[2] for text in some} for some in (known, self.digests))
        return not one.isdisjoint(other)


def already_there(
    destination: Path, wanted: SqshIdentity, *, force: bool, own: bool = False
) -> Sidecar | None:
    """The sidecar of a destination that is up to date; None where it is to be written.

    Raises UsageError rather than overwrite something else; `force` overwrites all but a folder,
    and in a folder of Slipway's `own` a build that was lost and made anew replaces itself.
    """
    if destination.is_dir():
        raise UsageError(
            "this is a folder, not a file to write",
            where=str(destination),
            cure=f"Name a file, such as {destination / 'image.sqsh'}.",
        )
    if force or not destination.exists():
        return None
    sidecar = read_any_sidecar(destination)
    cure = "Choose another name, or overwrite it with --force."
    if sidecar is None:
        raise UsageError(
            "the file exists and has no sidecar, so what it holds is not known",
            where=str(destination),
            cure=cure,
        )
    if sidecar.build_id != wanted.build_id:
        raise UsageError(
            f"the file exists and holds another image: {sidecar.reference}, build"
            f" {sidecar.build_id[:12]}",
            where=str(destination),
            cure=cure,
        )
    if not wanted.is_image_of(sidecar):
        if own:
            return None
        raise UsageError(
            "the file exists and holds this build as it was made another time:"
            f" {sidecar.reference}, {sidecar.image_id}, and here it is {wanted.image_id}",
            where=str(destination),
            cure="Use the file that is there; or overwrite it with --force, where no job needs it.",
        )
    if any(sidecar.options.get(name) != value for name, value in wanted.options.asked.items()):
        raise UsageError(
            f"the file exists and was made with other options ({sidecar.options})",
            where=str(destination),
            cure=cure,
        )
    if isinstance(sidecar, MadeFrom):  # another version's: the same again, with a sidecar of today
        return None
    # The sidecar gets its name first, so a run that was killed between the two renames leaves
    # one that does not fit the file yet.
    if destination.stat().st_size != sidecar.size:
        return None
    return sidecar
