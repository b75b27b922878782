"""NCCL and EFA variables for an instance type and an EFA stack: only what is needed. Pure.

With libfabric >= 1.18 and aws-ofi-nccl >= 1.7 nothing is needed: the plugin sets buffer sizes,
protocol and tuner itself (aws/aws-ofi-nccl:doc/efa-env-var.md and src/platform-aws.cpp). The rest
is from awslabs/awsome-distributed-training:1.architectures/efa-cheatsheet.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from launcher.instances import find_instance, instance_family
from launcher.platforms.rank_environment import EnvironmentChange, unless_set

#: Written by the EFA installer: its own version, then one line per package.
INSTALLED = Path("/opt/amazon/efa_installed_packages")


@dataclass(frozen=True)
class NetworkStack:
    """Versions found in the image; () where one was not found."""

    installer: tuple[int, ...] = ()
    plugin: tuple[int, ...] = ()
    nccl: tuple[int, ...] = ()


def parse_version(text: str) -> tuple[int, ...]:
    """The numbers of ``1.16.2-1`` as (1, 16, 2)."""
    match = re.search(r"\d+(?:\.\d+)+", text)
    return tuple(int(n) for n in match.group(0).split(".")) if match else ()


def read_network_stack(installed: Path = INSTALLED, nccl: str = "") -> NetworkStack:
    """The EFA stack of this image, from what its installer wrote down."""
    try:
        text = installed.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return NetworkStack(nccl=parse_version(nccl))
    installer = re.search(r"EFA installer version:\s*(\S+)", text)
    # libnccl-ofi since installer 1.34 (before: a plugin of the image's own, aws-ofi-nccl).
    plugin = re.search(r"(?:libnccl-ofi|aws-ofi-nccl)\S*?[-_](\d[\d.]+)", text)
    return NetworkStack(
        installer=parse_version(installer.group(1)) if installer else (),
        plugin=parse_version(plugin.group(1)) if plugin else (),
        nccl=parse_version(nccl),
    )


def wanted_network(
    instance_type: str, stack: NetworkStack, nodes: int
) -> list[tuple[str, str, str]]:
    """(name, value, why) of what this type needs with this stack."""
    instance = find_instance(instance_type)
    if instance is None:
        return []
    rows = []
    kind = instance_family(instance_type)
    if kind in ("g5", "g6") and instance.gpus > 1:
        why = "GPUs without peer access copy through shared memory faster (EFA cheat sheet, g5/g6)"
        rows.append(("NCCL_SHM_USE_CUDA_MEMCPY", "1", why))
    if nodes > 1 and instance.efa:
        rows += _efa(kind, stack)
    return rows


def _efa(kind: str, stack: NetworkStack) -> list[tuple[str, str, str]]:
    if kind.startswith("trn"):
        why = "Neuron's runtime needs it (awsome-distributed-training, neuronx-distributed)"
        names = ("FI_EFA_USE_DEVICE_RDMA", "FI_EFA_FORK_SAFE")
        return [("FI_PROVIDER", "efa", why), *((name, "1", why) for name in names)]
    rows = []
    old = bool(stack.plugin) and stack.plugin < (1, 7)
    if old and kind in ("p4d", "p4de"):
        rows.append(("FI_EFA_USE_DEVICE_RDMA", "1", "aws-ofi-nccl before 1.7"))
    if old and stack.plugin < (1, 6) and kind in ("p4d", "p4de"):
        why = "aws-ofi-nccl up to 1.5"
        rows += [("FI_PROVIDER", "efa", why), ("NCCL_PROTO", "simple", why)]
    if kind in ("p5", "p5e") and () < stack.installer < (1, 29, 1) and stack.nccl >= (2, 19):
        why = "EFA installer before 1.29.1 with NCCL 2.19 or newer"
        rows.append(("FI_EFA_SET_CUDA_SYNC_MEMOPS", "0", why))
    return rows


#: Variables of the user that do harm, and why.
HARMFUL: dict[str, str] = {
    "RDMAV_FORK_SAFE": "slows registration down and is not needed; AWS says not to use it",
    "CUDA_LAUNCH_BLOCKING": "makes every kernel synchronous: for debugging only",
    "NCCL_P2P_DISABLE": "turns NVLink off",
    "NCCL_IB_DISABLE": "has no effect with EFA; meant for InfiniBand",
    "NCCL_ASYNC_ERROR_HANDLING": "is called TORCH_NCCL_ASYNC_ERROR_HANDLING since torch 2.2",
    "HCCL_OVER_OFI": "is for Gaudi accelerators",
}


def network_variables(
    env: Mapping[str, str], instance_type: str, stack: NetworkStack, nodes: int
) -> list[EnvironmentChange]:
    """What the table sets; the user's values stand."""
    return [
        unless_set(env, name, value, f"{instance_type}: {why}")
        for name, value, why in wanted_network(instance_type, stack, nodes)
    ]


def network_warnings(
    env: Mapping[str, str], instance_type: str, stack: NetworkStack, nodes: int
) -> list[str]:
    """What in the environment, or in the stack, is known to hurt on this type."""
    said = [f"{name}={env[name]} {why}" for name, why in HARMFUL.items() if name in env]
    instance = find_instance(instance_type)
    modern = not stack.plugin or stack.plugin >= (1, 7)
    if (
        instance
        and instance.efa
        and modern
        and not instance_family(instance_type).startswith("trn")
    ):
        if env.get("NCCL_PROTO", "").lower() == "simple":
            said.append("NCCL_PROTO=simple overrides the plugin's own, better choice")
        if env.get("FI_PROVIDER") not in (None, "efa") and nodes > 1:
            said.append(f"FI_PROVIDER={env['FI_PROVIDER']} turns EFA off")
    if instance_family(instance_type) in ("p5", "p5e", "p5en"):
        if () < stack.nccl < (2, 18, 5):
            said.append(f"NCCL {_dots(stack.nccl)} is older than 2.18.5, which p5 needs")
        if () < stack.plugin < (1, 7, 3):
            said.append(f"aws-ofi-nccl {_dots(stack.plugin)} is older than 1.7.3, which p5 needs")
    return said


def _dots(version: tuple[int, ...]) -> str:
    return ".".join(str(n) for n in version)
