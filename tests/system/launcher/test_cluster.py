"""What a node's launcher does with its ranks and for the other nodes, case by case."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.causes import FAILURE_CHARS, GATE, HANG, PEER, PREFLIGHT, STOPPED, UNRESOLVED, USAGE
from launcher.ranks import rank_processes
from tests.support.launcher.cluster import Cluster, cluster

HELLO = """
import json, os, sys
names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK", "MASTER_ADDR")
print(json.dumps([[os.environ[n] for n in names], sys.argv[1:]]))
"""

#: Waits for SIGTERM, then "saves" and ends well, as a good training script does.
SAVES = """
import os, signal, sys, time
def save(number, frame):
    print("saved", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
print("up", flush=True)
while True: signal.pause()
"""

WAITS = """
import signal
print("up", flush=True)
while True: signal.pause()
"""

RANK_3_FAILS = """
import os, signal
if os.environ["RANK"] == "3":
    raise ValueError("bad batch")
while True: signal.pause()
"""

ODD = [
    *("", "two words", "$(id)", "a;b", "'", '"', "*", "--flag=x y"),
    *("ü€\U0001f600", "\\", "-", "\n"),
]


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Cluster]:
    with cluster(tmp_path, 1) as made:
        yield made


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Cluster]:
    with cluster(tmp_path, 2) as made:
        yield made


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Cluster]:
    with cluster(tmp_path, 3) as made:
        yield made


def alive(pid: int) -> bool:
    return pid in rank_processes.process_table()


def test_ranks_of_all_nodes_form_one_world_in_host_order(two: Cluster) -> None:
    two.script(HELLO)
    first, second = two.train("--nproc", "2")
    assert (first.end(), second.end()) == (0, 0)
    world = ["4", "2"]
    for launch, node in ((first, 0), (second, 1)):
        for local in (0, 1):
            rank = node * 2 + local
            expected = [str(rank), str(local), *world, str(node), "127.0.0.1"]
            quoted = "[[" + ", ".join(f'"{item}"' for item in expected) + "], []]"
            assert f"[r{rank}] {quoted}" in launch.lines


def test_arguments_reach_the_script_unchanged(two: Cluster) -> None:
    two.script("import sys\nfor word in sys.argv[1:]: print(ascii(word))")
    launches = two.train(args=ODD)
    for rank, launch in enumerate(launches):
        assert launch.end() == 0
        assert [x for x in launch.lines if x.startswith("[r")] == [
            f"[r{rank}] {word!a}" for word in ODD
        ]


def test_hyperparameters_become_arguments_and_sagemakers_own_do_not(two: Cluster) -> None:
    two.script("import sys\nprint(sys.argv[1:])")
    for node in two.nodes:
        node.hyperparameters(
            {"sagemaker_program": "train.py", "lr": 1e-4, "name": "a b", "launch_runner": "python"}
        )
    launches = [two.start(index, ["train"]) for index in range(2)]
    for launch in launches:
        assert launch.end() == 0
        launch.wait_for_line("['--lr', '0.0001', '--name', 'a b']")


def test_a_failing_rank_is_the_cause_on_every_node_and_ends_all_ranks(two: Cluster) -> None:
    two.script(RANK_3_FAILS)
    first, second = two.train("--nproc", "2")
    assert (first.end(), second.end()) == (PEER, 1)
    for node in two.nodes:
        head, *rest = node.failure.splitlines()
        assert head == "TrainingError: ValueError: bad batch on rank 3 [host 127.0.0.2]"
        assert 'raise ValueError("bad batch")' in "\n".join(rest)
        assert len(node.failure) <= FAILURE_CHARS + 1
    assert len(first.family()) == 1


def test_the_first_error_wins_over_the_echoes_of_other_ranks(two: Cluster) -> None:
    two.script(
        """
import os, socket
# Rank 2 fails; rank 0 then sees its connection close, as gloo would, and says so.
if os.environ["RANK"] == "0":
    server = socket.create_server(("127.0.0.1", int(os.environ["MASTER_PORT"])))
    peer, _ = server.accept()
    assert peer.recv(1) == b""
    raise RuntimeError("Connection closed by peer [127.0.0.2]:1")
if os.environ["RANK"] == "1":
    while True:
        try:
            socket.create_connection(("127.0.0.1", int(os.environ["MASTER_PORT"])))
        except ConnectionRefusedError:
            continue
        raise ValueError("bad batch")
"""
    )
    assert [launch.end() for launch in two.train()] == [PEER, 1]
    for node in two.nodes:
        assert node.failure.startswith("TrainingError: ValueError: bad batch on rank 1")


def test_the_exit_code_of_the_script_is_kept(two: Cluster) -> None:
    two.script("import os, sys, signal\nif os.environ['RANK'] == '0': sys.exit(42)\nsignal.pause()")
    assert [launch.end() for launch in two.train()] == [42, PEER]
    assert two.nodes[1].failure.startswith("TrainingError: exit code 42, no traceback on rank 0")


def test_a_killed_rank_is_named_with_its_signal(two: Cluster) -> None:
    two.script(
        "import os, signal\nif os.environ['RANK'] == '1': os.kill(os.getpid(), 9)\nsignal.pause()"
    )
    assert [launch.end() for launch in two.train()] == [PEER, 1]
    expected = "RankKilled: killed by SIGKILL on rank 1 [host 127.0.0.2]"
    assert [node.failure.strip() for node in two.nodes] == [expected, expected]


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_lost_node_ends_the_others_and_is_named(three: Cluster, lost: int) -> None:
    three.script(WAITS)
    launches = three.train()
    for launch in launches:
        launch.wait_for_line("] up")
    launches[lost].power_off()
    for index, launch in enumerate(launches):
        if index != lost:
            assert launch.end() == PEER
            assert three.nodes[index].failure.startswith("NodeLost")
            assert f"[host {three.nodes[lost].host}]" in three.nodes[index].failure


def test_nodes_with_different_arguments_start_nothing(three: Cluster) -> None:
    three.script("raise SystemExit(1)")
    argv = ["sagemaker", "--runner", "python", "--", "train.py"]
    launches = [three.start(n, [*argv, "3" if n == 2 else "1"]) for n in range(3)]
    assert {launch.end() for launch in launches} <= {GATE, PEER}
    assert not any(launch.events("ranks") for launch in launches)
    for node in three.nodes:
        assert node.failure.startswith("NodesDiffer: the nodes differ in arguments")
        assert "['train.py', '1']" in node.failure
        assert "127.0.0.3 has ['train.py', '3']" in node.failure


def test_a_node_that_never_comes_is_named(two: Cluster) -> None:
    two.script(WAITS)
    argv = ["sagemaker", "--runner", "python", "--dns-wait", "1", "--", "train.py"]
    first = two.start(0, argv)
    assert first.end() == PEER
    assert two.nodes[0].failure.strip() == (
        "GateTimeout: 127.0.0.2 did not come to 'start' [host 127.0.0.2]"
    )


def test_a_gate_that_is_not_there_is_named(two: Cluster) -> None:
    two.script(WAITS)
    argv = ["sagemaker", "--runner", "python", "--dns-wait", "1", "--", "train.py"]
    assert two.start(1, argv).end() == GATE
    assert two.nodes[1].failure.startswith("GateError: no gate at 127.0.0.1:")


def test_a_node_0_whose_name_does_not_resolve_is_named(one: Cluster) -> None:
    one.script(WAITS)
    hosts = "no-such-host.invalid,127.0.0.1"
    argv = ["local", "--hosts", hosts, "--node-rank", "1", "--dns-wait", "1", "--runner", "python"]
    launch = one.start(0, [*argv, "--", "ml/code/train.py"])
    assert launch.end() == UNRESOLVED
    assert launch.events("failed")[0]["cause"].startswith(
        "GateError: no address for no-such-host.invalid"
    )


def test_a_late_node_is_waited_for(two: Cluster) -> None:
    two.script(HELLO)
    argv = ["sagemaker", "--runner", "python", "--", "train.py"]
    second = two.start(1, argv)
    second.wait_for_event("waiting")
    first = two.start(0, argv)
    assert (first.end(), second.end()) == (0, 0)


def test_another_jobs_launcher_is_turned_away(two: Cluster) -> None:
    two.script(WAITS)
    argv = ["sagemaker", "--runner", "python", "--", "train.py"]
    first = two.start(0, argv)
    assert two.start(1, argv, TRAINING_JOB_NAME="other").end() != 0
    assert "is not this job's gate" in two.nodes[1].failure
    assert not any("job-" in line for line in two.running[1].lines if "127.0.0.1:" in line)
    second = two.start(1, argv)
    first.wait_for_line("] up")
    second.wait_for_line("] up")


def test_sigterm_on_one_node_lets_all_ranks_save_and_is_success_on_sagemaker(two: Cluster) -> None:
    two.script(SAVES)
    first, second = two.train("--nproc", "2")
    first.wait_for_line("] up", 2)
    second.wait_for_line("] up", 2)
    second.signal(signal.SIGTERM)
    assert (first.end(), second.end()) == (0, 0)
    for launch in (first, second):
        assert sum("] saved" in line for line in launch.lines) == 2
    assert [node.failure for node in two.nodes] == ["", ""]


def test_sigterm_reaches_the_program_below_a_shell_script(one: Cluster) -> None:
    one.script(SAVES)
    one.script("python3 train.py\necho script goes on\n", "run.sh")
    launch = one.start(0, ["sagemaker", "--", "run.sh"])
    launch.wait_for_line("] up")
    launch.signal(signal.SIGTERM)
    assert launch.end() == 0
    assert launch.lines.index("[r0] saved") < launch.lines.index("[r0] script goes on")


def test_a_script_that_ignores_the_art_of_stopping_is_told_so(two: Cluster) -> None:
    two.script(WAITS)
    launches = two.train()
    for launch in launches:
        launch.wait_for_line("] up")
    launches[0].signal(signal.SIGTERM)
    assert [launch.end() for launch in launches] == [STOPPED, STOPPED]
    assert "the script does not handle it" in two.nodes[1].failure


def test_ranks_that_outstay_their_grace_are_killed(two: Cluster) -> None:
    two.script(
        "import signal\nsignal.signal(15, lambda *a: print('no', flush=True))\n"
        "print('up', flush=True)\nwhile True: signal.pause()"
    )
    launches = two.train("--grace", "1")
    for launch in launches:
        launch.wait_for_line("] up")
    launches[0].signal(signal.SIGTERM)
    assert [launch.end() for launch in launches] == [STOPPED, STOPPED]
    assert "ranks were killed 1 s after SIGTERM" in two.nodes[0].failure
    assert any("] no" in line for line in launches[0].lines)


def test_sigterm_while_waiting_for_a_node_ends_the_wait(two: Cluster) -> None:
    two.script(WAITS)
    first = two.start(0, ["sagemaker", "--runner", "python", "--", "train.py"])
    first.wait_for_event("gate")
    first.signal(signal.SIGTERM)
    assert first.end() == STOPPED


def test_sigterm_before_ranks_start_ends_all_nodes_at_once(two: Cluster) -> None:
    two.script("raise SystemExit(1)")
    argv = ["sagemaker", "--runner", "python"]
    first = two.start(0, [*argv, "--", "train.py"])
    second = two.start(1, [*argv, "--pre-cmd", "echo began; sleep infinity", "--", "train.py"])
    second.wait_for_line("began")
    first.signal(signal.SIGTERM)
    assert (first.end(), second.end()) == (STOPPED, STOPPED)
    assert not first.events("ranks")
    assert not second.events("ranks")


def test_sigusr1_reaches_the_ranks_that_handle_it_and_spares_the_others(two: Cluster) -> None:
    two.script(
        """
import os, signal
if os.environ["RANK"] == "0":
    signal.signal(signal.SIGUSR1, lambda *a: print("noted", flush=True))
print("up", flush=True)
while True: signal.pause()
"""
    )
    first, second = two.train()
    for launch in (first, second):
        launch.wait_for_line("] up")
        launch.signal(signal.SIGUSR1)
    first.wait_for_line("] noted")
    second.wait_for_event("signal")
    first.signal(signal.SIGTERM)
    assert (first.end(), second.end()) == (STOPPED, STOPPED)
    assert not any("SIGUSR1" in node.failure for node in two.nodes)


def test_a_node_that_is_not_fit_is_named_on_all(two: Cluster) -> None:
    two.script("raise SystemExit(1)")
    argv = ["sagemaker", "--runner", "python"]
    first = two.start(0, [*argv, "--", "train.py"])
    second = two.start(1, [*argv, "--instance-type", "ml.g5.12xlarge", "--", "train.py"])
    assert (first.end(), second.end()) == (PEER, PREFLIGHT)
    for node in two.nodes:
        assert node.failure.startswith(
            "PreflightError: gpus: 0 GPUs, but ml.g5.12xlarge has 4; efa: 0 EFA devices"
        )


def test_a_hang_ends_the_job_with_the_stacks_of_its_ranks(two: Cluster) -> None:
    two.script("def stuck():\n    import time\n    time.sleep(36000)\nstuck()")
    launches = two.train("--hang-timeout", "3", "--wait-report", "2", "--on-hang", "stop")
    assert [launch.end() for launch in launches] == [HANG, HANG]
    failure = two.nodes[0].failure
    assert failure.startswith("Hang: ")
    assert "stuck" in failure


def test_an_error_at_exit_after_all_work_is_done_does_not_count(two: Cluster) -> None:
    two.script(
        """
import os, sys
open(f"{os.environ['LAUNCH_DONE_FILE']}.{os.environ['RANK']}", "w").close()
sys.exit(int(os.environ["RANK"]))
"""
    )
    launches = two.train("--done-file", "done")
    assert [launch.end() for launch in launches] == [0, 0]
    assert launches[1].events("warning")[0]["text"] == "ranks failed after their work was done"


def test_without_the_done_file_of_every_rank_an_error_counts(two: Cluster) -> None:
    two.script("import os, sys\nsys.exit(int(os.environ['RANK']))")
    assert [launch.end() for launch in two.train("--done-file", "done")] == [PEER, 1]


def test_nothing_that_a_rank_started_outlives_the_job(two: Cluster) -> None:
    two.script(
        """
import subprocess, sys
sleeper = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"],
                           start_new_session=True)
