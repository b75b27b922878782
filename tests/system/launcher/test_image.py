"""The launcher inside the image that a user gets: PID 1, torchrun, sagemaker-training."""

from __future__ import annotations

import pytest

from launcher.causes import NO_SPACE, PEER, STOPPED
from tests.support.launcher.bucket import Bucket
from tests.support.launcher.containers import Make

pytest_plugins = ["tests.support.launcher.fixtures", "tests.support.launcher.storage"]

SUM = """
import os, signal, sys, time
import torch, torch.distributed as dist
dist.init_process_group("gloo")
tensor = torch.ones(2)
dist.all_reduce(tensor)
print("sum", tensor.tolist(), sys.argv[1:], flush=True)
"""

#: Every script that ends by itself ends with this; see `test_an_abort_at_exit_is_explained`.
LEAVE = "\ndist.destroy_process_group()\n"

#: Saves on SIGTERM, for longer than a shell would wait.
SAVES = (
    SUM
    + """
def save(number, frame):
    dist.barrier()
    print("saved", flush=True)
    os._exit(0)
signal.signal(signal.SIGTERM, save)
print("now waiting", flush=True)
while True: time.sleep(0.05)
"""
)

STOCK = {"sagemaker_program": "train.py", "sagemaker_torch_distributed_enabled": True}


def test_a_stock_estimators_job_runs_under_sagemaker_training(fleet: Make) -> None:
    two = fleet(2)
    # To a file: the toolkit breaks a line that is printed into several.
    to_file = "print(tensor.tolist(), sys.argv[1:], file=open('/opt/ml/output/sum', 'w'))"
    two.script(SUM + to_file + LEAVE)
    two.hyperparameters({**STOCK, "text": "a b; echo $(id)"})
    for host, running in zip(two.hosts, two.start("train"), strict=True):
        assert running.end() == 0
        said = (host.ml / "output" / "sum").read_text()
        assert said == "[2.0, 2.0] ['--text', 'a b; echo $(id)']\n"
        running.wait_for_line("torchrun --nnodes 2 --nproc_per_node 1 --master_addr algo-1")


def test_sigterm_reaches_the_ranks_under_sagemaker_training(fleet: Make) -> None:
    two = fleet(2)
    two.script(SAVES)
    two.hyperparameters(STOCK)
    both = two.start("train")
    for running in both:
        running.wait_for_line("now waiting")
    for running in both:
        running.terminate()
    for host, running in zip(two.hosts, both, strict=True):
        assert running.end() == 0
        assert "saved" in running.lines
        assert (host.ml / "output" / "success").exists()


def test_sigterm_reaches_a_plain_script_below_a_shell(fleet: Make) -> None:
    one = fleet(1)
    one.script("#!/bin/bash\npython inner.py\n", "run.sh")
    one.script(
        "import signal, sys\n"
        "signal.signal(15, lambda *a: (print('saved', flush=True), sys.exit(0)))\n"
        "print('now waiting', flush=True)\nwhile True: signal.pause()",
        "inner.py",
    )
    one.hyperparameters({"sagemaker_program": "run.sh"})
    (running,) = one.start("train")
    running.wait_for_line("now waiting")
    running.terminate()
    assert running.end() == 0
    assert "saved" in running.lines


def test_a_failure_under_sagemaker_training_keeps_its_code_and_its_words(fleet: Make) -> None:
    one = fleet(1)
    one.script("raise SystemExit(42)")
    one.hyperparameters({"sagemaker_program": "train.py"})
    (running,) = one.start("train")
    assert running.end() != 0
    assert "ExecuteUserScriptError" in one.hosts[0].failure


def test_a_failure_that_sagemaker_training_calls_success_is_found_out(fleet: Make) -> None:
    """Its native launcher drops torchrun's exit code: run(wait, capture_error) is called on
    run(capture_error, wait)."""
    one = fleet(1)
    one.script("raise RuntimeError('lost in the toolkit')")
    one.hyperparameters({**STOCK, "sagemaker_toolkit_native_launcher_enabled": True})
    (running,) = one.start("train")
    assert running.end() == 1
    assert one.hosts[0].failure.startswith(
        "TrainingError: reported as a success, but torchrun failed: local rank 0 ended with 1"
    )
    assert not (one.hosts[0].ml / "output" / "success").exists()


