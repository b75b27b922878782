"""From a layout of ranks to command lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.causes import LaunchUsageError
from launcher.platforms import Gpus, count_gpus, local_topology
from launcher.ranks import (
    RankLayout,
    RankProgram,
    build_rank_commands,
    choose_runner,
    default_nproc,
    hostfile_text,
    layout_ranks,
)

HOSTS = ["algo-1", "algo-2"]
ARGS = ("--x", "a b", "")


def two_nodes(node: int, *procs: int) -> RankLayout:
    nodes = local_topology(hosts=HOSTS, node_rank=node, job="job")
    return layout_ranks(nodes, procs or (8, 8), port=29500, attempt=3)


def build(
    runner: str, ranks: RankLayout, script: str = "t.py", restarts: int = 0
) -> list[list[str]]:
    made = build_rank_commands(
        runner,
        ranks,
        RankProgram(script, ARGS),
        python="/py",
        log_dir=Path("/logs"),
        max_restarts=restarts,
    )
    return [list(command.argv) for command in made]


def test_torchrun_meets_at_node_0_with_node_ranks_fixed_by_us() -> None:
    (argv,) = build("torchrun", two_nodes(1))
    assert argv[0] == "/py"
    assert {"--nnodes=2", "--nproc_per_node=8", "--node_rank=1"} <= set(argv)
    assert {"--master_addr=algo-1", "--master_port=29500", "--rdzv_id=job-3"} <= set(argv)
    assert argv[-4:] == ["t.py", *ARGS]


def test_torchruns_restarts_over_nodes_need_the_c10d_rendezvous_with_our_names() -> None:
    (argv,) = build("torchrun", two_nodes(1), restarts=2)
    assert {"--rdzv_backend=c10d", "--rdzv_endpoint=algo-1:29500", "--max_restarts=2"} <= set(argv)
    assert {"--rdzv_conf=is_host=0", "--local_addr=algo-2"} <= set(argv)


def test_one_node_meets_on_loopback_where_no_name_has_to_resolve() -> None:
    alone = local_topology(hosts=["strange-name"], node_rank=0, job="job")
    ranks = layout_ranks(alone, [2], port=1234, attempt=0)
    assert "--master_addr=127.0.0.1" in build("torchrun", ranks)[0]


def test_deepspeed_keeps_to_the_gpus_that_this_node_is_restricted_to() -> None:
    nodes = local_topology(hosts=HOSTS, node_rank=1, job="job")
    ranks = layout_ranks(nodes, (2, 2), port=1, attempt=0, visible=("5", "7"))
    assert "--include=algo-1:0,1@algo-2:5,7" in build("deepspeed", ranks)[0]
    assert hostfile_text(ranks) == "algo-1 slots=2\nalgo-2 slots=8\n"


def test_deepspeed_names_no_gpus_where_they_are_the_first_ones_or_none() -> None:
    nodes = local_topology(hosts=(), node_rank=0, job="job")
    for visible in ((), ("0", "1")):
        ranks = layout_ranks(nodes, (2,), port=1, attempt=0, visible=visible)
        assert not [word for word in build("deepspeed", ranks)[0] if "--include" in word]
        assert hostfile_text(ranks) == "localhost slots=2\n"


def test_gpus_that_deepspeed_cannot_name_are_refused() -> None:
    nodes = local_topology(hosts=(), node_rank=0, job="job")
    ranks = layout_ranks(nodes, (1,), port=1, attempt=0, visible=("GPU-8932f937",))
    with pytest.raises(LaunchUsageError, match="CUDA_VISIBLE_DEVICES is GPU-8932f937"):
        build("deepspeed", ranks)
    assert build("torchrun", ranks)


def test_deepspeed_starts_without_ssh_on_the_hosts_of_its_hostfile() -> None:
    (argv,) = build("deepspeed", two_nodes(1))
    assert argv[:4] == ["/py", "-m", "deepspeed.launcher.runner", "--no_ssh"]
    assert {"--hostfile=/logs/hostfile", "--node_rank=1", "--master_addr=algo-1"} <= set(argv)
    assert argv[-4:] == ["t.py", *ARGS]
    assert hostfile_text(two_nodes(0)) == "algo-1 slots=8\nalgo-2 slots=8\n"


def test_the_python_runner_numbers_ranks_over_unlike_nodes() -> None:
    made = build_rank_commands(
        "python", two_nodes(1, 2, 3), RankProgram("t.py", ARGS), python="/py", log_dir=Path("/l")
    )
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK")
    assert [[command.env[name] for name in names] for command in made] == [
        ["2", "0", "5", "3", "1"],
        ["3", "1", "5", "3", "1"],
        ["4", "2", "5", "3", "1"],
    ]
    assert made[0].argv == ("/py", "-u", "t.py", *ARGS)


def test_a_shell_script_is_run_once_per_node_by_bash() -> None:
    assert choose_runner("auto", "train.sh") == "python"
    assert default_nproc("python", gpus=8) == 1
    one = two_nodes(0, 1, 1)
    assert build("python", one, script="train.sh") == [["/bin/bash", "train.sh", *ARGS]]
    (command,) = build_rank_commands(
        "python", one, RankProgram("t.sh", ()), python="/py", log_dir=Path("/logs")
    )
    assert not {"RANK", "LOCAL_RANK", "WORLD_SIZE"} & set(command.env)
    assert (command.env["NODE_RANK"], command.env["NNODES"]) == ("0", "2")


def test_a_python_script_gets_torchrun_and_a_rank_for_each_gpu() -> None:
    assert choose_runner("auto", "train.py") == "torchrun"
    assert default_nproc("torchrun", gpus=8) == 8
    assert default_nproc("torchrun", gpus=0) == 1


@pytest.mark.parametrize(
    ("runner", "script", "restarts"),
    [("torchrun", "t.sh", 0), ("deepspeed", "t.sh", 0), ("python", "t.py", 1),
     ("deepspeed", "t.py", 1)],
)  # fmt: skip
def test_what_a_runner_can_not_do_is_a_usage_error(runner: str, script: str, restarts: int) -> None:
    with pytest.raises(LaunchUsageError):
        build(runner, two_nodes(0), script, restarts)


SMI = "GPU 0: NVIDIA H100 (UUID: GPU-1)\nGPU 1: NVIDIA H100 (UUID: GPU-2)\n"


@pytest.mark.parametrize(
    ("env", "smi", "gpus"),
    [
        ({}, SMI, Gpus(2, "nvidia-smi")),
        ({}, None, Gpus(0, "no NVIDIA driver")),
        ({"SM_NUM_GPUS": "8"}, SMI, Gpus(8, "SM_NUM_GPUS")),
        ({"SLURM_GPUS_ON_NODE": "4", "SM_NUM_GPUS": "8"}, SMI, Gpus(4, "SLURM_GPUS_ON_NODE")),
        ({"CUDA_VISIBLE_DEVICES": "1"}, SMI, Gpus(1, "CUDA_VISIBLE_DEVICES")),
        ({"CUDA_VISIBLE_DEVICES": "0,1,-1,2"}, SMI, Gpus(2, "CUDA_VISIBLE_DEVICES")),
        ({"CUDA_VISIBLE_DEVICES": ""}, SMI, Gpus(0, "CUDA_VISIBLE_DEVICES")),
        ({"SLURM_GPUS_ON_NODE": "gpu:4"}, SMI, Gpus(2, "nvidia-smi")),
    ],
)
def test_gpus_are_counted_from_the_source_that_knows_best(
    env: dict[str, str], smi: str | None, gpus: Gpus
) -> None:
    assert count_gpus(env, lambda: smi) == gpus
