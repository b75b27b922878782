"""The table of processes: read one by one, while they end."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from launcher.ranks import rank_processes
from launcher.ranks.rank_processes import descendants, process_table


def shown(
    monkeypatch: pytest.MonkeyPatch, folder: Path, stats: Mapping[int, Sequence[str]]
) -> None:
    """What /proc says of each process, look by look, the last one again and again. In the order in
    which they are read: "S 7" is asleep and below 7, "" is gone."""
    for pid in stats:
        (folder / str(pid)).mkdir()
    left = {pid: list(texts) for pid, texts in stats.items()}

    def read(pid: int | str, name: str) -> str:
        assert name == "stat"
        texts = left[int(pid)]
        text = texts.pop(0) if len(texts) > 1 else texts[0]
        return text and f"{pid} (a (b) c) {text} 0 0 0"

    monkeypatch.setattr(rank_processes, "PROC", folder)
    monkeypatch.setattr(os, "listdir", lambda _: [*map(str, stats), "self"])
    monkeypatch.setattr(rank_processes, "read_proc_text", read)


@pytest.mark.parametrize(
    "stats",
    [
        {1: ["S 0"], 50: ["S 1"], 60: ["S 50"], 70: ["S 60"]},
        # 60 ended before its turn, and after that of 7, which 50 has now.
        {1: ["S 0"], 7: ["S 60", "S 50"], 50: ["S 1"], 60: [""]},
        # The next above it ended, too, and was read as gone.
        {1: ["S 0"], 7: ["S 60", "S 55", "S 50"], 50: ["S 1"], 55: [""], 60: [""]},
        # Its threads are ending: it has the child still.
        {1: ["S 0"], 50: ["S 1"], 60: ["Z 50"], 70: ["R 60"]},
        {1: ["S 0"], 50: ["S 1"], 55: ["Z 50"], 60: ["X 55"], 70: ["R 60"]},
        {1: ["S 0"], 7: ["S 60", "S 55"], 50: ["S 1"], 55: ["Z 50"], 60: [""]},
    ],
)
def test_a_process_whose_parent_ends_while_it_is_read_is_below_who_has_it_then(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stats: Mapping[int, Sequence[str]]
) -> None:
    shown(monkeypatch, tmp_path, stats)
    youngest = 7 if 7 in stats else 70
    table = process_table()
    assert youngest in {process.pid for process in descendants(50, table)}
    assert all(process.state not in "ZX" for process in table.values())


def test_one_that_has_ended_itself_is_not_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stats = {1: ["S 0"], 7: ["S 60", ""], 8: ["S 60", "Z 1"], 50: ["Z 1"], 60: [""]}
    shown(monkeypatch, tmp_path, stats)
    assert set(process_table()) == {1}


def test_one_below_another_name_space_is_below_nobody(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shown(monkeypatch, tmp_path, {1: ["S 0"], 9: ["S 0"], 12: ["S 4711"]})
    assert {pid: process.parent for pid, process in process_table().items()} == {
        1: 0,
        9: 0,
        12: 4711,
    }
