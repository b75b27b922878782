"""The examples train in the default image, stop with a checkpoint, go on; their models load."""

from __future__ import annotations

import math
import re
import shutil
import tarfile
from pathlib import Path

import pytest

from tests.support.example_runs import EXTENSIONS, SMALL, WHEELS, Machine, Packages, summary
from tests.support.launcher.bucket import Bucket
from tests.support.launcher.containers import Fleet, Make, Running

pytest_plugins = [
    "tests.support.example_fixtures",
    "tests.support.launcher.fixtures",
    "tests.support.launcher.storage",
]

#: The loss of a model that knows nothing of 512 tokens.
GUESSING = math.log(512)

#: The loss of the written model on what a step trains on, and a text that it generates.
TRY_CAUSAL = """
import torch
from causal_lm.data import Blocks, texts
from causal_lm.options import parse
from common.ranks import find
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained("/opt/ml/output/model")
tokenizer = AutoTokenizer.from_pretrained("/opt/ml/output/model")
options, ranks = parse(["--seq", "64", "--batch", "4"]), find()
with torch.no_grad():
    loss = model(**Blocks(tokenizer, texts(options, ranks), options).batch(151, ranks)).loss
start = tokenizer("the lamp is", return_tensors="pt", add_special_tokens=False)["input_ids"]
made = model.generate(start, max_new_tokens=8, min_new_tokens=8, do_sample=False)
print("generated", len(made[0]) - len(start[0]), "tokens")
print("loss", round(float(loss), 4))
"""

#: Our own Llama and transformers' with the same weights must say the same.
COMPARE_LLAMAS = """
import torch
from fsdp_pretrain.model import Llama, Size
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
theirs = AutoModelForCausalLM.from_pretrained("/opt/ml/output/model")
ours = Llama(Size(layers=1, hidden=32, heads=2, kv_heads=1, intermediate=96, vocab=512, seq=64))
ours.load_state_dict(load_file("/opt/ml/output/model/model.safetensors"))
ids = torch.randint(512, (2, 64), generator=torch.Generator().manual_seed(1))
with torch.no_grad():
    mine, other = ours(ids, ids).loss, theirs(input_ids=ids, labels=ids).loss
torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)
made = theirs.generate(ids[:1], max_new_tokens=4, min_new_tokens=4, do_sample=False)
print("the same; generated", made.shape[1] - 64)
"""

TRY_T5 = """
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
model = AutoModelForSeq2SeqLM.from_pretrained("/opt/ml/output/model")
tokenizer = AutoTokenizer.from_pretrained("/opt/ml/output/model")
asked = tokenizer("the lamp is red. which colour has the lamp?", return_tensors="pt")
made = model.generate(**asked, max_new_tokens=6, min_new_tokens=6, do_sample=False)
print("generated", made.shape[1] - 1, "tokens")
"""


def test_fsdp_pretraining_goes_on_after_sigterm_as_if_it_had_never_stopped(
    machine: Machine,
) -> None:
    size = (*SMALL, "--kv-heads", "1", "--intermediate", "96", "--steps", "120", "--lr", "0.01")
    saved = machine.train_until_stopped("fsdp_pretrain", *size)
    resumed = machine.train_to_the_end("fsdp_pretrain", *size, "--checkpoint-every", "60")
    assert resumed["first_step"] == saved + 1
    assert resumed["by_step"][120] < GUESSING - 0.5

    machine.shell("rm -rf /opt/ml/checkpoints")
    unbroken = machine.train_to_the_end("fsdp_pretrain", *size, "--checkpoint-every", "0")
    for step, loss in resumed["by_step"].items():
        if step in unbroken["by_step"]:
            assert loss == pytest.approx(unbroken["by_step"][step], abs=2e-3), step
    assert "the same; generated 4" in machine.python(COMPARE_LLAMAS)


@pytest.mark.parametrize(("lora", "drop"), [(0, 1.0), (4, 0.1)])
def test_a_causal_lm_goes_on_from_its_checkpoint_with_fewer_ranks_and_loads_in_transformers(
    machine: Machine, lora: int, drop: float
) -> None:
    args = (*SMALL, "--lora-rank", str(lora), "--lr", "0.01")
    saved = machine.train_until_stopped("causal_lm", *args, "--steps", "400")
    last = (*args, "--checkpoint-every", "150")
    found = machine.train_to_the_end("causal_lm", *last, "--steps", "150", nproc=1)
    assert found["first_step"] == saved + 1
    assert found["world"] == 1
    assert found["losses"][-1] < GUESSING - drop

    said = machine.python(TRY_CAUSAL)
    assert "generated 8 tokens" in said
    # What training finds before it changes a weight. With an adapter this is the merged model.
    found = machine.train_to_the_end("causal_lm", *last, "--steps", "151", nproc=1)
    loss = float(said.rpartition("loss ")[2])
    assert loss == pytest.approx(found["by_step"][151], abs=1e-3)


