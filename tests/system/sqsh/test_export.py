"""Exports of a real engine, read back by unsquashfs and by the kernel."""

from __future__ import annotations

import gc
import io
import os
import re
import signal
import stat
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from slipway.core import Event, Project, SlipwayError, UsageError, human_bytes
from slipway.engine import (
    OWNER_LABEL,
    Engine,
    connect,
    daemon_status,
    import_rootfs,
    inspect_image,
    start_daemon,
    stop_daemon,
)
from slipway.engine.errors import EngineDiedError
from slipway.sqsh import ExportRequest, Packing, export_image
from slipway.sqsh.enroot_files import enroot_files
from slipway.sqsh.image_documents import ImageConfig
from slipway.sqsh.sidecar import Sidecar, verify_sqsh
from slipway.squashfs import LayerCache, SqshOptions
from tests.support.sqsh_trees import (
    CAPABILITY,
    OLD,
    describe,
    engine_rootfs,
    entry,
    odd_rootfs,
    random_rootfs,
    unpack,
)

CHECKOUT = Path(__file__).parents[3]
CACHE = LayerCache(
    Path(os.environ.get("SLIPWAY_TEST_STATE", CHECKOUT / ".slipway" / "test")) / "layers"
)
ENROOT_FILES = {b"etc/rc", b"etc/rc.local", b"etc/environment", b"etc/fstab"}


@pytest.fixture(params=[True, False], ids=["in place", "saved"])
def in_place(request: pytest.FixtureRequest) -> bool:
    """Both ways from an engine to its layers."""
    return bool(request.param)


@pytest.fixture
def cache(in_place: bool, tmp_path: Path) -> LayerCache:
    """Of its own where layers are to come from what the engine saves."""
    return CACHE if in_place else LayerCache(tmp_path / "cache")


@pytest.fixture(scope="module")
def odd_image(engine: Engine) -> str:
    reference = "slipway.test/odd:1"
    changes = [
        "ENV GREETING=hello",
        'ENTRYPOINT ["/opt/ping", "it\'s"]',
        'CMD ["a b"]',
        "WORKDIR /opt/ml/code",
        "VOLUME /scratch",
        "LABEL who=me",
    ]
    import_rootfs(engine, io.BytesIO(odd_rootfs()), reference, changes=changes)
    return reference


@pytest.fixture(scope="module")
def large_image(engine: Engine) -> str:
    reference = "slipway.test/large:1"
    import_rootfs(engine, io.BytesIO(random_rootfs(10)), reference)
    return reference


def export_containers(engine: Engine) -> list[str]:
    found = engine.client.api.containers(all=True, filters={"label": OWNER_LABEL})
    return [container["Id"] for container in found]


def run_export(
    engine: Engine,
    reference: str,
    destination: Path,
    cache: LayerCache = CACHE,
    *,
    options: SqshOptions | None = None,
    force: bool = False,
    **more: object,
) -> Sidecar:
    packing = Packing(options or SqshOptions())
    request = ExportRequest(destination, "b" * 64, packing, force)
    return export_image(engine, reference, request, cache=cache, **more)  # type: ignore[arg-type]


def test_a_sqsh_holds_the_engines_root_file_system_with_enroots_changes_and_no_others(
    engine: Engine, odd_image: str, tmp_path: Path, in_place: bool, cache: LayerCache
) -> None:
    made = run_export(engine, odd_image, tmp_path / "a.sqsh", cache=cache, in_place=in_place)
    ours = describe(unpack(tmp_path / "a.sqsh", tmp_path / "ours"))
    theirs = describe(engine_rootfs(engine, odd_image, tmp_path / "theirs"))

    left_out = {path for path in theirs if path.startswith(b"dev/")} | {b".dockerenv", b"opt/node"}
    assert theirs.keys() - ours.keys() == left_out
    assert ours.keys() - theirs.keys() == ENROOT_FILES - {b"etc/rc.local", b"etc/fstab"}
    assert made.entries == len(ours)

    created = engine.client.images.get(odd_image).attrs["Created"]
    imported = int(time.mktime(time.strptime(created[:19], "%Y-%m-%dT%H:%M:%S"))) - time.timezone
    readable = {b"etc/shadow": 0o400, b"opt": 0o755}
    for path in ours.keys() - ENROOT_FILES:
        kind, mode, _, _, mtime, *rest = theirs[path]
        expected_mode = readable.get(path, mode)
        expected_mtime = mtime if mtime == OLD else imported
        if path in (b"etc", b"opt"):
            expected_mtime = OLD  # the engine touches them in every container, not in the layer
        assert ours[path] == (kind, expected_mode, 0, 0, expected_mtime, *rest), path
    assert ours[b"opt/ping"][-1] == {"security.capability": CAPABILITY}
    assert ours[b"opt/hard-1"][-2] == ours[b"opt/hard-2"][-2]


