"""`inv sqsh.send`, by a stand-in for ssh that runs the words here; the rest is what nodes run."""

from __future__ import annotations

import io
import json
import os
import random
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.causes import LaunchError
from launcher.fetch import fetch_command
from launcher.fetch.sender_origin import SenderOrigin
from launcher.fetch.sqsh_sidecar import FetchError, FilePiece
from launcher.platforms.hostlist import expand_hostlist
from slipway.cluster.send import SendOptions, node_channel, send_sqsh
from slipway.cluster.send.send_nodes import expand_nodes
from slipway.core import Project, SlipwayError, UsageError
from tests.support.launcher.sqsh_files import digest_of, sidecar_text, write_sqsh

CHECKOUT = Path(__file__).parents[3]
PIECES = [random.Random(number).randbytes(300_000 + number) for number in range(7)]
#: A login that greets, and a working directory for each host. `down` is none.
SSH = """#!/bin/bash
while [[ $1 != -- ]]; do shift; done
host=$2
shift 2
if [[ $host == down ]]; then
    echo "ssh: connect to host down port 22: No route to host" >&2
    exit 255
fi
PATH=/usr/bin:/bin
echo "Welcome to $host"
[[ ! -e @/login ]] || . @/login
export SSH_CONNECTION="10.0.0.1 40000 $host 22"
mkdir -p "@/$host" && cd "@/$host"
exec bash -c "$*"
"""


@dataclass
class Sender:
    """The file, and nodes whose folders are `root/HOST/to`."""

    root: Path
    capsys: pytest.CaptureFixture[str]

    @property
    def file(self) -> Path:
        return self.root / "here" / "x.sqsh"

    def send(self, *nodes: str, alone: bool = True) -> dict[str, dict[str, Any]]:
        """What is told of each node; all must have got it."""
        options = SendOptions(nodes, "", "/proc/self/cwd/to", alone)
        send_sqsh(Project.at(CHECKOUT), self.file, options, as_json=True)
        return {row["node"]: row for row in json.loads(self.capsys.readouterr().out)}

    def failure(self, *nodes: str) -> str:
        with pytest.raises(SlipwayError) as caught:
            self.send(*nodes)
        self.capsys.readouterr()
        return str(caught.value)

    def content(self, node: str) -> bytes:
        return (self.root / node / "to" / "x.sqsh").read_bytes()


