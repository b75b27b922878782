"""The host programs that Slipway drives, and installing those that are missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from slipway.core import Event, OnEvent, say
from slipway.engine import EngineError
from slipway.pipeline import host_tools

_TASK = "install host tools"
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
_POLICY = Path("/usr/sbin/policy-rc.d")


@dataclass(frozen=True)
class HostTool:
    """A program and where it comes from. `dnf` is None where Fedora's family has no package."""

    name: str
    package: str  # Debian's and Ubuntu's
    purpose: str
    dnf: str | None = None
    units: tuple[str, ...] = ()  # systemd services that the Debian package brings


TOOLS = (
    HostTool(
        "dockerd", "docker.io", "the embedded engine", "docker", ("docker.service", "docker.socket")
    ),
    HostTool(
        "containerd", "containerd", "the embedded engine", "containerd", ("containerd.service",)
    ),
    HostTool("runc", "runc", "the embedded engine", "runc"),
    HostTool("mmdebstrap", "mmdebstrap", "the root file system of the local base"),
    HostTool("unsquashfs", "squashfs-tools", "verifying .sqsh files", "squashfs-tools"),
    HostTool(
        "docker-registry",
        "docker-registry",
        "the registry on loopback",
        "docker-distribution",
        ("docker-registry.service",),
    ),
)
"""All of them, in the order in which doctor shows them. No docker or buildx binary is needed."""


def missing_tools(path: str | None = None, tools: Sequence[HostTool] = TOOLS) -> list[HostTool]:
    """Those of `tools` that are not on `path` (default: PATH and the sbin folders)."""
    where = f"{os.environ.get('PATH', os.defpath)}:{_SBIN}" if path is None else path
    return [tool for tool in tools if shutil.which(tool.name, path=where) is None]


def install_tools(wanted: Sequence[HostTool], on_event: OnEvent) -> None:
    """Install the tools with apt-get; needs root on Debian or Ubuntu.

    No service is started and none is enabled: Slipway starts its own. Raises EngineError with the
    commands to type where it cannot be done here, or with apt's own words where it fails.
    """
    if not wanted:
        return
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise manual_commands(wanted, apt=shutil.which("apt-get") is not None)
    with _no_services(_POLICY):
        for command in install_commands(wanted):
            _run(command, _environment(), on_event)
    if Path("/run/systemd/system").is_dir():
        units = [unit for tool in wanted for unit in tool.units]
        if units:
            # Debian enables what it installs; docker-registry would listen on all interfaces.
            _run(["systemctl", "disable", *units], _environment(), on_event)
    if still := missing_tools():
        names = ", ".join(tool.name for tool in still)
        raise EngineError(f"apt-get installed its packages, but {names} cannot be found")


def install_commands(wanted: Sequence[HostTool]) -> list[list[str]]:
    """The apt-get commands for these tools."""
    # Waiting: a fresh cloud machine runs unattended upgrades in its first minutes.
    apt = ["apt-get", "-o", "DPkg::Lock::Timeout=300", "-q", "-y"]
    packages = sorted({tool.package for tool in wanted})
    return [[*apt, "update"], [*apt, "install", "--no-install-recommends", *packages]]


def manual_commands(wanted: Sequence[HostTool], *, apt: bool) -> EngineError:
    """The error that names what is missing and the exact command for this kind of host."""
    names = ", ".join(tool.name for tool in wanted)
    if apt:
        packages = " ".join(sorted({tool.package for tool in wanted}))
        return EngineError(
            f"not installed: {names}, and installing needs root",
            cure="sudo apt-get update && "
            f"sudo apt-get install -y --no-install-recommends {packages}",
        )
    packages = " ".join(sorted({tool.dnf for tool in wanted if tool.dnf}))
    cures = [f"sudo dnf install -y {packages}"] if packages else []
    others = [tool for tool in wanted if tool.dnf is None]
    if others:
        listed = ", ".join(f"{tool.name} ({tool.purpose})" for tool in others)
        cures.append(f"No dnf package is known for {listed}: start Docker yourself for the engine")
    return EngineError(
        f"not installed: {names}, and this host has no apt-get", cure="\n  ".join(cures)
    )


@contextmanager
def _no_services(policy: Path) -> Iterator[None]:
    """While inside, package scripts start no service: policy-rc.d, Debian's own switch for it.

    A file of the host's stays as it is. Ours allows everything again as soon as this process is
    gone, so that one left behind by a kill -9 changes nothing.
    """
    if policy.exists():
        yield
        return
    policy.write_text(
        "#!/bin/sh\n# Written by slipway while it installs packages; safe to remove.\n"
        f"kill -0 {os.getpid()} 2>/dev/null && exit 101\nexit 0\n"
    )
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink(missing_ok=True)


def _environment() -> dict[str, str]:
    return {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}


def _run(command: Sequence[str], env: Mapping[str, str], on_event: OnEvent) -> None:
    shown = " ".join(command)
    on_event(Event("start", _TASK, shown))
    tail: deque[str] = deque(maxlen=10)
    with subprocess.Popen(
        list(command),
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            tail.append(line.rstrip())
            on_event(Event("log", _TASK, shown, line.rstrip()))
    if process.returncode != 0:
        on_event(Event("failed", _TASK, shown))
        raise EngineError(
            f"`{shown}` failed:\n" + "\n".join(f"  | {line}" for line in tail),
            cure="Correct what it names (network, package sources, a lock), then `./inv setup`.",
        )
    on_event(Event("done", _TASK, shown))


def print_event(event: Event) -> None:
    """Events as plain lines, for work without an engine."""
    if event.kind != "log":
        say(f"{event.task}: {event.step or event.text or event.kind}")


def set_up_host(also: Sequence[host_tools.HostTool] = ()) -> None:
    """Install the host tools that are missing, and those of `also`."""
    if missing := host_tools.missing_tools(tools=[*host_tools.TOOLS, *also]):
        say(f"installing {', '.join(tool.package for tool in missing)}")
        host_tools.install_tools(missing, print_event)
