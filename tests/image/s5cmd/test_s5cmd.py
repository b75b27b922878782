from __future__ import annotations

from testinfra.host import Host  # type: ignore[import-untyped]

from slipway.verify.expectations import CheckedImage, ToolFact


def tool(subject: CheckedImage) -> ToolFact:
    return subject.tools["s5cmd"]


def test_s5cmd_on_path_is_the_one_that_was_put_there(host: Host, subject: CheckedImage) -> None:
    assert host.run("command -v s5cmd").stdout.strip() == tool(subject).path


def test_s5cmd_is_a_binary_and_not_its_python_wrapper(host: Host, subject: CheckedImage) -> None:
    # The wrapper forwards no signals: ended by one, it leaves the transfer running.
    file = host.file(tool(subject).path)
    assert host.run("head -c 4 %s", tool(subject).path).stdout_bytes == b"\x7fELF"
    assert not file.is_symlink
    assert file.mode == 0o755


def test_s5cmd_runs_and_says_the_version_that_is_stated(host: Host, subject: CheckedImage) -> None:
    done = host.run("s5cmd version")
    assert done.rc == 0
    assert done.stdout.strip().partition("-")[0] == f"v{tool(subject).version}"
