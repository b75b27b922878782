"""What stands after -- and how it reaches the script, whatever it is."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.causes import LaunchUsageError
from launcher.options import unknown_variables
from launcher.platforms import local_topology
from launcher.ranks import (
    RankProgram,
    ScriptCommand,
    build_rank_commands,
    layout_ranks,
    read_script_command,
)

#: The runners' own options, as their parsers have them (torch 2.13: torch/distributed/run.py;
#: DeepSpeed 0.19: deepspeed/launcher/runner.py and launch.py). name: whether it takes a value.
TORCHRUN = {
    "nnodes": 1, "nproc-per-node": 1, "nproc_per_node": 1, "rdzv-backend": 1, "rdzv_backend": 1,
    "rdzv-endpoint": 1, "rdzv_endpoint": 1, "rdzv-id": 1, "rdzv_id": 1, "rdzv-conf": 1,
    "rdzv_conf": 1, "standalone": 0, "max-restarts": 1, "max_restarts": 1, "monitor-interval": 1,
    "monitor_interval": 1, "start-method": 1, "start_method": 1, "role": 1, "module": 0,
    "no-python": 0, "no_python": 0, "run-path": 0, "run_path": 0, "log-dir": 1, "log_dir": 1,
    "redirects": 1, "tee": 1, "local-ranks-filter": 1, "local_ranks_filter": 1, "node-rank": 1,
    "node_rank": 1, "master-addr": 1, "master_addr": 1, "master-port": 1, "master_port": 1,
    "local-addr": 1, "local_addr": 1, "logs-specs": 1, "logs_specs": 1, "numa-binding": 1,
    "signals-to-handle": 1, "virtual-local-rank": 0, "event-log-handler": 1,
    "shutdown-timeout": 1,
}  # fmt: skip
DEEPSPEED = {
    "hostfile": 1, "include": 1, "exclude": 1, "num_nodes": 1, "min_elastic_nodes": 1,
    "max_elastic_nodes": 1, "num_gpus": 1, "num_accelerators": 1, "master_port": 1,
    "master_addr": 1, "node_rank": 1, "launcher": 1, "launcher_args": 1, "module": 0,
    "no_python": 0, "no_local_rank": 0, "no_ssh_check": 0, "force_multi": 0, "save_pid": 0,
    "enable_each_rank_log": 1, "autotuning": 1, "elastic_training": 0, "bind_cores_to_rank": 0,
    "bind_core_list": 1, "ssh_port": 1, "no_ssh": 0, "venv_script": 1,
}  # fmt: skip
DEEPSPEED_LAUNCH = {
    "node_rank": 1, "master_addr": 1, "master_port": 1, "world_info": 1, "module": 0,
    "no_python": 0, "enable_elastic_training": 0, "min_elastic_nodes": 1, "max_elastic_nodes": 1,
    "no_local_rank": 0, "save_pid": 1, "enable_each_rank_log": 1, "bind_cores_to_rank": 0,
    "bind_core_list": 1,
}  # fmt: skip

#: A runner's parser: options of a table, the script, and REMAINDER. Reads argument lists as JSON.
PARSE = """
import argparse, json, sys
def parser(table):
    made = argparse.ArgumentParser(add_help=False)
    for name, value in table.items():
        flags = ["--" + name] + (["-m"] if name == "module" else [])
        kind = {} if value else {"action": "store_true"}
        made.add_argument(*flags, dest=name.replace("-", "_"), **kind)
    made.add_argument("script", type=str)
    made.add_argument("args", nargs=argparse.REMAINDER)
    return made
tables, lists = json.load(sys.stdin)
out = []
for words in lists:
    for table in tables:
        read = parser(table).parse_args(words)
        words = (["--module"] if read.module else []) + [read.script] + read.args
    out.append(words)
