"""Which checkpoint is the newest: by the step that it states itself, then by time.

recorded/dcp-checkpoints.tar.xz was written by torch 2.13's torch.distributed.checkpoint: a plain
number (1234), torchtitan's train_state with a tensor (77), optimizers alone (3), no step, a float.
"""

from __future__ import annotations

import json
import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.causes import LaunchError
from launcher.data import checkpoint_steps, resume
from launcher.data.checkpoint_steps import StatedStep, stated_step
from launcher.data.checkpoints import Checkpoint, is_complete
from launcher.data.resume import RemoteCheckpoint

RECORDED = Path(__file__).with_name("recorded") / "dcp-checkpoints.tar.xz"


def trainer(root: Path, name: str, step: Any, time: float) -> None:
    path = root / name / "trainer_state.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"global_step": step, "epoch": 1.0}))
    age(path, time)


def age(path: Path, time: float) -> None:
    os.utime(path, (time, time))
    os.utime(path.parent, (time, time))


@pytest.mark.parametrize(
    ("name", "step"), [("plain", 1234), ("titan", 77), ("optim", 3), ("none", None), ("float", 5)]
)
def test_the_step_is_read_out_of_a_real_distributed_checkpoint(
    tmp_path: Path, name: str, step: int | None
) -> None:
    with tarfile.open(RECORDED) as tar:
        tar.extractall(tmp_path, filter="data")
    found = stated_step(tmp_path / name)
    assert found == (None if step is None else StatedStep(step, ".metadata"))


@pytest.mark.parametrize(
    ("files", "latest", "step", "source"),
    [
        ({"trainer_state.json": '{"global_step": 200}'}, "", 200, "trainer_state.json"),
        ({"trainer_state.json": '{"global_step": 200}', "latest": "global_step7"}, "", 200,
         "trainer_state.json"),
        ({"trainer_state.json": "{", "latest": "global_step7\n"}, "", 7, "latest"),
        ({"mp_rank_00.pt": ""}, "step-500", 500, "latest"),
        ({"mp_rank_00.pt": ""}, "other-900", 500, "its name"),
        ({"trainer_state.json": '{"global_step": true}'}, "", 500, "its name"),
        ({"trainer_state.json": '{"global_step": "9"}'}, "", 500, "its name"),
        ({"trainer_state.json": "[]", ".metadata": "junk"}, "", 500, "its name"),
    ],
)  # fmt: skip
def test_what_a_checkpoint_states_goes_before_its_name(
    tmp_path: Path, files: dict[str, str], latest: str, step: int, source: str
) -> None:
    (tmp_path / "step-500").mkdir()
    for name, text in files.items():
        (tmp_path / "step-500" / name).write_text(text)
    assert stated_step(tmp_path / "step-500", latest) == StatedStep(step, source)


@pytest.mark.parametrize(
    ("name", "step"),
    [("checkpoint-500", 500), ("step_12", 12), ("iter_0000500", 500), ("global_step7", 7),
     ("ckpt-9.pt", 9), ("epoch=3-step=400.ckpt", 400), ("checkpoint-best", None), ("final", None),
     ("last", None), ("model-7b", None), ("epoch-3", None), ("footstep5", None)],
)  # fmt: skip
def test_a_name_states_a_step_only_where_it_says_so(name: str, step: int | None) -> None:
    found = checkpoint_steps.step_of_name(name)
    assert (found.step if found else None) == step


class Boom:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_nothing_in_a_metadata_file_is_run(tmp_path: Path) -> None:
    (tmp_path / "final").mkdir()
    data = pickle.dumps({"storage_data": Boom(tmp_path / "was-run")})
    (tmp_path / "final" / ".metadata").write_bytes(data)
    assert stated_step(tmp_path / "final") is None
    assert not (tmp_path / "was-run").exists()
    pickle.loads(data)
    assert (tmp_path / "was-run").exists()


@given(st.binary(max_size=300), st.integers(0, 400), st.binary(max_size=3))
def test_any_bytes_may_stand_in_a_metadata_file(data: bytes, at: int, change: bytes) -> None:
    with tarfile.open(RECORDED) as tar:
        member = tar.extractfile("plain/.metadata")
        assert member is not None
        sound = member.read()
    checkpoint_steps._unpickled(data)
    checkpoint_steps._unpickled(sound[:at] + change + sound[at + len(change) :])
    checkpoint_steps._saved_number(data)


def choice(root: Path, *far: RemoteCheckpoint, rule: str = "auto") -> str | None:
    chosen = resume.choose_checkpoint(far, root, rule)
    return chosen.name if chosen else None


