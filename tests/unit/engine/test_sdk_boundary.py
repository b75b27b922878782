"""Whatever the docker SDK and what it stands on can raise leaves as one paragraph."""

from __future__ import annotations

from pathlib import Path

import docker
import pytest

from slipway.core import Project, SlipwayError
from slipway.engine import Engine, EngineError, EngineUnavailableError, connect, sdk_errors
from tests.support.exceptions import class_name, every_class, instance

EVERY = every_class("docker", "requests", "urllib3")


class Answering(Engine):
    """An engine that says whether it answers, and has no client."""

    alive = True

    def answers(self) -> bool:
        return self.alive


def engine(*, alive: bool) -> Engine:
    made = Answering(None, "unix:///x", False, "26.0", "1.45", "/d", False)  # type: ignore[arg-type]
    object.__setattr__(made, "alive", alive)
    return made


@pytest.mark.parametrize("alive", [True, False])
@pytest.mark.parametrize("kind", EVERY, ids=class_name)
def test_every_exception_of_the_sdk_becomes_an_engine_error(
    kind: type[Exception], alive: bool
) -> None:
    with pytest.raises(EngineError) as told, sdk_errors(engine(alive=alive), "listing images"):
        raise instance(kind)
    assert "listing images" in told.value.what
    assert told.value.where == "unix:///x"


def test_our_own_errors_go_through_as_they_are() -> None:
    with pytest.raises(SlipwayError, match="mine"), sdk_errors(engine(alive=True), "x"):
        raise SlipwayError("mine")


@pytest.mark.parametrize("kind", EVERY, ids=class_name)
def test_a_client_that_cannot_be_made_is_an_engine_that_cannot_be_used(
    kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**options: object) -> None:
        raise instance(kind)

    monkeypatch.setattr(docker, "DockerClient", refuse)
    with pytest.raises(EngineUnavailableError) as told:
        connect(Project(tmp_path, tmp_path / "state"), "tcp://127.0.0.1:9")
    assert told.value.where == "tcp://127.0.0.1:9"
    assert told.value.cure


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "tcp://",
        "tcp://host:port",
        "http://[::1",
        "npipe://x",
        "tcp://[::1]:1",
        "ftp://x",
    ],
)
def test_an_engine_url_that_is_none_is_an_error(url: str, tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailableError):
        connect(Project(tmp_path, tmp_path / "state"), url)