def test_the_files_of_enroot_are_those_of_the_images_config(
    engine: Engine, odd_image: str, tmp_path: Path, in_place: bool, cache: LayerCache
) -> None:
    run_export(engine, odd_image, tmp_path / "a.sqsh", cache=cache, in_place=in_place)
    root = unpack(tmp_path / "a.sqsh", tmp_path / "root")
    config = ImageConfig(
        env=("GREETING=hello",),
        entrypoint=("/opt/ping", "it's"),
        cmd=("a b",),
        working_dir="/opt/ml/code",
        labels=(("who", "me"),),
        volumes=("/scratch",),
    )
    (layer,) = engine.client.images.get(odd_image).attrs["RootFS"]["Layers"]
    for path, content in enroot_files(config, f"oci-chain-id:{layer}").items():
        assert (root / path).read_bytes() == content
        assert stat.S_IMODE((root / path).lstat().st_mode) == 0o644
    assert (root / "opt/ml/code").is_dir()


def test_the_kernel_mounts_a_sqsh_and_runs_what_is_in_it(
    engine: Engine, tiny_base: str, tmp_path: Path
) -> None:
    run_export(engine, tiny_base, tmp_path / "a.sqsh")
    mountpoint = tmp_path / "mnt"
    mountpoint.mkdir()
    subprocess.run(
        ["mount", "-t", "squashfs", "-o", "loop,ro", str(tmp_path / "a.sqsh"), str(mountpoint)],
        check=True,
    )
    try:
        done = subprocess.run(
            ["chroot", str(mountpoint), "/bin/sh", "/etc/rc", "cat", "/etc/rc"],
            check=True,
            capture_output=True,
        )
        assert done.stdout == (mountpoint / "etc/rc").read_bytes()
    finally:
        subprocess.run(["umount", str(mountpoint)], check=True)


@pytest.mark.parametrize(
    "options",
    [
        SqshOptions("lzo", None, 1 << 17),
        SqshOptions("gzip", 1, 1 << 16),
        SqshOptions("xz", None),
        SqshOptions("lz4", None),
        SqshOptions("none", None),
    ],
    ids=lambda options: options.compressor,
)
def test_every_compressor_gives_the_same_tree(
    engine: Engine, tiny_base: str, tmp_path: Path, options: SqshOptions
) -> None:
    made = run_export(engine, tiny_base, tmp_path / "a.sqsh", options=options)
    run_export(engine, tiny_base, tmp_path / "zstd.sqsh")
    assert made.options["compressor"] == options.compressor
    assert describe(unpack(tmp_path / "a.sqsh", tmp_path / "a")) == describe(
        unpack(tmp_path / "zstd.sqsh", tmp_path / "zstd")
    )


def test_the_same_image_gives_the_same_bytes_and_a_sidecar_that_fits(
    engine: Engine, odd_image: str, tmp_path: Path, in_place: bool, cache: LayerCache
) -> None:
    fresh = LayerCache(tmp_path / "cache")
    first = run_export(engine, odd_image, tmp_path / "a.sqsh", cache=cache, in_place=in_place)
    time.sleep(1.1)  # the engine's times have whole seconds
    second = run_export(engine, odd_image, tmp_path / "b.sqsh", fresh, in_place=not in_place)
    assert (tmp_path / "a.sqsh").read_bytes() == (tmp_path / "b.sqsh").read_bytes()
    assert (first, second) == (verify_sqsh(tmp_path / "a.sqsh"), verify_sqsh(tmp_path / "b.sqsh"))
    # Of an image in containerd's store only who reads in place knows the configuration's digest.
    assert first == replace(second, image_id=first.image_id)
    assert (second if in_place else first).image_id == engine.client.images.get(odd_image).id
    assert first.build_id == "b" * 64