def test_a_zero_3_checkpoint_at_another_number_of_ranks_names_the_cure_which_works(
    machine: Machine,
) -> None:
    args = (*SMALL, "--parallel", "zero3")
    saved = machine.train_until_stopped("causal_lm", *args, "--steps", "400", runner="deepspeed")
    alone = (*args, "--steps", str(saved + 10), "--log-every", "5")
    refused = machine.start("causal_lm", *alone, nproc=1)
    assert refused.end() == 1
    (failed,) = (line for line in refused.lines if '"event": "failed"' in line)
    said = re.search(r"ZeRO state of 2 ranks, and this job has 1. Run `([^`]+)`", failed)
    assert said, failed

    machine.shell(said[1])
    found = machine.train_to_the_end("causal_lm", *alone, nproc=1)
    assert found["first_step"] == saved + 1
    assert "generated 8 tokens" in machine.python(TRY_CAUSAL)


def job(two: Fleet, bucket: Bucket, packages: Packages, extensions: Path) -> list[Running]:
    """A SageMaker job of an estimator, on two nodes with disks of their own."""
    env = {name: value for name, value in bucket.env.items() if name != "PATH"}
    return two.start(
        "train",
        env={
            **env,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": WHEELS,
            "PIP_NO_COMPILE": "1",
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "TORCH_EXTENSIONS_DIR": EXTENSIONS,
        },
        mounts={packages.wheels: WHEELS, extensions: EXTENSIONS},
    )


def test_a_seq2seq_estimator_job_is_stopped_saved_to_s3_and_finished_by_the_next_attempt(
    fleet: Make, machine: Machine, bucket: Bucket, packages: Packages, tmp_path: Path
) -> None:
    archive = tmp_path / "sourcedir.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(machine.code, ".")
    bucket.client.upload_file(str(archive), bucket.name, "sourcedir.tar.gz")
    two = fleet(2)
    settings = {
        "sagemaker_submit_directory": f"{bucket.uri}/sourcedir.tar.gz",
        "sagemaker_program": "seq2seq/train.py",
        "launch_runner": "deepspeed",
        "launch_nproc": 1,
        "launch_checkpoint_dir": "/tmp/ck",
        "launch_checkpoint_uri": f"{bucket.uri}/ck",
        "launch_resume": "auto",
        "launch_upload": f"/tmp/output={bucket.uri}/models",
        "checkpoint-dir": "/tmp/ck",
        "checkpoint-every": 0,
        "log-every": 5,
        "hidden": 32,
        "heads": 2,
    }
    two.hyperparameters({**settings, "steps": 1000})
    both = job(two, bucket, packages, machine.extensions)
    both[0].wait_for_line('"event": "step", "step": 5,')
    for running in both:
        running.terminate()
    assert [running.end() for running in both] == [0, 0], [r.lines for r in both]
    saved = summary(both[0])
    assert saved["status"] == "stopped"
    step = saved["saved_step"]
    assert bucket.names("ck/job/0/_COMPLETE") == [f"ck/job/0/_COMPLETE/checkpoint-{step}.json"]
    assert not bucket.names("models")

    for host in two.hosts:
        shutil.rmtree(host.ml / "code")
    two.hyperparameters({**settings, "steps": step + 10})
    both = job(two, bucket, packages, machine.extensions)
    assert [running.end() for running in both] == [0, 0], [r.lines for r in both]
    found = summary(both[0])
    assert (found["status"], found["first_step"], found["steps"]) == ("done", step + 1, step + 10)
    assert found["losses"][-1] < saved["losses"][0]

    assert "models/job/1/_COMPLETE.json" in bucket.names("models")
    for name in bucket.names("models/job/1"):
        path = machine.fleet.hosts[0].ml / "output" / "model" / name.rpartition("/")[2]
        path.parent.mkdir(exist_ok=True)
        bucket.client.download_file(bucket.name, name, str(path))
    assert "generated 6 tokens" in machine.python(TRY_T5)