print("left", sleeper.pid, flush=True)
"""
    )
    launches = two.train()
    assert [launch.end() for launch in launches] == [0, 0]
    for launch in launches:
        left = [int(line.split()[-1]) for line in launch.lines if "] left" in line]
        assert len(left) == 1
        assert not alive(left[0])


def test_a_failure_file_of_the_script_is_kept(one: Cluster) -> None:
    one.script(
        """
import os
with open(os.path.join(os.environ["SM_OUTPUT_DIR"], "failure"), "w") as file:
    file.write("my own words")
raise SystemExit(3)
"""
    )
    assert [launch.end() for launch in one.train()] == [3]
    assert one.nodes[0].failure == "my own words"


def test_a_mistake_in_the_options_is_a_usage_error_in_the_failure_file(two: Cluster) -> None:
    two.script(HELLO)
    two.nodes[0].hyperparameters({"sagemaker_program": "train.py", "launch_graze": "5"})
    assert two.start(0, ["train"]).end() == USAGE
    assert two.nodes[0].failure.strip() == (
        "UsageError: unknown hyperparameter launch_graze; did you mean launch_grace?"
    )


def test_each_ranks_output_is_also_in_a_file_of_its_own(two: Cluster) -> None:
    two.script("import os\nprint('rank', os.environ['RANK'])")
    for launch in two.train("--nproc", "2"):
        assert launch.end() == 0
    logs = sorted(two.nodes[1].root.glob("logs/*/node1/rank*.log"))
    assert [(path.name, path.read_text()) for path in logs] == [
        ("rank2.log", "rank 2\n"),
        ("rank3.log", "rank 3\n"),
    ]


def test_nodes_outside_the_distribution_groups_train_alone(two: Cluster) -> None:
    two.script(HELLO)
    for node in two.nodes:
        config = node.ml / "input/config/resourceconfig.json"
        groups = [
            {"instance_group_name": "gpu", "instance_type": "x", "hosts": ["127.0.0.1"]},
            {"instance_group_name": "cpu", "instance_type": "y", "hosts": ["127.0.0.2"]},
        ]
        text = config.read_text()[:-1] + f', "instance_groups": {groups}}}'.replace("'", '"')
        config.write_text(text)
        node.hyperparameters({"sagemaker_distribution_instance_groups": ["gpu"]})
    first, second = two.train()
    assert (first.end(), second.end()) == (0, 0)
    assert '[r0] [["0", "0", "1", "1", "0", "127.0.0.1"], []]' in "\n".join(second.lines)


def test_a_killed_init_takes_the_job_down_with_a_save(two: Cluster) -> None:
    two.script(SAVES)
    first, second = two.train()
    first.wait_for_line("] up")
    second.wait_for_line("] up")
    os.kill(second.process.pid, signal.SIGKILL)
    assert first.end() == 0
    assert "[r0] saved" in first.lines
    second.wait_for_line("[r1] saved")