def test_what_was_read_in_place_is_the_image_that_the_engine_sends(
    engine: Engine, odd_image: str, tmp_path: Path, in_place: bool
) -> None:
    events: list[Event] = []
    made = run_export(engine, odd_image, tmp_path / "a.sqsh", in_place=in_place)
    again = run_export(
        engine, odd_image, tmp_path / "a.sqsh", on_event=events.append, in_place=not in_place
    )
    assert again == made
    assert [event.kind for event in events] == ["cached"]


def test_a_second_export_does_nothing_and_another_image_is_not_overwritten(
    engine: Engine, odd_image: str, tiny_base: str, tmp_path: Path
) -> None:
    destination = tmp_path / "a.sqsh"
    made = run_export(engine, odd_image, destination)
    before = destination.stat()
    events: list[Event] = []
    assert run_export(engine, odd_image, destination, on_event=events.append) == made
    assert [event.kind for event in events] == ["cached"]
    with pytest.raises(UsageError, match=odd_image):
        run_export(engine, tiny_base, destination)
    after = destination.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    forced = run_export(engine, tiny_base, destination, force=True)
    assert verify_sqsh(destination) == forced
    assert forced.reference == tiny_base


def test_progress_and_what_was_left_out_are_told(
    engine: Engine, odd_image: str, tmp_path: Path
) -> None:
    events: list[Event] = []
    run_export(engine, odd_image, tmp_path / "a.sqsh", on_event=events.append)
    assert events[0].kind == "start"
    assert events[-1].kind == "done"
    assert "/opt/node" in events[-1].text


def test_an_image_that_is_not_there_is_said_with_the_cure(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(SlipwayError, match=r"no image slipway\.test/absent:1") as raised:
        run_export(engine, "slipway.test/absent:1", tmp_path / "a.sqsh")
    assert "inv build" in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_a_variable_with_a_newline_is_refused_before_anything_is_written(
    engine: Engine, tmp_path: Path
) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(entry("x"))
    plain = import_rootfs(engine, io.BytesIO(buffer.getvalue()), "slipway.test/plain:1", changes=[])
    container = engine.client.api.create_container(
        plain, ["x"], environment={"MOTD": "two\nlines"}, network_disabled=True
    )["Id"]
    try:
        engine.client.api.commit(container, "slipway.test/newline", "1")
    finally:
        engine.client.api.remove_container(container)
    with pytest.raises(SlipwayError, match="'MOTD'"):
        run_export(engine, "slipway.test/newline:1", tmp_path / "a.sqsh")
    assert list(tmp_path.iterdir()) == []


@contextmanager
def small_disk(tmp_path: Path, size: int, *options: str) -> Iterator[Path]:
    disk, mountpoint = tmp_path / "disk", tmp_path / "small"
    with disk.open("wb") as stream:
        stream.truncate(size)
    mountpoint.mkdir()
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(disk)], check=True)
    subprocess.run(
        ["mount", "-o", ",".join(["loop", *options]), str(disk), str(mountpoint)], check=True
    )
    try:
        yield mountpoint
    finally:
        subprocess.run(["umount", str(mountpoint)], check=True)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "lost+found")


def test_a_full_disk_leaves_no_half_file_and_no_container(
    engine: Engine, large_image: str, tmp_path: Path, in_place: bool, cache: LayerCache
) -> None:
    # The estimate (image x 0.45) fits into 32 MB, the incompressible image does not.
    with small_disk(tmp_path, 32 << 20) as folder:
        with pytest.raises(SlipwayError, match="No space left on device") as raised:
            run_export(engine, large_image, folder / "a.sqsh", cache=cache, in_place=in_place)
        assert str(folder) in str(raised.value)
        assert names(folder) == []
    assert export_containers(engine) == []


def test_a_disk_that_is_too_small_is_refused_with_both_numbers(
    engine: Engine, large_image: str, tmp_path: Path
) -> None:
    size = inspect_image(engine, large_image)["Size"]  # stores count, or do not count, metadata
    needed = f"needs about {human_bytes(size * 0.45)} (image {human_bytes(size)} x 0.45)"
    with small_disk(tmp_path, 16 << 20) as folder:
        with pytest.raises(SlipwayError, match=re.escape(needed)):
            run_export(engine, large_image, folder / "a.sqsh")
        assert names(folder) == []


