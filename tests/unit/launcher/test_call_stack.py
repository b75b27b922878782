"""Stacks as faulthandler writes them, and what is read from them."""

from __future__ import annotations

import faulthandler
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.ranks.watch.call_stack import (
    BACKWARD,
    COLLECTIVE,
    DEBUGGER,
    DEVICE,
    OWN,
    UNKNOWN,
    StackFrame,
    find_place,
    joined_ranks,
    main_stack,
    parse_stack,
    same_place,
)

TORCH = "/opt/venv/lib/python3.12/site-packages/torch"
USER = ("/opt/ml/code/train.py", 41, "step"), ("/opt/ml/code/train.py", 90, "<module>")


def stack(*frames: tuple[str, int, str]) -> tuple[StackFrame, ...]:
    return tuple(StackFrame(*frame) for frame in frames)


def test_a_dump_of_this_process_is_read() -> None:
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file, all_threads=False)
        file.seek(0)
        frames = parse_stack(file.read())
    assert frames[0].file == __file__
    assert frames[0].function == "test_a_dump_of_this_process_is_read"


def test_of_all_threads_the_main_one_is_taken() -> None:
    begun, over = threading.Event(), threading.Event()

    def other() -> None:
        begun.set()
        over.wait()

    thread = threading.Thread(target=other)
    thread.start()
    begun.wait()
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        text = file.read()
    over.set()
    thread.join()
    assert " in other" in text
    names = [frame.function for frame in main_stack(text)]
    assert "test_of_all_threads_the_main_one_is_taken" in names
    assert "other" not in names


@pytest.mark.parametrize(
    ("inner", "kind", "call"),
    [
        (
            [
                (f"{TORCH}/distributed/distributed_c10d.py", 3252, "all_reduce"),
                (f"{TORCH}/distributed/c10d_logger.py", 83, "wrapper"),
            ],
            COLLECTIVE,
            "all_reduce",
        ),
        (
            [
                (f"{TORCH}/distributed/distributed_c10d.py", 4287, "all_gather"),
                (f"{TORCH}/distributed/c10d_logger.py", 83, "wrapper"),
                (f"{TORCH}/distributed/distributed_c10d.py", 3513, "all_gather_object"),
                (f"{TORCH}/distributed/c10d_logger.py", 83, "wrapper"),
            ],
            COLLECTIVE,
            "all_gather_object",
        ),
        ([(f"{TORCH}/cuda/__init__.py", 1000, "synchronize")], DEVICE, "synchronize"),
        (
            [
                (f"{TORCH}/autograd/graph.py", 869, "_engine_run_backward"),
                (f"{TORCH}/autograd/__init__.py", 300, "backward"),
            ],
            BACKWARD,
            "backward",
        ),
        ([("/usr/lib/python3.12/pdb.py", 400, "interaction")], DEBUGGER, "debugger"),
        ([("/x/site-packages/debugpy/server/api.py", 4, "wait")], DEBUGGER, "debugger"),
        (
            [
                ("/usr/lib/python3.12/threading.py", 300, "wait"),
                (f"{TORCH}/utils/data/dataloader.py", 1132, "_try_get_data"),
            ],
            OWN,
            "data loader",
        ),
        # A hook of the user's own that torch.distributed has called is the rank's own work.
        (
            [
                ("/opt/ml/code/hooks.py", 3, "compress"),
                (f"{TORCH}/distributed/distributed_c10d.py", 3252, "all_reduce"),
            ],
            OWN,
            "compress",
        ),
        # A name alone says nothing.
        ([("/opt/ml/code/mine.py", 3, "barrier")], OWN, "barrier"),
        ([(f"{TORCH}/nn/functional.py", 3, "synchronize")], OWN, "synchronize"),
    ],
)
def test_where_a_rank_stands(inner: list[tuple[str, int, str]], kind: str, call: str) -> None:
    place = find_place(stack(*inner, *USER))
    assert (place.kind, place.call) == (kind, call)
    if not inner[0][0].startswith("/opt/ml"):
        assert place.where == "train.py:41 in step"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("handle.wait()", DEVICE),
        ("loss = total.item()", DEVICE),
        ("x = x.cpu()", DEVICE),
        ("time.sleep(5)", OWN),
        ("x = matrix @ matrix", OWN),
    ],
)
def test_c_code_that_waits_is_told_by_its_line(tmp_path: Path, code: str, kind: str) -> None:
    script = tmp_path / "train.py"
    script.write_text(f"def step():\n    {code}\n", encoding="utf-8")
    place = find_place(stack((str(script), 2, "step"), (str(script), 9, "<module>")))
    assert (place.kind, place.code) == (kind, code)


def test_no_stack_is_no_place() -> None:
    assert find_place(()).kind == UNKNOWN


LINES = st.integers(1, 50)


@given(LINES, LINES, LINES)
def test_a_loop_that_spins_or_polls_stays_where_it_is(one: int, other: int, inside: int) -> None:
    outer = ("/t.py", 7, "main")
    spin = stack(("/t.py", one, "loop"), outer)
    assert same_place(spin, stack(("/t.py", other, "loop"), outer))
    poll = stack(("/t.py", inside, "ready"), ("/t.py", other, "loop"), outer)
    assert same_place(spin, poll)
    assert same_place(poll, spin)


@given(st.lists(st.sampled_from(["forward", "linear", "norm"]), min_size=2, max_size=5))
def test_whoever_calls_deeper_moves(names: Sequence[str]) -> None:
    outer = stack(("/t.py", 3, "loop"), ("/t.py", 7, "main"))
    deeper = (*stack(*(("/m.py", i + 1, name) for i, name in enumerate(names))), *outer)
    assert not same_place(outer, deeper)
    assert not same_place(deeper, stack(("/t.py", 9, "save"), ("/t.py", 8, "main")))


@given(st.sets(st.integers(0, 40)))
def test_ranks_are_joined_to_spans(ranks: set[int]) -> None:
    spans = [part.split("-") for part in joined_ranks(sorted(ranks)).split(", ") if part]
    assert {n for span in spans for n in range(int(span[0]), int(span[-1]) + 1)} == ranks