@pytest.fixture
def sender(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Sender:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "ssh").write_text(SSH.replace("@", str(tmp_path)))
    (programs / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    made = Sender(tmp_path, capsys)
    write_sqsh(made.file, PIECES)
    return made


def test_only_what_a_node_lacks_is_sent(sender: Sender) -> None:
    first = sender.send("a")["a"]
    assert (sender.content("a"), first["from_origin"]) == (b"".join(PIECES), sum(map(len, PIECES)))
    assert sender.send("a")["a"]["from_origin"] == 0
    (sender.root / "a" / "to" / "x.sqsh").rename(sender.root / "a" / "to" / "older.sqsh")
    (sender.root / "a" / "to" / "x.sqsh.json").rename(sender.root / "a" / "to" / "older.sqsh.json")
    build = [*PIECES[:3], b"new" * 1000, *PIECES[4:]]
    write_sqsh(sender.file, build)
    again = sender.send("a")["a"]
    assert (sender.content("a"), again["from_origin"]) == (b"".join(build), 3000)
    assert (sender.root / "a" / "to" / "x.sqsh.json").read_bytes() == sidecar_text(build)
    assert not list((sender.root / "a" / "to").glob(".*partial*"))


def test_nodes_give_pieces_to_each_other_so_that_each_is_sent_once(sender: Sender) -> None:
    told = sender.send("127.0.0.2", "127.0.0.[3-4]", alone=False)
    assert {sender.content(node) for node in told} == {b"".join(PIECES)}
    size = sum(map(len, PIECES))
    assert sum(row["from_origin"] for row in told.values()) == size
    assert sum(row["from_peers"] for row in told.values()) == 2 * size


def test_a_node_that_is_down_is_named_and_the_others_have_the_file(sender: Sender) -> None:
    said = sender.failure("a", "down")
    assert said.startswith("1 of 2 nodes have not got x.sqsh:\ndown: ssh: connect to host down")
    assert "`ssh down true` has to work first" in said
    assert sender.content("a") == b"".join(PIECES)


def login(sender: Sender, text: str) -> None:
    (sender.root / "login").write_text(text)


def no_python(sender: Sender) -> None:
    tools = sender.root / "tools"
    tools.mkdir()
    for name in ("bash", "mkdir", "sh"):
        (tools / name).symlink_to(f"/bin/{name}")
    login(sender, f"PATH={tools}\n")


def full_disk(sender: Sender) -> None:
    # No file of this user may be longer than 100 KiB there: a full disk for whoever writes.
    login(sender, "ulimit -f 100; trap '' XFSZ\n")


def unwritable(sender: Sender) -> None:
    (sender.root / "a").mkdir()
    (sender.root / "a" / "to").write_text("a file in the folder's place")


def damaged(sender: Sender) -> None:
    data = bytearray(sender.file.read_bytes())
    data[400_000] ^= 1
    sender.file.write_bytes(data)


def short(sender: Sender) -> None:
    sender.file.write_bytes(sender.file.read_bytes()[:-1])


def no_sidecar(sender: Sender) -> None:
    sender.file.with_name("x.sqsh.json").unlink()


def no_ssh(sender: Sender) -> None:
    (sender.root / "programs" / "ssh").unlink()


def cut(sender: Sender) -> None:
    login(sender, "exec 1>&-\n")


def babble(sender: Sender) -> None:
    login(sender, "echo 'slipway-send: 7'; exit 0\n")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (no_python, "a: there is no Python 3.9 or newer on it"),
        (full_disk, "takes no more of x.sqsh: File too large"),
        (unwritable, "/to cannot be made: File exists"),
        (damaged, "the sender has other bytes than its sidecar says"),
        (short, "and its sidecar says"),
        (no_sidecar, "x.sqsh.json is not there: a .sqsh is sent by its sidecar"),
        (no_ssh, "a: cannot run ssh: "),
        (cut, "`ssh a true` has to work first"),
        (babble, "a: it answers with '7"),
    ],
)
def test_each_fault_is_one_clear_paragraph_and_nothing_looks_finished(
    sender: Sender, spoil: Callable[[Sender], None], said: str
) -> None:
    spoil(sender)
    told = sender.failure("a")
    assert said in told
    assert "Traceback" not in told
    assert not (sender.root / "a" / "to" / "x.sqsh").exists()


def test_a_node_that_never_answers_is_given_up(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_channel, "HELLO_S", 0.2)
    login(sender, "exec sleep 1000\n")
    assert "a: it has not answered within 0 s" in sender.failure("a")


FIRST_MEGABYTE = """
import os
left = 10**6
while left:
    left -= os.write(1, os.read(0, min(left, 4096)))
"""


def test_a_sending_that_was_cut_goes_on_where_it_was(sender: Sender) -> None:
    """The node's channel closes after a megabyte."""
    login(sender, f"exec < <(exec {sys.executable} -c '{FIRST_MEGABYTE}')\n")
    assert "a: the sender is gone before all had come" in sender.failure("a")
    (sender.root / "login").unlink()
    told = sender.send("a")["a"]
    assert sender.content("a") == b"".join(PIECES)
    assert told["from_origin"] < sum(map(len, PIECES))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (SendOptions(()), "no node is named"),
        (SendOptions(("-oProxyCommand=x",)), "names no nodes"),
        (SendOptions(("n1",), "7"), "--job has nodes of its own"),
        (SendOptions(("n1",), "", "here"), "absolute path"),
        (SendOptions((), "x7"), "is no number of a job"),
    ],
)
def test_bad_input_is_a_usage_error(sender: Sender, options: SendOptions, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        send_sqsh(Project.at(CHECKOUT), sender.file, options)


def test_without_slurm_a_job_cannot_be_sent_to(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = sender.root / "tools"
    tools.mkdir()
    (tools / "sh").symlink_to("/bin/sh")
    monkeypatch.setattr("slipway.cluster.slurm.head_node._PRELUDE", f"PATH={tools}\n")
    with pytest.raises(SlipwayError, match="there is no Slurm on this machine"):
        send_sqsh(Project.at(CHECKOUT), sender.file, SendOptions(job="7"))


NAMES = st.sampled_from(["a", "b0", "9-", "n.1", "-0.n"])
RANGES = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 9), st.integers(1, 3)), min_size=1, max_size=3
).map(lambda rows: ",".join(f"{low:0{width}}-{low + more:0{width}}" for low, more, width in rows))
PATTERN = st.builds(lambda name, ranges: f"n{name}[{ranges}]", NAMES, RANGES)
HOSTLISTS = st.lists(st.one_of(NAMES.map(lambda n: f"h{n}"), PATTERN), min_size=1, max_size=4)


