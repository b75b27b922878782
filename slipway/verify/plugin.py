"""The pytest plugin that tests/image runs under: fixtures for one image, progress for the caller.

Loaded by slipway.verify.image_checks only. testinfra's own plugin is switched off there: its
`host` would be the machine that the checks run on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host  # type: ignore[import-untyped]

from slipway.core import Project
from slipway.engine import Engine, connect
from slipway.verify import check_containers
from slipway.verify.check_containers import LaunchedJob, SdkBackend
from slipway.verify.check_process import TESTINFRA, CheckReporter
from slipway.verify.expectations import CheckedImage
from slipway.verify.findings import Distributions, find_log_complaints, load_allowed

# Made anew for each container: moby/moby:daemon/initlayer/setup_unix.go.
_OF_THE_ENGINE = {"/.dockerenv", "/etc/hostname", "/etc/hosts", "/etc/mtab", "/etc/resolv.conf"}

_SILENCE_S = 900
"""A command in a container that prints nothing for so long is taken for hung."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where the subject is, where progress goes, and whether there is a GPU."""
    group = parser.getgroup("slipway")
    group.addoption("--slipway-subject", metavar="FILE", required=True)
    group.addoption("--slipway-report", metavar="FD", type=int, default=None)
    group.addoption("--slipway-gpu", action="store_true")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker and the reporter."""
    if config.pluginmanager.has_plugin(TESTINFRA):
        raise pytest.UsageError(f"run these checks by `./inv verify`, or with -p no:{TESTINFRA}")
    config.addinivalue_line("markers", "gpu: needs a GPU in the engine's host")
    descriptor = config.getoption("--slipway-report")
    if descriptor is not None:
        config.pluginmanager.register(CheckReporter(os.fdopen(descriptor, "w")), "slipway-reporter")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out, and count, what needs a GPU where there is none."""
    if config.getoption("--slipway-gpu"):
        return
    without = [item for item in items if item.get_closest_marker("gpu")]
    if without:
        config.hook.pytest_deselected(items=without)
        items[:] = [item for item in items if item not in without]


@pytest.fixture(scope="session")
def subject(pytestconfig: pytest.Config) -> CheckedImage:
    """The image, and what is expected of it."""
    return CheckedImage.from_json(Path(pytestconfig.getoption("--slipway-subject")).read_text())


@pytest.fixture(scope="session")
def engine(pytestconfig: pytest.Config, subject: CheckedImage) -> Iterator[Engine]:
    """The engine that has the image."""
    connected = connect(Project.at(pytestconfig.rootpath), subject.engine)
    connected.client.api.timeout = _SILENCE_S
    yield connected
    connected.close()


@pytest.fixture(scope="session")
def image_config(engine: Engine, subject: CheckedImage) -> Mapping[str, Any]:
    """The image's config: Env, Entrypoint, Cmd, User, WorkingDir, Labels."""
    config: Mapping[str, Any] = engine.client.images.get(subject.image_id).attrs["Config"]
    return config


@pytest.fixture(scope="session")
def base_config(engine: Engine, subject: CheckedImage) -> Mapping[str, Any]:
    """The base's config."""
    config: Mapping[str, Any] = engine.client.images.get(subject.base_id).attrs["Config"]
    return config


@pytest.fixture(scope="session")
def container(engine: Engine, subject: CheckedImage) -> Iterator[str]:
    """A container of the image at rest: it runs `sleep`, not the ENTRYPOINT."""
    with check_containers.resting_container(engine, subject.image_id) as started:
        yield started


@pytest.fixture(scope="session")
def base_container(engine: Engine, subject: CheckedImage) -> Iterator[str]:
    """A container of the base at rest."""
    with check_containers.resting_container(engine, subject.base_id) as started:
        yield started


@pytest.fixture(scope="session")
def host(engine: Engine, container: str) -> Host:
    """testinfra's view of `container`. The image's ENV is there, its ENTRYPOINT has not run."""
    return _host(engine, container)