def test_a_read_only_destination_is_said(engine: Engine, tiny_base: str, tmp_path: Path) -> None:
    with (
        small_disk(tmp_path, 64 << 20, "ro") as folder,
        pytest.raises(SlipwayError, match="Read-only file system"),
    ):
        run_export(engine, tiny_base, folder / "new" / "a.sqsh")
    assert export_containers(engine) == []


def test_missing_host_tools_are_named_with_the_cure(
    engine: Engine, tiny_base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SlipwayError, match=r"unsquashfs is not installed\n.*inv setup"):
        run_export(engine, tiny_base, tmp_path / "a.sqsh")


# docker-py leaves the socket open where a connect is refused (docker/transport/unixconn.py).
@pytest.mark.filterwarnings("ignore:.*socket:pytest.PytestUnraisableExceptionWarning")
def test_an_engine_that_dies_is_said_and_leaves_no_half_file(
    project: Project, tmp_path: Path
) -> None:
    start_daemon(project)
    own = connect(project, "embedded")
    try:
        import_rootfs(own, io.BytesIO(random_rootfs(10)), "slipway.test/large:1")
        pid = daemon_status(project).pid
        assert pid is not None
        victims = [pid]

        def kill_engine(event: Event) -> None:
            if event.step.startswith("layer") and victims:
                os.kill(victims.pop(), signal.SIGKILL)

        folder = tmp_path / "out"
        folder.mkdir()
        with pytest.raises(EngineDiedError):
            run_export(
                own,
                "slipway.test/large:1",
                folder / "a.sqsh",
                LayerCache(tmp_path / "cache"),
                on_event=kill_engine,
                in_place=False,
            )
        assert names(folder) == []
    finally:
        own.close()
        stop_daemon(project)
        gc.collect()


WORKER = """
import sys
from pathlib import Path
from slipway.core import interrupts
from slipway.engine.client import connect
from slipway.core.paths import Project
from slipway.sqsh import ExportRequest, Packing, export_image
from slipway.squashfs.format.options import SqshOptions
from slipway.squashfs.compile.layer_cache import LayerCache
interrupts.handle_signals()  # as `inv` does
url, reference, destination, cache = sys.argv[1:]
engine = connect(Project.at(Path.cwd()), url)
try:
    request = ExportRequest(Path(destination), "b", Packing(SqshOptions("xz", None)))
    export_image(engine, reference, request, cache=LayerCache(Path(cache)), in_place=False,
           on_event=lambda event: print(event.kind, event.step, flush=True))
except KeyboardInterrupt:
    sys.exit(130)
finally:
    engine.close()
"""


@contextmanager
def halfway(
    engine: Engine, reference: str, destination: Path, cache: Path
) -> Iterator[subprocess.Popen[str]]:
    """An export by another process (xz: slow), caught while it packs."""
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, engine.url, reference, str(destination), str(cache)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=CHECKOUT,
    )
    assert worker.stdout is not None
    with worker.stdout:
        lines = iter(worker.stdout.readline, "")
        assert any(line.startswith("progress layer") for line in lines)
        assert names(destination.parent) != []
        assert not destination.exists()
        try:
            yield worker
        finally:
            worker.kill()
            worker.wait()


def test_ctrl_c_leaves_no_file_and_no_container(
    engine: Engine, large_image: str, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    with halfway(engine, large_image, folder / "a.sqsh", tmp_path / "cache") as worker:
        worker.send_signal(signal.SIGINT)
        assert worker.wait(30) == 130
    assert names(folder) == []
    assert names(tmp_path / "cache") == ["layers", "locks"]
    assert export_containers(engine) == []


def test_what_a_killed_run_left_is_cleaned_by_the_next(
    engine: Engine, large_image: str, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    destination = folder / "a.sqsh"
    with halfway(engine, large_image, destination, tmp_path / "cache") as worker:
        worker.kill()
        worker.wait(30)
        assert len(names(folder)) == 1
    run_export(engine, large_image, destination, LayerCache(tmp_path / "cache"))
    assert names(folder) == ["a.sqsh", "a.sqsh.json"]
    assert names(tmp_path / "cache") == ["layers", "locks"]
    assert export_containers(engine) == []
    verify_sqsh(destination)
