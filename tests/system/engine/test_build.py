"""Builds with BuildKit on a real engine, over our own session."""

from __future__ import annotations

import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from slipway.core import Credentials, Event, SlipwayError, anonymous, wait_until
from slipway.engine import (
    ContextFile,
    Engine,
    EngineError,
    find_image_id,
    inspect_image,
    push_image_layers,
    run_once,
)
from slipway.engine.errors import BuildCancelledError, BuildFailedError
from slipway.registry import prepare_repository
from tests.support.engine_builds import request, run_build, sleeping, when_says
from tests.support.registry.ecr_front_door import Door
from tests.support.tiny import rootfs_tar

pytest_plugins = ["tests.support.registry.fixtures"]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "build.log"


@pytest.fixture
def tag() -> str:
    """A reference of the test's own; in a RUN line it makes a step that no cache has."""
    return f"slipway.test/{uuid.uuid4().hex}:1"


def _content(engine: Engine, image: str, path: str) -> bytes:
    return run_once(engine, image, ["cat", path], timeout_s=60).stdout


def _bytes_of(engine: Engine, image: str) -> bytes:
    """The whole image as `docker save` gives it: configuration, history and all layers."""
    return b"".join(engine.client.images.get(image).save())


def test_a_secret_reaches_its_step_and_is_in_no_layer_and_no_history(
    engine: Engine, tiny_base: str, tag: str, log: Path
) -> None:
    secret = f"secret-{uuid.uuid4().hex}".encode()
    wanted = request(
        f"FROM {tiny_base}\n"
        "RUN --mount=type=secret,id=token read -r line < /run/secrets/token; "
        f"echo ${{#line}} > /length # {tag}\n",
        tags=(tag,),
        secrets={"token": secret + b"\n"},
    )
    image = run_build(engine, wanted, log)
    assert _content(engine, image, "/length") == b"%d\n" % len(secret)
    whole = _bytes_of(engine, image)
    assert b"/run/secrets/token" in whole  # the history is in what was searched
    assert secret not in whole
    assert secret not in log.read_bytes()