@pytest.mark.parametrize("copy", ["checkpoint-best", "final", "last", "checkpoint-9999"])
def test_a_copy_of_an_older_step_does_not_win_by_its_name(
    tmp_path: Path, copy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer(tmp_path, "checkpoint-200", 200, 1000)
    trainer(tmp_path, "checkpoint-500", 500, 2000)
    trainer(tmp_path, copy, 200, 3000)
    assert choice(tmp_path) == "checkpoint-500"
    (line,) = capsys.readouterr().err.splitlines()
    event = json.loads(line[len("launch: ") :])
    assert (event["event"], event["name"], event["step"]) == (
        "resume-choice",
        "checkpoint-500",
        500,
    )
    assert event["why"] == "step 500 by trainer_state.json, the highest"
    assert f"{copy}: step 200 by trainer_state.json" in event["of"]


def test_of_equal_steps_the_one_saved_last_is_taken(tmp_path: Path) -> None:
    trainer(tmp_path, "a", 200, 2000)
    trainer(tmp_path, "z", 200, 1000)
    assert choice(tmp_path) == "a"


def test_without_any_step_the_one_saved_last_is_taken(tmp_path: Path) -> None:
    for name, time in (("zeta", 1000), ("alpha", 2000)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "DONE").touch()
        age(tmp_path / name / "DONE", time)
    assert choice(tmp_path, rule="marker:DONE") == "alpha"


@pytest.mark.parametrize(("time", "wins"), [(3000, "final"), (1000, "checkpoint-500")])
def test_one_that_states_no_step_wins_only_where_it_was_saved_later(
    tmp_path: Path, time: float, wins: str
) -> None:
    trainer(tmp_path, "checkpoint-500", 500, 2000)
    (tmp_path / "final").mkdir()
    (tmp_path / "final" / ".metadata").touch()
    age(tmp_path / "final" / ".metadata", time)
    assert choice(tmp_path) == wins


FAR = st.builds(
    RemoteCheckpoint,
    st.sampled_from(["s3://b/j/0", "s3://b/j/1"]),
    st.sampled_from(["checkpoint-5", "final", "best", "last"]),
    st.one_of(st.none(), st.builds(StatedStep, st.integers(0, 9), st.just("trainer_state.json"))),
    st.floats(0, 100),
)


@given(st.lists(FAR, min_size=1, max_size=6), st.randoms())
def test_no_stated_step_is_passed_over_and_the_order_of_the_listing_does_not_count(
    far: list[RemoteCheckpoint], random: Any
) -> None:
    root = Path("/nonexistent")
    chosen = resume.choose_checkpoint(far, root, "auto")
    assert isinstance(chosen, RemoteCheckpoint)
    steps = [resume._step(item) for item in far]
    if resume._step(chosen) is None:
        assert chosen.saved >= max(item.saved for item in far if resume._step(item) is None)
    else:
        assert resume._step(chosen) == max(step for step in steps if step is not None)
    mixed = random.sample(far, len(far))
    again = resume.choose_checkpoint(mixed, root, "auto")
    assert isinstance(again, RemoteCheckpoint)
    assert (resume._step(again), again.saved) == (resume._step(chosen), chosen.saved)


def test_what_is_here_already_is_not_fetched_again(tmp_path: Path) -> None:
    trainer(tmp_path, "checkpoint-500", 500, 1000)
    far = RemoteCheckpoint("s3://b/j/0", "checkpoint-500", StatedStep(500, "x"), 5000)
    assert isinstance(resume.choose_checkpoint([far], tmp_path, "auto"), Checkpoint)


NOTE = {"files": {"ck/a": 0}, "pointer": "", "step": 7, "saved": 5.5, "verified": "x"}


def test_a_note_says_step_and_time() -> None:
    note = resume.read_note(json.dumps(NOTE), "s3://n")
    assert (note.step, note.saved) == (StatedStep(7, "its note"), 5.5)
    older = {key: NOTE[key] for key in ("files", "pointer")}
    assert resume.read_note(json.dumps(older), "s3://n").step is None


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "{}", "[" * 100_000, '{"files": [], "pointer": ""}',
     *(json.dumps({**NOTE, name: value}) for name, value in (
        ("files", {}), ("files", {"a": -1}), ("files", {"a": "1"}), ("files", {"a": True}),
        ("pointer", "../../etc/passwd"), ("pointer", "trainer_state.json"), ("pointer", None),
        ("saved", "soon")))],
)  # fmt: skip
def test_a_note_that_is_none_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(LaunchError, match="s3://b/note is no note of a checkpoint"):
        resume.read_note(text, "s3://b/note")


@pytest.mark.parametrize("text", ["..", ".", ".launch-x", "a\nb", "n" * 300])
def test_a_latest_file_can_not_name_what_is_no_checkpoint_of_ours(
    tmp_path: Path, text: str
) -> None:
    (tmp_path / "ck").mkdir()
    (tmp_path / "ck" / "latest").write_text(text)
    if len(text) < 255:
        (tmp_path / "ck" / text).mkdir(exist_ok=True)
    assert is_complete(tmp_path / "ck", "latest") == []
