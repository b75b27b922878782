"""DeepSpeed over two nodes with disks of their own: every shard reaches S3, and it restores."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from launcher.causes import PEER
from launcher.ranks import rank_processes
from slipway.core import Project
from tests.support.launcher.bucket import Bucket
from tests.support.launcher.containers import Fleet, Make, Running

pytest_plugins = ["tests.support.launcher.fixtures", "tests.support.launcher.storage"]

TRAIN = """
import os, sys, time
import torch, deepspeed
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.Tanh(), torch.nn.Linear(32, 4))
config = {
    "train_micro_batch_size_per_gpu": 2,
    "zero_allow_untested_optimizer": True,
    "zero_optimization": {"stage": 3},
    "checkpoint": {"use_node_local_storage": True},
}
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
engine, *_ = deepspeed.initialize(
    model=model, optimizer=optimizer, config=config, dist_init_required=True
)
resume = os.environ.get("LAUNCH_RESUME_FROM")
if resume:
    engine.load_checkpoint(os.path.dirname(resume), os.path.basename(resume))
    print("resumed at", engine.global_steps, flush=True)
for _ in range(3):
    loss = engine(torch.ones(2, 8)).square().mean()
    engine.backward(loss)
    engine.step()
engine.save_checkpoint("/tmp/ck", tag=f"global_step{engine.global_steps}")
with deepspeed.zero.GatheredParameters(list(model.parameters())):
    weights = {name: value.detach().clone() for name, value in model.named_parameters()}
torch.save(weights, "/opt/ml/output/weights.pt")
torch.distributed.barrier()
torch.distributed.destroy_process_group()
"""

RESTORE = """
import sys
import torch
from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint
restored = get_fp32_state_dict_from_zero_checkpoint(sys.argv[1], "global_step3")
weights = torch.load("/opt/ml/output/weights.pt")
assert set(restored) == set(weights)
assert all(torch.equal(restored[name], weights[name]) for name in weights)
print("restored", len(weights))
"""

WAITS = """
import os, signal, time
print("now waiting", flush=True)
while True: time.sleep(0.05)
"""


def start(made: Fleet, bucket: Bucket, extensions: Path, *options: str) -> list[Running]:
    """The deepspeed runner with one rank a node, checkpoints on each container's own disk."""
    env = {name: value for name, value in bucket.env.items() if name != "PATH"}
    extensions.mkdir(parents=True, exist_ok=True)
    return made.start(
        *("launch", "sagemaker", "--runner", "deepspeed", "--nproc", "1"),
        *("--checkpoint-dir", "/tmp/ck", "--checkpoint-uri", f"{bucket.uri}/ck", *options),
        *("--", "train.py"),
        env={**env, "TORCH_EXTENSIONS_DIR": "/extensions"},
        mounts={extensions: "/extensions"},
    )


def test_a_zero_3_checkpoint_of_two_nodes_is_whole_in_s3_and_training_goes_on_from_it(
    fleet: Make, bucket: Bucket, shared_project: Project
) -> None:
    # Compiled by the first run of this test ever; it takes more than a minute.
    extensions = shared_project.cache / "test-torch-extensions"
    two = fleet(2)
    two.script(TRAIN)
    for running in start(two, bucket, extensions):
        assert running.end() == 0, running.lines

    names = [name.rpartition("/")[2] for name in bucket.names("ck/job/0/global_step3")]
    for rank in (0, 1):
        assert f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt" in names
        assert f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt" in names
    assert bucket.text("ck/job/0/latest") == "global_step3"
    assert bucket.names("ck/job/0/_COMPLETE") == ["ck/job/0/_COMPLETE/global_step3.json"]

    two.script(RESTORE, "restore.py")
    env = {name: value for name, value in bucket.env.items() if name != "PATH"}
    fetch = f"launch prefetch {bucket.uri}/ck/job/0 /tmp/copy"
    check = "python /opt/ml/code/restore.py /tmp/copy"
    restored = two.start("bash", "-c", f"{fetch} && {check}", env=env)[0]
    assert restored.end() == 0, restored.lines
    assert "restored 4" in restored.lines

    for running in start(two, bucket, extensions, "--resume", "auto"):
        assert running.end() == 0, running.lines
        running.wait_for_line("] resumed at 3")
    assert bucket.text("ck/job/1/latest") == "global_step6"


def test_a_deepspeed_launch_process_that_is_killed_is_no_success(
    fleet: Make, bucket: Bucket, shared_project: Project
) -> None:
    """The deepspeed command returns 0 then, and leaves the ranks running."""
    two = fleet(2)
    two.script(WAITS)
    both = start(two, bucket, shared_project.cache / "test-torch-extensions")
    for running in both:
        running.wait_for_line("] now waiting")
    below = rank_processes.descendants(both[0].pid, rank_processes.process_table())
    commands = {p.pid: Path(f"/proc/{p.pid}/cmdline").read_bytes() for p in below}
    (launch,) = [pid for pid, line in commands.items() if b"deepspeed.launcher.launch" in line]
    os.kill(launch, signal.SIGKILL)
    assert [running.end() for running in both] == [1, PEER]
    assert two.hosts[1].failure.startswith("RunnerError")
