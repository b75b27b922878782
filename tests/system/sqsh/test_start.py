"""`inv sqsh.trace`: a command is run in a .sqsh through /dev/fuse, and what it reads is noted."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import pytest

from slipway.core import SlipwayError, read_mount_table
from slipway.sqsh.start import (
    FuseConnection,
    NodeAttributes,
    StartTrace,
    read_trace,
    trace_start,
)
from slipway.squashfs import LayerCache, SqshOptions, TarSource, compile_layers, link_image
from tests.support.tiny import rootfs_tar

ROOT = Path(__file__).parents[3]
BLOCK = 1 << 20


def large_file() -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo("data/large")
    content = os.urandom(3 * BLOCK).hex().encode()  # compressed, so that damage is found
    info.size = len(content)
    return info, content


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start")
    packed = io.BytesIO(rootfs_tar())
    with tarfile.open(fileobj=packed, mode="a") as tar:
        info, content = large_file()
        tar.addfile(info, io.BytesIO(content))
    data = packed.getvalue()
    source = TarSource(f"sha256:{hashlib.sha256(data).hexdigest()}", lambda: [data])
    options = SqshOptions()
    with compile_layers(LayerCache(folder / "cache"), [source], options) as layers:
        link_image(layers, folder / "a.sqsh", options)
    return folder / "a.sqsh"


def ranges(trace: StartTrace, path: str) -> tuple[tuple[int, int], ...]:
    (found,) = (file.ranges for file in trace.files if file.path == path)
    return found


def test_what_a_command_reads_is_noted_in_the_order_of_reading(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where it mounts
    command = ["dd", "if=/data/large", "of=/dev/null", "bs=4k", "skip=1024", "count=1"]
    trace = trace_start(image, ["sh", "-c", f"{' '.join(command)}; cat /bin/id >/dev/null"])
    paths = [file.path for file in trace.files]
    assert paths.index("bin/sh") < paths.index("bin/dd") < paths.index("data/large")
    assert paths.index("data/large") < paths.index("bin/id")
    assert "bin/sleep" not in paths
    read = ranges(trace, "data/large")
    assert any(start <= 1024 * 4096 < end for start, end in read)
    assert sum(end - start for start, end in read) < 2 * BLOCK
    assert not [mount for mount in read_mount_table() if tmp_path in mount.target.parents]


def test_who_has_no_right_to_mount_traces_in_namespaces_of_its_own(
    image: Path, tmp_path: Path
) -> None:
    """As an ordinary user, but for the user's number: here /dev/fuse is root's alone."""
    output = tmp_path / "a.start"
    code = (
        "import sys; from pathlib import Path; from slipway.sqsh import record_start;"
        "record_start(Path(sys.argv[1]), sys.argv[3:], Path(sys.argv[2]))"
    )
    # Linux lets nobody map root into a namespace without CAP_SETFCAP.
    no_rights = ["setpriv", "--bounding-set=-all,+setfcap", "--inh-caps=-all"]
    done = subprocess.run(
        [*no_rights, sys.executable, "-c", code, str(image), str(output), "cat", "/bin/id"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert "bin/id" in [file.path for file in read_trace(output).files]


def test_a_command_that_fails_leaves_no_trace(image: Path) -> None:
    with pytest.raises(SlipwayError, match="ended with 3"):
        trace_start(image, ["sh", "-c", "exit 3"])
    with pytest.raises(SlipwayError, match="ended with 127"):
        trace_start(image, ["absent"])


def test_what_cannot_be_read_is_an_error_of_the_command_and_not_a_wait(
    image: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.sqsh"
    content = bytearray(image.read_bytes())
    middle = len(content) // 2  # in the large file
    content[middle : middle + 2 * BLOCK] = bytes(2 * BLOCK)
    damaged.write_bytes(content)
    with pytest.raises(SlipwayError, match="ended with"):
        trace_start(damaged, ["sh", "-c", "cat /data/large /bin/* > /dev/null"])


class OneFile:
    """A folder with one file, `f`."""

    content = os.urandom(4 * BLOCK)

    def attributes(self, node: int) -> NodeAttributes:
        if node == 2:
            return NodeAttributes(2, 0o100444, len(self.content))
        return NodeAttributes(1, 0o040755, nlink=2)

    def find(self, folder: int, name: bytes) -> NodeAttributes:
        return self.attributes(2)

    def names(self, folder: int) -> list[tuple[bytes, NodeAttributes]]:
        return [(b"f", self.attributes(2))]

    def target(self, node: int) -> bytes:
        raise OSError(errno.EINVAL, "no link")

    def read(self, node: int, start: int, size: int) -> bytes:
        return self.content[start : start + size]


def test_who_still_holds_a_file_is_served_until_he_lets_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slipway.sqsh.start.fuse_connection._CLOSE_SECONDS", 0.1)
    devices = fuse_devices()
    connection = FuseConnection(OneFile(), tmp_path, threads=4)
    with (tmp_path / "f").open("rb", buffering=0) as file:
        connection.close()
        assert not tmp_path.is_mount()
        # Files that are opened now must not get the number of the connection's own.
        others = [os.memfd_create(str(number)) for number in range(8)]
        assert file.read(BLOCK) == OneFile.content[:BLOCK]
        file.seek(3 * BLOCK)
        assert file.read(BLOCK) == OneFile.content[3 * BLOCK :]
        for other in others:
            assert os.fstat(other).st_size == 0
            os.close(other)
    end = time.monotonic() + 30
    while fuse_devices() != devices:
        assert time.monotonic() < end, "the connection was not closed"
        time.sleep(0.01)


def fuse_devices() -> set[Path]:
    found = set()
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            if path.readlink() == Path("/dev/fuse"):
                found.add(path)
    return found
