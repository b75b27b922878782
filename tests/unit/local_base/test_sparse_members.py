"""A tar without its sparse members, held against what GNU tar itself makes without `--sparse`."""

from __future__ import annotations

import os
import random
import subprocess
import tarfile
from pathlib import Path

import pytest

from slipway.core import SlipwayError
from slipway.local_base.sparse_members import write_out_sparse_members

# As mmdebstrap 1.6.0 has them.
OPTIONS = (
    *("--sort=name", "--mtime=@1700000000", "--clamp-mtime", "--numeric-owner", "--format=pax"),
    *("--one-file-system", "-c", "--exclude=./lost+found"),
    "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime",
)


def tar_of(tree: Path, *options: str) -> bytes:
    command = ["tar", *OPTIONS, *options, "-C", str(tree), "."]
    return subprocess.run(command, capture_output=True, check=True).stdout


def holed(path: Path, noise: random.Random) -> None:
    """A file of data and holes, in turn; perhaps with a hole at its end, or nothing but one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for _ in range(noise.randrange(6)):
            file.seek(noise.randrange(1, 60) * 4096, 1)
            file.write(noise.randbytes(noise.randrange(1, 9000)))
        file.truncate(file.tell() + noise.choice([0, 1, 5000, 200_000]))
    when = noise.choice([1_600_000_000, 1_600_000_000.25, 1_800_000_000])
    os.utime(path, (when, when))


def tree_of(folder: Path, seed: int) -> None:
    noise = random.Random(seed)
    names = ["usr/bin/dmesg", "a", "x" * 99, "y" * 120, f"{'d' * 60}/{'e' * 70}", "ä/ö", "empty"]
    for name in noise.sample(names, noise.randrange(1, len(names))):
        holed(folder / name, noise)
    for name in ("usr/plain", "z" * 130, "ü"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(noise.randbytes(noise.randrange(3000)))
    (folder / "link").symlink_to("usr/plain")
    os.link(folder / "usr/plain", folder / "usr/same")


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("devices", [0, 3])
def test_it_is_the_tar_that_would_have_been_made_without(
    tmp_path: Path, seed: int, devices: int
) -> None:
    tree, tar = tmp_path / "tree", tmp_path / "made.tar"
    tree.mkdir()
    tree_of(tree, seed)
    # mmdebstrap writes headers of device nodes before what `tar` writes.
    nodes = b"".join(device(f"./dev/{number}") for number in range(devices))
    sparse, plain = (nodes + tar_of(tree, *options) for options in (["--sparse"], []))
    tar.write_bytes(sparse)
    write_out_sparse_members(tar)
    assert tar.read_bytes() == plain
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made.tar", "tree"]


def device(name: str) -> bytes:
    node = tarfile.TarInfo(name)
    node.type, node.devmajor, node.devminor = tarfile.CHRTYPE, 1, 3
    return node.tobuf(tarfile.USTAR_FORMAT)


def test_the_trees_have_sparse_members(tmp_path: Path) -> None:
    tree_of(tmp_path, 1)
    assert b"GNU.sparse.major=1" in tar_of(tmp_path, "--sparse")


@pytest.mark.parametrize("options", [("--sparse-version=0.1",), ("--sparse-version=0.0",)])
def test_another_form_is_refused(tmp_path: Path, options: tuple[str, ...]) -> None:
    tree, tar = tmp_path / "tree", tmp_path / "made.tar"
    holed(tree / "a", random.Random(3))
    tar.write_bytes(tar_of(tree, "--sparse", *options))
    before = tar.read_bytes()
    with pytest.raises(SlipwayError, match="sparse in a form"):
        write_out_sparse_members(tar)
    assert tar.read_bytes() == before


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_a_tar_that_ends_early_is_said_to_be_damaged(tmp_path: Path, part: float) -> None:
    tree, tar = tmp_path / "tree", tmp_path / "made.tar"
    for seed in range(4):
        holed(tree / f"{seed}", random.Random(seed))
    whole = tar_of(tree, "--sparse").rstrip(b"\0")
    tar.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(SlipwayError, match="damaged"):
        write_out_sparse_members(tar)
