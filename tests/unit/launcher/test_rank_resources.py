"""Connections that get no answer, from what Linux 6.18 printed of real ones in /proc/net/tcp."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.ranks.watch import rank_resources

HEAD = (
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout "
    "inode\n"
)
#: The name says what had been done to the connection eight seconds before.
CONNECTIONS = {
    "nothing": (
        "29: 0100007F:E4F5 0100007F:A3F0 01 00000000:00000000 02:000000C7 00000000     0        0 "
        "8544433 2 00000000baedc716 20 4 30 18 -1",
        False,
    ),
    "its reader reads nothing": (
        "24: 0100007F:B326 0100007F:A3F0 01 003E1200:00000000 04:0000022C 00000000     0        0 "
        "8578099 2 000000008cd2ea63 20 0 0 16 -1",
        False,
    ),
    "packets are dropped on the way": (
        "24: 0100007F:E772 0100007F:A3F0 01 000000C8:00000000 01:000001F4 00000005     0        0 "
        "8578876 2 000000003d96bd03 665 0 0 1 -1",
        True,
    ),
    "this machine's filter drops packets": (
        "19: 0100007F:8134 0100007F:A3F0 01 000000C8:00000000 04:0000021C 00000000     0        5 "
        "8579573 2 000000006467da8d 20 0 0 10 -1",
        True,
    ),
}


@pytest.mark.parametrize("done", CONNECTIONS)
def test_a_connection_is_silent_when_what_it_sends_is_not_answered(
    done: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line, silent = CONNECTIONS[done]
    inode = line.split()[9]
    process = tmp_path / "7"
    (process / "fd").mkdir(parents=True)
    (process / "fd" / "3").symlink_to(f"socket:[{inode}]")
    (process / "net").mkdir()
    (process / "net" / "tcp").write_text(f"{HEAD}  {line}\n")
    monkeypatch.setattr(rank_resources, "PROC", tmp_path)
    assert rank_resources.silent_connections(7) == (["127.0.0.1:41968"] if silent else [])
    (process / "fd" / "3").unlink()
    assert rank_resources.silent_connections(7) == []