def test_a_secret_of_the_largest_size_arrives_whole(
    engine: Engine, tiny_base: str, tag: str, log: Path
) -> None:
    secret = uuid.uuid4().bytes * (500 * 1024 // 16)
    wanted = request(
        f"FROM {tiny_base}\n"
        "RUN --mount=type=secret,id=ca dd if=/run/secrets/ca of=/copy bs=512000 count=1 "
        f"# {tag}\n",
        secrets={"ca": secret},
    )
    assert _content(engine, run_build(engine, wanted, log), "/copy") == secret


def test_arguments_labels_and_tags_are_in_the_image(
    engine: Engine, tiny_base: str, tag: str, log: Path
) -> None:
    labels = {"io.slipway.cell": '{"torch": "2.8", "größe": "a b"}'}
    wanted = request(
        f'FROM {tiny_base}\nARG WHO\nRUN echo "$WHO" > /who\n',
        tags=(tag, f"{tag}-too"),
        build_args={"WHO": "a & b=c"},
        labels=labels,
    )
    image = run_build(engine, wanted, log)
    assert find_image_id(engine, tag) == find_image_id(engine, f"{tag}-too") == image
    assert labels.items() <= inspect_image(engine, tag)["Config"]["Labels"].items()
    assert _content(engine, tag, "/who") == b"a & b=c\n"


def test_the_same_build_again_runs_nothing_and_gives_the_same_image(
    engine: Engine, tiny_base: str, tag: str, log: Path
) -> None:
    wanted = request(
        f"FROM {tiny_base}\nCOPY a /a\nRUN echo {tag} > /b\n",
        context=(ContextFile("a", b"content"),),
    )
    runs: list[list[Event]] = [[], []]
    first, second = (run_build(engine, wanted, log, on_event=events.append) for events in runs)
    assert first == second

    def kinds(events: list[Event]) -> list[str]:
        return [event.kind for event in events if " RUN " in event.step]

    assert kinds(runs[0]) == ["start", "done"]
    assert kinds(runs[1])[-1] == "cached"


def test_a_cache_mount_is_kept_between_builds_and_out_of_the_image(
    engine: Engine, tiny_base: str, log: Path
) -> None:
    mount = f"--mount=type=cache,id={uuid.uuid4().hex},target=/cache"
    for number in (1, 2):
        dockerfile = f"FROM {tiny_base}\nRUN {mount} echo {number} >> /cache/n; cat /cache/n > /n\n"
        image = run_build(engine, request(dockerfile), log)
    assert _content(engine, image, "/n") == b"1\n2\n"
    listed = run_once(engine, image, ["ls", "/cache"], timeout_s=60)
    assert listed.stdout == b""


def test_files_of_the_context_arrive_with_their_modes(
    engine: Engine, tiny_base: str, tmp_path: Path, log: Path
) -> None:
    large = uuid.uuid4().bytes * 300_000
    (tmp_path / "wheel").write_bytes(large)
    wanted = request(
        f"FROM {tiny_base}\nCOPY wheels /wheels\nCOPY run /run.sh\n",
        context=(
            ContextFile("wheels/größe/x.whl", tmp_path / "wheel"),
            ContextFile("run", b"#!/bin/sh\necho ran\n", 0o755),
        ),
    )
    image = run_build(engine, wanted, log)
    assert _content(engine, image, "/wheels/größe/x.whl") == large
    assert run_once(engine, image, ["/run.sh"], timeout_s=60).stdout == b"ran\n"


@pytest.mark.parametrize(
    ("network", "alone"), [("none", True), ("host", False), ("default", False)]
)
def test_a_step_has_the_network_that_was_asked_for(
    engine: Engine, tiny_base: str, tag: str, log: Path, network: Any, alone: bool
) -> None:
    wanted = request(f"FROM {tiny_base}\nRUN ls /sys/class/net > /net # {tag}\n", network=network)
    seen = _content(engine, run_build(engine, wanted, log), "/net").decode().split()
    host = [entry.name for entry in Path("/sys/class/net").iterdir()]
    assert (seen == ["lo"]) is alone
    assert (sorted(seen) == sorted(host)) is not alone


def test_a_failing_step_is_named_with_its_last_lines_and_tags_nothing(
    engine: Engine, tiny_base: str, tag: str, log: Path
) -> None:
    wanted = request(
        f"FROM {tiny_base}\nRUN echo first; echo the reason >&2; exit 3\nRUN echo never\n",
        tags=(tag,),
    )
    with pytest.raises(BuildFailedError) as caught:
        run_build(engine, wanted, log)
    error = caught.value
    assert error.step is not None
    assert "RUN echo first" in error.step
    assert sorted(error.last_lines) == ["first", "the reason"]
    assert "exit code: 3" in error.reason
    assert error.log == log
    assert "the reason" in log.read_text()
    assert "never" not in "".join(line for line in log.read_text().splitlines() if "|" in line)
    assert find_image_id(engine, tag) is None


def test_a_mistake_in_the_dockerfile_belongs_to_no_step(
    engine: Engine, tiny_base: str, log: Path
) -> None:
    with pytest.raises(BuildFailedError, match="unknown instruction") as caught:
        run_build(engine, request(f"FROM {tiny_base}\nRUNN true\n"), log)
    assert caught.value.step is None


def test_a_copy_of_what_is_not_in_the_context_names_the_file(
    engine: Engine, tiny_base: str, log: Path
) -> None:
    with pytest.raises(BuildFailedError, match=r"missing\.whl"):
        run_build(engine, request(f"FROM {tiny_base}\nCOPY missing.whl /\n"), log)


def test_a_tag_that_is_none_is_refused_by_the_engine_in_its_own_words(
    engine: Engine, tiny_base: str, log: Path
) -> None:
    with pytest.raises(EngineError, match="invalid reference format"):
        run_build(engine, request(f"FROM {tiny_base}\n", tags=("slipway.test/a:b:c",)), log)


def test_a_cancelled_build_stops_in_the_engine_and_leaves_no_tag_and_no_thread(
    engine: Engine, tiny_base: str, tag: str, log: Path
) -> None:
    cancel = threading.Event()
    wanted = request(f"FROM {tiny_base}\nRUN echo begun; exec sleep 4711\n", tags=(tag,))
    with pytest.raises(BuildCancelledError):
        run_build(
            engine,
            wanted,
            log,
            on_event=when_says("begun", lambda _: cancel.set()),
            cancel=cancel,
        )
    assert wait_until(lambda: not sleeping("4711"), 30)
    assert find_image_id(engine, tag) is None
    assert not [t for t in threading.enumerate() if t.name.startswith(("build", "buildkit"))]


def test_a_build_that_is_cancelled_before_it_begins_does_nothing(
    engine: Engine, tiny_base: str, tag: str, log: Path
) -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(BuildCancelledError):
        run_build(engine, request(f"FROM {tiny_base}\nRUN true\n", tags=(tag,)), log, cancel=cancel)
    assert find_image_id(engine, tag) is None


INTERRUPTED = """
import sys
from pathlib import Path
from slipway.core import interrupts
from slipway.engine.client import connect
from slipway.core.paths import Project
from tests.support.engine_builds import request, run_build, when_says

interrupts.handle_signals()  # as `inv` does
root, state, base, tag, log = sys.argv[1:]
engine = connect(Project(Path(root), Path(state)), "embedded")
wanted = request(f"FROM {base}\\nRUN echo begun; exec sleep 4712\\n", tags=(tag,))
try:
    run_build(engine, wanted, Path(log), on_event=when_says("begun", lambda e: print("begun")))
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_ctrl_c_stops_the_build_in_the_engine(
    engine: Engine, shared_project: Any, tiny_base: str, tag: str, log: Path
) -> None:
    command = [sys.executable, "-u", "-c", INTERRUPTED]
    places = [str(shared_project.root), str(shared_project.state)]
    with subprocess.Popen(
        [*command, *places, tiny_base, tag, str(log)],
        cwd=shared_project.root,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "begun\n"
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
        finally:
            process.kill()
    assert wait_until(lambda: not sleeping("4712"), 30)
    assert find_image_id(engine, tag) is None


def test_builds_at_once_with_one_tag_all_succeed(
    engine: Engine, tiny_base: str, tag: str, tmp_path: Path
) -> None:
    def one(number: int) -> str:
        dockerfile = f"FROM {tiny_base}\nRUN echo {number} {tag} > /number\n"
        return run_build(engine, request(dockerfile, tags=(tag,)), tmp_path / f"{number}.log")

    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(one, range(4)))
    assert len(set(images)) == 4
    assert find_image_id(engine, tag) in images


@pytest.fixture
def private(engine: Engine, door: Door) -> str:
    """A base in a registry that wants a login, and not in the engine."""
    repository = f"t{uuid.uuid4().hex[:8]}/base"
    prepare_repository(door.target, repository)
    reference = f"{door.host}/{repository}:1"
    api = engine.client.api
    with tempfile.TemporaryFile() as file:
        file.write(rootfs_tar())
        file.seek(0)
        with tarfile.open(fileobj=file, mode="a") as tar:
            tar.addfile(tarfile.TarInfo(uuid.uuid4().hex))  # a layer that no other image has
        file.seek(0)
        api.import_image_from_data(file.read(), repository=reference[:-2], tag="1")
    push_image_layers(engine, reference, credentials=_login(door), on_event=lambda _: None)
    api.remove_image(reference, force=True)
    return reference


def _login(door: Door) -> Any:
    return lambda host: Credentials("AWS", door.issue()[0]) if host == door.host else None


def test_a_private_base_is_pulled_with_credentials_asked_for_at_that_moment(
    engine: Engine, door: Door, private: str, log: Path
) -> None:
    asked: list[str] = []
    events: list[Event] = []

    def credentials(host: str) -> Credentials:
        asked.append(host)
        return Credentials("AWS", door.issue()[0])

    wanted = request(f"FROM {private}\nRUN echo hello > /hello\n")
    image = run_build(engine, wanted, log, credentials=credentials, on_event=events.append)
    assert _content(engine, image, "/hello") == b"hello\n"
    assert set(asked) == {door.host}
    moved = [event for event in events if event.kind == "progress" and event.unit == "B"]
    assert moved
    assert all(event.current <= event.total or not event.total for event in moved)


def test_without_credentials_a_private_base_fails_with_what_to_do(
    engine: Engine, private: str, log: Path
) -> None:
    with pytest.raises(BuildFailedError) as caught:
        run_build(engine, request(f"FROM {private}\nRUN true\n"), log, credentials=anonymous)
    assert caught.value.cure is not None
    assert "credentials" in caught.value.cure


def test_an_error_of_the_credentials_is_raised_in_its_own_type(
    engine: Engine, private: str, log: Path
) -> None:
    class NoLoginError(SlipwayError):
        pass

    def credentials(host: str) -> Credentials:
        raise NoLoginError(f"the session for {host} has expired")

    with pytest.raises(NoLoginError, match="has expired"):
        run_build(engine, request(f"FROM {private}\nRUN true\n"), log, credentials=credentials)
