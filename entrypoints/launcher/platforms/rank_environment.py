"""The environment of the ranks: what is set, kept or removed, and why. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

#: Left behind by an enclosing launcher or Slurm's enroot hook (NVIDIA/enroot,
#: conf/hooks/extra/50-slurm-pytorch.sh); torchrun would take them for its own.
STALE = (
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE",
    "NODE_RANK", "ROLE_RANK", "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
    "TORCHELASTIC_RUN_ID", "TORCHELASTIC_ERROR_FILE", "TORCHELASTIC_USE_AGENT_STORE",
)  # fmt: skip


@dataclass(frozen=True)
class EnvironmentChange:
    """One variable: `value` None means removed; `kept` means the user's own value stands."""

    name: str
    value: str | None
    why: str
    kept: bool = False


def unless_set(env: Mapping[str, str], name: str, value: str, why: str) -> EnvironmentChange:
    """Set a variable, unless the user has: then show that his value stands."""
    if name in env:
        return EnvironmentChange(
            name, env[name], f"already set; the launcher would use {value}", kept=True
        )
    return EnvironmentChange(name, value, why)


def stale_variables(env: Mapping[str, str]) -> list[EnvironmentChange]:
    """Rank variables that are not ours."""
    why = "left from outside; the launcher's runners set it for each rank"
    return [EnvironmentChange(name, None, why) for name in STALE if name in env]


def network_changes(
    env: Mapping[str, str], interface: str, *, on_slurm: bool
) -> list[EnvironmentChange]:
    """Which network interface gloo and NCCL use for their TCP connections."""
    if interface:
        why = "network_interface_name in resourceconfig.json"
        return [
            unless_set(env, "NCCL_SOCKET_IFNAME", interface, why),
            # Without it gloo takes the address that the host name resolves to, or loopback.
            unless_set(env, "GLOO_SOCKET_IFNAME", interface, why),
        ]
    if on_slurm:
        why = "bridges and loopback do not reach other nodes"
        return [unless_set(env, "NCCL_SOCKET_IFNAME", "^lo,docker,veth", why)]
    return []


def route_changes(env: Mapping[str, str], interface: str) -> list[EnvironmentChange]:
    """The interface by which the nodes have met, for gloo and NCCL; the user's own values stand.

    It wins over what a platform's file or a host's name says: by this one they do reach each other.
    """
    why = "the interface by which this node and node 0 have met"
    names = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME") if interface else ()
    return [EnvironmentChange(name, interface, why) for name in names if name not in env]


def slurm_changes(env: Mapping[str, str]) -> list[EnvironmentChange]:
    """What would make a library take each rank for a Slurm task of its own."""
    why = "Lightning and NeMo would expect one Slurm task per rank (HyperPod recipes unset it, too)"
    return [
        EnvironmentChange(name, None, why)
        for name in ("SLURM_NTASKS", "SLURM_NPROCS")
        if name in env
    ]


def apply_changes(env: Mapping[str, str], changes: Iterable[EnvironmentChange]) -> dict[str, str]:
    """The environment after the changes."""
    result = dict(env)
    for change in changes:
        if change.value is None:
            result.pop(change.name, None)
        else:
            result[change.name] = change.value
    return result