@pytest.mark.parametrize("command", [["train"], ["launch", "sagemaker", "--", "run.sh"]])
def test_a_failure_that_a_script_loses_in_a_pipe_is_found_out(
    fleet: Make, command: list[str]
) -> None:
    one = fleet(1)
    one.script("raise SystemExit(7)")
    one.script("torchrun --standalone train.py | tee /tmp/log\n", "run.sh")
    one.hyperparameters({"sagemaker_program": "run.sh"})
    (running,) = one.start(*command)
    assert running.end() != 0
    assert "7" in one.hosts[0].failure.splitlines()[0]


def test_a_torchrun_that_a_script_repeats_with_success_is_a_success(fleet: Make) -> None:
    one = fleet(1)
    one.script("import pathlib\np = pathlib.Path('/tmp/tried')\nok = p.exists()\np.touch()\n"
               "raise SystemExit(not ok)")  # fmt: skip
    one.script("until torchrun --standalone train.py; do echo again; done\n", "run.sh")
    (running,) = one.start("launch", "sagemaker", "--", "run.sh")
    assert running.end() == 0
    assert "[r0] again" in running.lines


def test_programs_under_sagemaker_training_see_the_name_that_other_nodes_know(fleet: Make) -> None:
    one = fleet(1)
    one.script("import socket\nprint('name-' + socket.gethostname())")
    one.hyperparameters({"sagemaker_program": "train.py"})
    (running,) = one.start("train")
    assert running.end() == 0
    running.wait_for_line("name-algo-1")


def test_torchrun_of_our_own_forms_one_world_over_two_nodes(fleet: Make) -> None:
    two = fleet(2)
    two.script(SUM + LEAVE)
    two.hyperparameters({"sagemaker_program": "train.py", "launch_runner": "torchrun", "lr": "1 2"})
    for running in two.start("train"):
        assert running.end() == 0
        running.wait_for_line("] sum [2.0, 2.0] ['--lr', '1 2']")


#: Rank 3 takes half as long again for a step, until it is told to be quick.
UNEVEN = """
import os, time
import torch, torch.distributed as dist
dist.init_process_group("gloo")
rank, told = dist.get_rank(), "/opt/ml/output/"
over = torch.zeros(1)
while not over.item():
    slow = rank == 3 and not os.path.exists(told + "quick")
    time.sleep(0.45 if slow else 0.3)
    over.fill_(rank == 3 and os.path.exists(told + "over"))
    dist.all_reduce(over)
"""


def test_a_slower_rank_of_gloo_is_named_on_every_node_and_so_is_its_recovery(fleet: Make) -> None:
    two = fleet(2)
    two.script(UNEVEN + LEAVE)
    # Samples come oftener the sooner a wait is to be reported.
    words = ("--nproc", "2", "--wait-report", "2", "--", "train.py")
    both = two.start("launch", "sagemaker", *words)
    output = two.hosts[1].ml / "output"
    for running in both:
        running.wait_for_line("rank 3 [host algo-2] is slower than the others, which wait for it")
    (output / "quick").touch()
    for running in both:
        running.wait_for_line("rank 3 [host algo-2] is as fast as the others again")
    (output / "over").touch()
    assert [running.end() for running in both] == [0, 0]


def test_all_ranks_below_torchrun_save_on_sigterm(fleet: Make) -> None:
    two = fleet(2)
    two.script(SAVES)
    both = two.start("launch", "sagemaker", "--nproc", "2", "--", "train.py")
    for running in both:
        running.wait_for_line("] now waiting", 2)
    both[1].terminate()
    for running in both:
        assert running.end() == 0
        assert sum("] saved" in line for line in running.lines) == 2


@pytest.mark.parametrize(
    ("act", "code", "said"),
    [
        ("raise ValueError('bad batch')", 1, "TrainingError: ValueError: bad batch"),
        ("os._exit(42)", 42, "TrainingError: exit code 42: sum [2.0, 2.0] []"),
        ("os.kill(os.getpid(), 9)", 1, "RankKilled: killed by SIGKILL"),
    ],
)
def test_torchruns_failures_keep_code_and_cause_on_every_node(
    fleet: Make, act: str, code: int, said: str
) -> None:
    two = fleet(2)
    two.script(SUM + f"if os.environ['RANK'] == '1': {act}\ndist.all_reduce(tensor)")
    both = two.start("launch", "sagemaker", "--", "train.py")
    assert [running.end() for running in both] == [PEER, code]
    for host in two.hosts:
        assert host.failure.splitlines()[0] == f"{said} on rank 1 [host algo-2]"