print(json.dumps(out))
"""

TABLES = {"torchrun": [TORCHRUN], "deepspeed": [DEEPSPEED, DEEPSPEED_LAUNCH]}
NAMES = sorted({*TORCHRUN, *DEEPSPEED, *DEEPSPEED_LAUNCH})


def interpreters() -> list[str]:
    """The Pythons of this machine, this one at least."""
    pyenv = Path.home() / ".pyenv" / "versions"
    named = [shutil.which(f"python3.{minor}") for minor in range(9, 15)]
    found = [*named, *(str(path) for path in pyenv.glob("3.*/bin/python3"))]
    runs: dict[str, str] = {}
    for path in [sys.executable, *filter(None, found)]:
        done = subprocess.run(
            [path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True,
            text=True,
        )
        version = done.stdout.strip()
        if done.returncode == 0 and tuple(map(int, version.split("."))) >= (3, 9):
            runs.setdefault(version, path)
    return list(runs.values())


def abbreviations() -> st.SearchStrategy[str]:
    """An option of a runner, or any beginning of it, with or without a value."""
    begun = st.sampled_from(NAMES).flatmap(
        lambda name: st.integers(1, len(name)).map(lambda size: f"--{name[:size]}")
    )
    return begun | st.tuples(begun, st.text(max_size=3)).map("=".join)


WORDS = st.lists(
    abbreviations() | st.text(max_size=4) | st.sampled_from(["--", "-", "-m", "-h", "--help", ""]),
    max_size=6,
)


@pytest.mark.parametrize("python", interpreters())
@pytest.mark.parametrize("runner", TABLES)
@settings(max_examples=4)
@given(lists=st.lists(WORDS, min_size=60, max_size=120), module=st.booleans())
def test_everything_after_the_script_reaches_it_through_the_runners_parsers(
    runner: str, python: str, lists: list[list[str]], module: bool
) -> None:
    topology = local_topology(hosts=["a", "b"], node_rank=1, job="j")
    ranks = layout_ranks(topology, (2, 2), port=1, attempt=0)
    lines = []
    for words in lists:
        (command,) = build_rank_commands(
            runner,
            ranks,
            RankProgram("t.py", words, module),
            python="/py",
            log_dir=Path("/logs"),
        )
        at = 2 if runner == "torchrun" else 3  # after the runner's own program
        lines.append(list(command.argv[at:]))
    done = subprocess.run(
        [python, "-c", PARSE],
        input=json.dumps([TABLES[runner], lines]),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    head = ["--module", "t.py"] if module else ["t.py"]
    assert json.loads(done.stdout) == [[*head, *words] for words in lists]


FILES = {"train.py", "torchrun", "python"}


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["train.py", "--log", "x"], ScriptCommand("train.py", ("--log", "x"))),
        (["-m", "pkg.mod", "-m"], ScriptCommand("pkg.mod", ("-m",), module=True)),
        (["python", "-u", "x.py", "--", "a"], ScriptCommand("x.py", ("--", "a"))),
        (["python3.11", "x.py", "-u"], ScriptCommand("x.py", ("-u",))),
        (["/opt/venv/bin/python", "x.py"], ScriptCommand("x.py", python="/opt/venv/bin/python")),
        (["python3", "-m", "pkg", "b"], ScriptCommand("pkg", ("b",), module=True)),
        (["python3", "-u", "-m", "pkg"], ScriptCommand("pkg", module=True)),
        (["bash", "x.sh", "-c"], ScriptCommand("x.sh", ("-c",))),
        (["/bin/sh", "x.sh"], ScriptCommand("x.sh")),
        (["torchrun", "a"], ScriptCommand("torchrun", ("a",))),  # a file of that name
        (["./pythonic.py"], ScriptCommand("./pythonic.py")),
        ([], ScriptCommand("")),
    ],
)
def test_a_command_is_taken_for_what_it_means(words: list[str], command: ScriptCommand) -> None:
    exists = FILES.__contains__ if words[:1] != ["python"] else (lambda _: False)
    assert read_script_command(words, exists) == command


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (
            ["torchrun", "--nproc_per_node=8", "train.py", "--lr", "1 2"],
            "--nproc 8 -- train.py --lr '1 2'`",
        ),
        (["torchrun", "--nproc-per-node", "4", "-m", "pkg"], "--nproc 4 -- -m pkg`"),
        (["accelerate", "launch", "--num_processes", "2", "t.py"], "--nproc 2 -- t.py`"),
        (["deepspeed", "--num_gpus=2", "t.py", "--deepspeed"], "--runner deepspeed --nproc 2 -- t"),
        (["python", "-m", "torch.distributed.run", "t.py"], "-- t.py`"),
        (["/usr/bin/mpirun", "-np", "2", "python", "t.py"], "-- t.py`"),
        (["accelerate"], "-- train.py ...`"),
        (["python", "-O", "t.py"], "PYTHONOPTIMIZE"),
        (["python"], "python needs a script"),
        (["-m"], "-m needs a module"),
        (["--nproc", "2", "t.py"], "options go before the --"),
        (["bash", "-c", "echo"], "alone after --"),
    ],
)
def test_what_cannot_be_run_is_answered_with_what_to_write(words: list[str], advice: str) -> None:
    with pytest.raises(LaunchUsageError) as caught:
        read_script_command(words, lambda _: False)
    text = str(caught.value)
    assert advice in text
    assert "\n" not in text


def test_a_variable_that_is_not_ours_is_a_warning_that_names_the_nearest() -> None:
    env = {"LAUNCH_EDITOR": "vi", "LAUNCH_GRACEE": "1", "LAUNCH_GRACE": "2", "LAUNCH_SECRET": "x"}
    editor, grace = unknown_variables(env)
    assert editor.startswith("LAUNCH_EDITOR in the environment is no option of the launcher")
    assert grace.endswith("did you mean LAUNCH_GRACE?")
