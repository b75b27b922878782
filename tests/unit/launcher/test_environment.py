"""What the ranks' environment gets, per instance type and EFA stack, and what stays the user's."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from launcher.instances import INSTANCES, find_instance
from launcher.platforms import (
    EnvironmentChange,
    LocalDisk,
    apply_changes,
    network_changes,
    network_env,
    slurm_changes,
    stale_variables,
)
from launcher.platforms.network_env import NetworkStack
from launcher.ranks import ExtensionsCache, cache_variables

NEW = NetworkStack(installer=(1, 43, 2), plugin=(1, 16, 2), nccl=(2, 27, 7))
OLD = NetworkStack(installer=(1, 20, 0), plugin=(1, 5, 0), nccl=(2, 18, 5))
RDMA = {"FI_EFA_USE_DEVICE_RDMA": "1"}
SHM = {"NCCL_SHM_USE_CUDA_MEMCPY": "1"}
NEURON = {"FI_PROVIDER": "efa", "FI_EFA_USE_DEVICE_RDMA": "1", "FI_EFA_FORK_SAFE": "1"}


def wanted(kind: str, stack: NetworkStack, nodes: int = 2) -> dict[str, str]:
    return {name: value for name, value, _ in network_env.wanted_network(kind, stack, nodes)}


@pytest.mark.parametrize(
    ("kind", "stack", "variables"),
    [
        # aws-ofi-nccl:doc/efa-env-var.md: nothing from libfabric 1.18 and plugin 1.7 on.
        ("ml.p4d.24xlarge", NEW, {}),
        ("ml.p4de.24xlarge", NEW, {}),
        ("ml.p5.48xlarge", NEW, {}),
        ("ml.p5e.48xlarge", NEW, {}),
        ("ml.p5en.48xlarge", NEW, {}),
        ("ml.p6-b200.48xlarge", NEW, {}),
        ("ml.p5.48xlarge", NetworkStack(), {}),
        # awsome-distributed-training:1.architectures/efa-cheatsheet.md
        ("ml.p4d.24xlarge", NetworkStack(plugin=(1, 6, 0)), RDMA),
        ("ml.p4d.24xlarge", OLD, {**RDMA, "FI_PROVIDER": "efa", "NCCL_PROTO": "simple"}),
        ("ml.p4de.24xlarge", OLD, {**RDMA, "FI_PROVIDER": "efa", "NCCL_PROTO": "simple"}),
        ("ml.p5.48xlarge", NetworkStack((1, 29, 0), (1, 7, 3), (2, 19, 3)),
         {"FI_EFA_SET_CUDA_SYNC_MEMOPS": "0"}),
        ("ml.p5.48xlarge", NetworkStack((1, 29, 1), (1, 7, 3), (2, 19, 3)), {}),
        ("ml.p5.48xlarge", NetworkStack((1, 29, 0), (1, 7, 3), (2, 18, 5)), {}),
        ("ml.g5.48xlarge", NEW, SHM),
        ("ml.g6.12xlarge", NEW, SHM),
        ("ml.g6e.48xlarge", NEW, {}),
        ("ml.g5.2xlarge", NEW, {}),
        ("ml.trn1.32xlarge", NEW, NEURON),
        ("ml.trn2.48xlarge", NEW, NEURON),
        ("ml.made-up.9xlarge", OLD, {}),
    ],
)  # fmt: skip
def test_an_instance_type_gets_only_what_its_stack_needs(
    kind: str, stack: NetworkStack, variables: dict[str, str]
) -> None:
    assert wanted(kind, stack) == variables


@pytest.mark.parametrize("kind", sorted(INSTANCES))
def test_on_one_node_no_type_gets_efa_variables(kind: str) -> None:
    assert not [name for name in wanted(kind, OLD, nodes=1) if name.startswith("FI_")]


@pytest.mark.parametrize("kind", sorted(INSTANCES))
@pytest.mark.parametrize("stack", [NEW, OLD, NetworkStack()])
def test_no_type_ever_gets_what_aws_advises_against(kind: str, stack: NetworkStack) -> None:
    assert not set(wanted(kind, stack)) & set(network_env.HARMFUL)


def test_the_users_value_stands_and_is_shown_as_kept() -> None:
    (change,) = network_env.network_variables(
        {"NCCL_SHM_USE_CUDA_MEMCPY": "0"}, "ml.g5.48xlarge", NEW, 2
    )
    assert (change.value, change.kept) == ("0", True)
    assert apply_changes({"NCCL_SHM_USE_CUDA_MEMCPY": "0"}, [change]) == {
        "NCCL_SHM_USE_CUDA_MEMCPY": "0"
    }


def test_every_change_names_the_type_that_it_is_for() -> None:
    for change in network_env.network_variables({}, "ml.p4d.24xlarge", OLD, 2):
        assert change.why.startswith("ml.p4d.24xlarge: ")


@pytest.mark.parametrize(
    ("env", "kind", "stack", "said"),
    [
        ({"RDMAV_FORK_SAFE": "1"}, "", NEW, "RDMAV_FORK_SAFE=1 slows"),
        ({"CUDA_LAUNCH_BLOCKING": "1"}, "", NEW, "debugging only"),
        ({"NCCL_PROTO": "Simple"}, "ml.p5.48xlarge", NEW, "NCCL_PROTO=simple overrides"),
        ({"FI_PROVIDER": "tcp"}, "ml.p5.48xlarge", NEW, "FI_PROVIDER=tcp turns EFA off"),
        ({}, "ml.p5.48xlarge", OLD, "aws-ofi-nccl 1.5.0 is older than 1.7.3"),
        ({}, "ml.p5.48xlarge", NetworkStack(nccl=(2, 18, 1)), "NCCL 2.18.1 is older than 2.18.5"),
    ],
)
def test_what_does_harm_is_warned_about(
    env: dict[str, str], kind: str, stack: NetworkStack, said: str
) -> None:
    assert any(said in text for text in network_env.network_warnings(env, kind, stack, 2))


def test_a_healthy_environment_gives_no_warning() -> None:
    env = {"NCCL_DEBUG": "INFO", "NCCL_PROTO": "LL128", "FI_PROVIDER": "efa"}
    assert network_env.network_warnings(env, "ml.p5.48xlarge", NEW, 2) == []


def test_the_stack_is_read_from_what_the_efa_installer_wrote(tmp_path: Path) -> None:
    installed = tmp_path / "efa_installed_packages"
    installed.write_text(
        "# EFA installer version: 1.43.2\n# Debug packages installed: no\n"
        "efa-config_1.18_all efa-profile_1.7_all libfabric1-aws_2.1.0amzn5.0_amd64\n"
        "libnccl-ofi_1.16.2-1_amd64\n"
    )
    assert network_env.read_network_stack(installed, "2.27.7") == NetworkStack(
        (1, 43, 2), (1, 16, 2), (2, 27, 7)
    )
    assert network_env.read_network_stack(tmp_path / "none") == NetworkStack()


def test_a_sagemaker_type_is_its_ec2_type() -> None:
    assert find_instance("ml.p5.48xlarge") is find_instance("p5.48xlarge")
    assert find_instance("ml.nothing") is None


def test_stale_rank_variables_are_removed_and_nothing_else() -> None:
    env = {"RANK": "3", "WORLD_SIZE": "8", "MASTER_ADDR": "x", "RANKED": "y", "PATH": "/bin"}
    assert apply_changes(env, stale_variables(env)) == {
        "RANKED": "y",
        "PATH": "/bin",
    }


def test_sagemakers_interface_is_used_by_nccl_and_gloo() -> None:
    changes = network_changes({"NCCL_SOCKET_IFNAME": "eth9"}, "eth1", on_slurm=False)
    assert apply_changes({}, changes) == {
        "NCCL_SOCKET_IFNAME": "eth9",
        "GLOO_SOCKET_IFNAME": "eth1",
    }


def test_on_slurm_bridges_are_excluded_but_no_ethernet_interface_is() -> None:
    (change,) = network_changes({}, "", on_slurm=True)
    assert change == EnvironmentChange("NCCL_SOCKET_IFNAME", "^lo,docker,veth", change.why)


def test_lightning_is_not_led_to_take_ranks_for_slurm_tasks() -> None:
    env = {"SLURM_NTASKS": "2", "SLURM_JOB_ID": "1"}
    assert apply_changes(env, slurm_changes(env)) == {"SLURM_JOB_ID": "1"}


def test_caches_go_to_the_local_disk_unless_the_home_has_one(tmp_path: Path) -> None:
    env = {"TRITON_CACHE_DIR": "/mine"}
    disk = LocalDisk(tmp_path / "disk", "")
    found = apply_changes(env, cache_variables(env, disk, "/no/bin/python"))
    cache = f"{disk.path}/launch-{os.geteuid()}/cache/"
    assert found.pop("TORCH_EXTENSIONS_DIR").startswith(f"{cache}torch_extensions-")
    assert found == {
        "HF_HOME": f"{cache}huggingface",
        "TORCHINDUCTOR_CACHE_DIR": f"{cache}torchinductor",
        "TRITON_CACHE_DIR": "/mine",
    }
    (tmp_path / ".cache" / "huggingface").mkdir(parents=True)
    at_home = {"HOME": str(tmp_path)}
    assert "HF_HOME" not in apply_changes({}, cache_variables(at_home, disk, "/no/bin/python"))


def test_each_torch_compiles_its_extensions_into_a_folder_of_its_own(tmp_path: Path) -> None:
    """A disk outlives a container, and torch looks at sources and flags only."""
    disk, seen = LocalDisk(tmp_path, ""), set()
    for image, version in (("a", "2.13.0"), ("b", "2.14.0"), ("a", "2.15.0")):
        python = tmp_path / image / "bin" / "python"
        torch = tmp_path / image / "lib" / "python3.12" / "site-packages" / "torch"
        torch.mkdir(parents=True, exist_ok=True)
        (torch / "version.py").write_text(f"__version__ = '{version}'")
        env = apply_changes({}, cache_variables({}, disk, str(python)))
        again = apply_changes({}, cache_variables({}, disk, str(python)))
        assert env == again
        seen.add(env["TORCH_EXTENSIONS_DIR"])
    assert len(seen) == 3


def test_locks_of_builds_stay_where_nothing_tells_who_else_uses_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(_file: object, _how: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    (tmp_path / "fused_adam").mkdir()
    (tmp_path / "fused_adam" / "lock").touch()
    monkeypatch.setattr(fcntl, "flock", flock)
    cache = ExtensionsCache(tmp_path)
    assert cache.clean() == []
    assert (tmp_path / "fused_adam" / "lock").exists()
    cache.close()


def test_locks_of_killed_builds_are_removed_but_not_under_a_running_launch(tmp_path: Path) -> None:
    lock = tmp_path / "py311_cu130" / "fused_adam" / "lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    first = ExtensionsCache(tmp_path)
    assert first.clean() == [lock]
    lock.touch()
    second = ExtensionsCache(tmp_path)
    assert second.clean() == []
    assert lock.exists()
    first.close()
    second.close()
    third = ExtensionsCache(tmp_path)
    assert third.clean() == [lock]
    third.close()