def test_an_abort_at_exit_is_explained(fleet: Make) -> None:
    """Now and then a script that leaves its gloo group open ends by this std::terminate, from one
    of PyTorch's threads (https://github.com/pytorch/pytorch/issues/190489); here always."""
    one = fleet(1)
    one.script(SUM + "import ctypes\nctypes.CDLL('libstdc++.so.6')._ZSt9terminatev()")
    (running,) = one.start("launch", "sagemaker", "--", "train.py")
    assert running.end() == 1
    assert one.hosts[0].failure.startswith(
        "TrainingError: terminate called without an active exception "
        "(no torch.distributed.destroy_process_group() at the script's end?) on rank 0"
    )


def test_ranks_that_trap_sigterm_do_not_hold_up_the_end_after_a_crash(fleet: Make) -> None:
    """torchrun alone would wait for them for 30 s; here its grace is not what ends them."""
    one = fleet(1)
    one.script(
        SUM + "signal.signal(15, lambda *a: print('trapped', flush=True))\ndist.barrier()\n"
        "if os.environ['RANK'] == '1': time.sleep(3); raise ValueError('bad batch')\n"
        "while True: signal.pause()"
    )
    (running,) = one.start("launch", "sagemaker", "--nproc", "2", "--", "train.py")
    assert running.end() == 1
    assert one.hosts[0].failure.startswith("TrainingError: ValueError: bad batch on rank 1")
    assert "exitcode: -9" not in one.hosts[0].failure


def test_a_disk_that_is_too_small_for_a_prefetch_is_named_before_anything_is_copied(
    fleet: Make, bucket: Bucket
) -> None:
    one = fleet(1)
    one.script("raise SystemExit(1)")
    bucket.put({"m/weights": "x" * (1 << 20)})
    env = {name: value for name, value in bucket.env.items() if name != "PATH"}
    (running,) = one.start(
        *("launch", "sagemaker", "--prefetch", f"{bucket.uri}/m=/small/m", "--", "train.py"),
        env=env,
        tmpfs={"/small": "size=512k"},
    )
    assert running.end() == NO_SPACE
    assert one.hosts[0].failure.startswith(f"FetchError: {bucket.uri}/m needs 0.00 GB in /small/m")


def test_a_rank_killed_for_memory_is_named_as_that(fleet: Make) -> None:
    one = fleet(1)
    one.script("data = bytearray(1 << 30)")
    (running,) = one.start(
        *("launch", "sagemaker", "--runner", "python", "--", "train.py"), memory="200m"
    )
    assert running.end() == 1
    assert one.hosts[0].failure.startswith(
        "RankKilled: killed by SIGKILL, the kernel killed for memory (oom_kill +1) on rank 0"
    )


def test_torchruns_own_restarts_work_over_two_nodes(fleet: Make) -> None:
    two = fleet(2)
    two.script(
        SUM + "attempt = os.environ['TORCHELASTIC_RESTART_COUNT']\n"
        "if attempt == '0' and os.environ['RANK'] == '1': raise ValueError('once')\n"
        "dist.barrier()\nprint('attempt', attempt, 'rank', os.environ['RANK'], flush=True)" + LEAVE
    )
    both = two.start("launch", "sagemaker", "--max-restarts", "1", "--", "train.py")
    for rank, running in enumerate(both):
        assert running.end() == 0
        # The number is of a node's own restarts: torchrun does not count one for another's failure
        # where it has heard of that before its own rank failed, too.
        running.wait_for_line(" rank 0" if rank == 0 else "attempt 1 rank 1")