@pytest.fixture(scope="session")
def gpu_host(engine: Engine, subject: CheckedImage) -> Iterator[Host]:
    """The same with all GPUs of the engine's host."""
    with check_containers.resting_container(engine, subject.image_id, gpu=True) as started:
        yield _host(engine, started)


def _host(engine: Engine, container: str) -> Host:
    backend = SdkBackend(engine, container)
    host = Host(backend)
    backend.set_host(host)
    return host


RunPython = Callable[[str], str]


@pytest.fixture(scope="session")
def run_python(host: Host, subject: CheckedImage) -> RunPython:
    """Run code with the image's Python, the image's ENV set; what it printed."""

    def run(code: str) -> str:
        done = host.backend.run_words(subject.python, "-B", "-c", code)
        assert done.rc == 0, done.stderr or done.stdout
        return str(done.stdout).strip()

    return run


def _distributions(engine: Engine, container: str, subject: CheckedImage) -> Distributions:
    return Distributions(
        **check_containers.probe_container(engine, container, subject.python, "distributions")
    )


@pytest.fixture(scope="session")
def packages(engine: Engine, container: str, subject: CheckedImage) -> Distributions:
    """The distributions of the image's Python."""
    return _distributions(engine, container, subject)


@pytest.fixture(scope="session")
def base_packages(engine: Engine, base_container: str, subject: CheckedImage) -> Distributions:
    """The distributions of the base's Python."""
    return _distributions(engine, base_container, subject)


@pytest.fixture(scope="session")
def added(engine: Engine, base_container: str, subject: CheckedImage) -> Mapping[str, bool]:
    """Files that are not in the base or differ from it -> whether a wheel's RECORD lists them."""
    # A container of its own: the checks in `container` leave traces.
    with check_containers.resting_container(engine, subject.image_id) as fresh:
        ours = check_containers.probe_container(engine, fresh, subject.python, "tree", "/")
    theirs = check_containers.probe_container(engine, base_container, subject.python, "tree", "/")
    return {
        path: bool(seen[3])
        for path, seen in ours.items()
        if theirs.get(path, [])[:3] != seen[:3] and path not in _OF_THE_ENGINE
    }


@pytest.fixture(scope="session")
def added_contents(
    engine: Engine, container: str, subject: CheckedImage, added: Mapping[str, bool]
) -> Mapping[str, bytes]:
    """Path -> content of the added files that are in no wheel. Tools are checked by their hash."""
    tools = {tool.path for tool in subject.tools.values()}
    paths = sorted(path for path, owned in added.items() if not owned and path not in tools)
    return check_containers.container_contents(engine, container, subject.python, paths)


Launch = Callable[..., LaunchedJob]


@pytest.fixture(scope="session")
def launched(engine: Engine, subject: CheckedImage, pytestconfig: pytest.Config) -> Launch:
    """Start the image as its platform does, through its own ENTRYPOINT, and wait for its end.

    A start that ends with 0 may not complain in its log, unless tests/image/allowed.yaml says why.
    """
    allowed = load_allowed(pytestconfig.rootpath / "tests" / "image" / "allowed.yaml")

    def launch(
        *command: str,
        files: Mapping[str, bytes] | None = None,
        folders: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        collect: Sequence[str] = (),
        timeout_s: float = 120,
    ) -> LaunchedJob:
        request = check_containers.LaunchRequest(
            command, files or {}, folders, env or {}, collect, timeout_s
        )
        done = check_containers.launch_job(engine, subject.image_id, request)
        if done.exit_code == 0:
            complaints = find_log_complaints(done.log, allowed, date.today())
            assert not complaints, "a start that succeeded complains:\n" + "\n".join(complaints)
        return done

    return launch


@pytest.fixture(scope="session")
def train(launched: Launch) -> Launch:
    """A SageMaker job of one host: `train`, with a script and its hyperparameters."""

    def run(
        script: str, hyperparameters: Mapping[str, Any] | None = None, **more: Any
    ) -> LaunchedJob:
        return launched(
            "train",
            files=check_containers.job_files(script, hyperparameters or {}),
            folders=check_containers.FOLDERS,
            collect=check_containers.RESULTS,
            **more,
        )

    return run
