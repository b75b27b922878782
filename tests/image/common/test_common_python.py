from __future__ import annotations

from testinfra.host import Host  # type: ignore[import-untyped]

from slipway.engine import Engine
from slipway.records import MACHINES
from slipway.verify.check_containers import SdkBackend
from slipway.verify.expectations import CheckedImage
from slipway.verify.plugin import RunPython


def found_on_path(host: Host, program: str) -> str:
    return str(host.run("command -v %s", program).stdout).strip()


def test_python_on_path_is_the_one_that_is_stated(host: Host, subject: CheckedImage) -> None:
    assert found_on_path(host, "python") == subject.python
    running = host.run("python -c 'import sys; print(sys.executable)'").stdout.strip()
    assert running == subject.python


def test_pip_on_path_installs_into_the_python_that_is_stated(
    engine: Engine, host: Host, base_container: str, subject: CheckedImage
) -> None:
    pip = found_on_path(host, "pip")
    if not pip:  # bases made by uv have none; then ours takes nothing away
        base = Host(SdkBackend(engine, base_container))
        assert found_on_path(base, "pip") == ""
        return
    shown = host.run("pip --version").stdout.split()
    located = host.run("python -c 'import pip; print(pip.__file__)'").stdout.strip()
    assert shown[3] == located.removesuffix("/__init__.py")


def test_the_version_of_python_is_as_stated(run_python: RunPython, subject: CheckedImage) -> None:
    version = run_python("import sys; print('%d.%d' % sys.version_info[:2])")
    assert version == subject.facts["python"]


def test_programs_are_of_the_architecture_that_is_stated(
    run_python: RunPython, subject: CheckedImage
) -> None:
    stated = subject.facts.get("architecture", "amd64")
    assert run_python("import platform; print(platform.machine())") == MACHINES[stated]


def test_the_operating_system_is_as_stated(host: Host, subject: CheckedImage) -> None:
    lines = host.file("/etc/os-release").content_string.splitlines()
    release = {key: value.strip("\"'") for key, _, value in (line.partition("=") for line in lines)}
    assert release["ID"] + release["VERSION_ID"] == subject.facts["os"]


def test_training_output_is_not_buffered(run_python: RunPython) -> None:
    assert run_python("import sys; print(sys.stdout.write_through)") == "True"