def test_a_slurm_steps_tasks_find_each_other_without_scontrol(fleet: Make) -> None:
    two = fleet(2)
    two.script(SAVES)
    env = {
        "SLURM_JOB_ID": "77",
        "SLURM_JOB_NODELIST": "algo-[1-2]",
        "SLURM_LOCALID": "0",
        "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
        # What enroot's hook leaves behind; torchrun must not see it.
        "RANK": "0",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "nowhere",
    }
    both = two.start("launch", "slurm", "--", "/opt/ml/code/train.py", env=env)
    for running in both:
        running.wait_for_line("] sum [2.0, 2.0]")
        running.wait_for_line("] now waiting")
    both[0].terminate()
    # Slurm must not take a stopped job for a finished one.
    assert [running.end() for running in both] == [STOPPED, STOPPED]
    assert all(any("] saved" in line for line in running.lines) for running in both)


def test_the_full_preflight_measures_all_ranks_before_training(fleet: Make) -> None:
    one = fleet(1)
    one.script("print('trained')")
    (running,) = one.start(
        "launch", "sagemaker", "--preflight", "full", "--nproc", "2", "--", "train.py"
    )
    assert running.end() == 0
    assert sum("] trained" in line for line in running.lines) == 2


def test_a_driver_that_replaces_the_entrypoint_can_still_launch(fleet: Make) -> None:
    """SageMaker SDK v3 starts /bin/bash with a script of its own, and code in a channel."""
    one = fleet(1)
    code = one.hosts[0].ml / "input" / "data" / "code"
    code.mkdir()
    (code / "train.py").write_text(SUM + LEAVE)
    driver = 'cd /opt/ml/input/data/code && launch sagemaker -- train.py "$@"; exit $?'
    (running,) = one.start("-c", driver, "driver", "a b", entrypoint=["/bin/bash"])
    assert running.end() == 0
    running.wait_for_line("[r0] sum [1.0, 1.0] ['a b']")


def test_users_of_one_machine_train_from_emptied_environments_through_login_shells(
    fleet: Make,
) -> None:
    """No PATH, another user's HOME, and for one of them somebody who was there first."""
    one = fleet(1)
    one.script("import os, shutil, sys\n"
               "print('uid', os.getuid(), sys.executable, shutil.which('torchrun', path=os.environ["
               "'PATH'].split(':', 1)[1]), os.environ['HF_HOME'])")  # fmt: skip
    driver = """
ln -s /var/lib /tmp/launch-4242
for uid in 4242 4243 4244 0; do
    setpriv --reuid=$uid --regid=$uid --clear-groups env -i HOME=/root TMPDIR=/tmp /bin/sh -lc \
        'cd /opt/ml/code && launch local --runner python -- train.py' || echo "ended $uid $?"
done
"""
    (running,) = one.start("-c", driver, entrypoint=["/bin/bash"])
    assert running.end() == 0
    programs = "/opt/venv/bin/python /opt/venv/bin/torchrun"
    for uid in (4243, 4244, 0):
        running.wait_for_line(f"[r0] uid {uid} {programs} /tmp/launch-{uid}/cache/huggingface")
    running.wait_for_line("PlaceError: /tmp/launch-4242 is a link, and others could have put it")
    assert [line for line in running.lines if line.startswith("ended")] == ["ended 4242 1"]


def test_as_pid_1_the_launcher_reaps_what_ranks_leave_behind(fleet: Make) -> None:
    one = fleet(1)
    one.script(
        """
import os, pathlib, subprocess, time
# A grandchild whose parent ends: it falls to PID 1, and ends there.
subprocess.run(["bash", "-c", "sh -c 'exec sleep 0.2' & echo $! > /tmp/orphan"], check=True)
orphan = pathlib.Path("/tmp/orphan").read_text().strip()
print("pid 1:", pathlib.Path("/proc/1/cmdline").read_bytes().split(b"\\0")[0])
while pathlib.Path("/proc", orphan).exists(): time.sleep(0.05)
print("reaped")
"""
    )
    (running,) = one.start("launch", "sagemaker", "--runner", "python", "--", "train.py")
    assert running.end() == 0
    running.wait_for_line("] reaped")
    running.wait_for_line("pid 1: b'/opt/venv/bin/python'")


def test_a_container_without_a_job_runs_what_it_is_told(fleet: Make) -> None:
    one = fleet(1)
    (running,) = one.start("python", "-c", "import sys; print(sys.argv[1:])", "a b", "$(id)")
    assert running.end() == 0
    assert running.lines == ["['a b', '$(id)']"]