# Too slow: of the machine, where it is busy.
@given(HOSTLISTS.map(",".join))
def test_lists_of_nodes_are_read_as_the_launcher_reads_slurms(text: str) -> None:
    assert expand_nodes(text) == expand_hostlist(text)


@pytest.mark.parametrize("text", ["a,,b", "a[1", "a]1[", "a[2-1]", "a[x]", "a,", ",a", "a b", "["])
def test_what_is_no_list_of_nodes_is_refused_as_by_the_launcher(text: str) -> None:
    with pytest.raises(UsageError):
        expand_nodes(text)
    if text != "a b":  # no host has a blank; the launcher does not look at names
        with pytest.raises(LaunchError):
            expand_hostlist(text)


def test_the_folder_of_a_node_is_that_of_a_jobs_script() -> None:
    """What was sent before a job begins is there for its --fetch."""
    template = CHECKOUT / "slipway" / "cluster" / "templates" / "fetch.j2"
    text = template.read_text()
    assert f"for path in {' '.join(fetch_command.OWN_DISKS)}; do" in text
    assert "folder=$path/slipway-$UID" in text


@pytest.mark.parametrize("spoil", ["file", "link", "none"])
def test_a_folder_that_another_user_could_have_made_is_not_used(tmp_path: Path, spoil: str) -> None:
    wanted = tmp_path / f"slipway-{Path('/proc/self').stat().st_uid}"
    if spoil == "file":
        wanted.write_text("")
    elif spoil == "link":
        (tmp_path / "theirs").mkdir()
        wanted.symlink_to(tmp_path / "theirs")
    disks = [] if spoil == "none" else [str(tmp_path / "gone"), str(tmp_path)]
    with pytest.raises(FetchError, match="--to DIR"):
        fetch_command.own_folder(disks)


def test_the_nodes_own_folder_is_made_for_this_user_alone(tmp_path: Path) -> None:
    for _ in range(2):
        folder = fetch_command.own_folder([str(tmp_path / "gone"), str(tmp_path)])
        assert folder.stat().st_mode & 0o777 == 0o700


# --- the node's side of the conversation ---


def piece_of(data: bytes) -> FilePiece:
    return FilePiece(len(data), digest_of(data).removeprefix("sha256:"), (0,))


def test_questions_of_many_threads_get_their_own_answers() -> None:
    """Answered in the order in which they were asked, whoever reads when."""
    asked_read, asked_write = open_pipe()
    told_read, told_write = open_pipe()
    by_digest = {piece_of(data).sha256: data for data in PIECES}

    def answer() -> None:
        for line in asked_read:
            question = json.loads(line)
            data = by_digest[question["ask"]][question["offset"] :]
            told_write.write(json.dumps({"size": len(data)}).encode() + b"\n" + data)
            told_write.flush()

    answers = threading.Thread(target=answer)
    answers.start()
    origin = SenderOrigin(told_read, asked_write)
    got: dict[int, bytes] = {}

    def ask(number: int) -> None:
        offset = number * 1000
        got[number] = b"".join(origin.read(piece_of(PIECES[number]), offset))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(PIECES))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == {number: data[number * 1000 :] for number, data in enumerate(PIECES)}
    asked_write.close()
    answers.join()
    for stream in (asked_read, told_write, told_read):
        stream.close()


def open_pipe() -> tuple[BinaryIO, BinaryIO]:
    reader, writer = os.pipe()
    return os.fdopen(reader, "rb"), os.fdopen(writer, "wb")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"{}\n",
        b"[1]\n",
        b'{"size": "7"}\n',
        b'{"size": 6}\nabcdef',
        b'{"size": 7}\nabc',
        b'{"error": "it has no such piece"}\n',
        b"x" * 10000,
    ],
)
def test_an_answer_that_is_none_ends_the_fetch_and_all_that_follow(answer: bytes) -> None:
    origin = SenderOrigin(io.BytesIO(answer), io.BytesIO())
    for _ in range(2):
        with pytest.raises(FetchError):
            b"".join(origin.read(piece_of(b"1234567"), 0))
