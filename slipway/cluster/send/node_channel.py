"""A node that a process (ssh, srun) reaches: the program runs there, and gets what it asks for."""

from __future__ import annotations

import json
import os
import queue
import shlex
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from slipway.cluster.send import node_start
from slipway.core import SlipwayError, error_text, printable, say

#: A node that has not said anything after so long is given up.
HELLO_S = 60.0
#: For what a process that has ended has still in its pipes.
_LAST_WORDS_S = 2.0
#: Lines that a login prints before anything of ours runs.
_MOST_LINES = 200
_LONGEST_LINE = 1 << 16
_EVENT = "launch: {"
_NO_PYTHON = 69

# The first Python that is new enough runs the words that follow.
_START = f"""\
for python in python3 python3.13 python3.12 python3.11 python3.10 python3.9; do
    if "$python" -I -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null; then
        exec "$python" -I -S -c "$1"
    fi
done
exit {_NO_PYTHON}
"""


def start_words() -> list[str]:
    """What a node is to run."""
    return ["/bin/sh", "-c", _START, "sh", Path(node_start.__file__).read_text(encoding="utf-8")]


class SentFile:
    """The file here, by its pieces."""

    def __init__(self, path: Path, sidecar: bytes, pieces: Mapping[str, tuple[int, int]]) -> None:
        """`pieces`: sha256 -> start and size in the file."""
        self.name = path.name
        self.sidecar = sidecar
        self.handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._pieces = pieces

    def close(self) -> None:
        """Close it."""
        os.close(self.handle)

    def find(self, sha256: object, offset: object) -> tuple[int, int] | None:
        """Where the rest of a piece stands, and its size; None for what there is not."""
        start, size = self._pieces.get(str(sha256), (0, 0))
        if type(offset) is not int or not 0 <= offset < size:
            return None
        return start + offset, size - offset


@dataclass(frozen=True)
class NodeOrder:
    """What a node is to run: the program, its words, and variables that no command line shows."""

    program: bytes
    words: tuple[str, ...]
    env: Mapping[str, str]


class NodeChannel:
    """One node. `command` starts a process here whose stdin and stdout are the node's.

    `cure` is for where it ends before anything runs on the node. Raises SlipwayError where the
    command cannot be run.
    """

    def __init__(
        self, name: str, command: Sequence[str], env: Mapping[str, str], cure: str
    ) -> None:
        self.name = name
        self._cure = cure
        try:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=dict(env),
            )
        except OSError as error:
            raise SlipwayError(
                f"cannot run {command[0]}: {error_text(error)}", cure=cure
            ) from error
        self._complaints: list[str] = []
        self._reader: threading.Thread | None = None
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        """What the node prints for people: its events at once, the end of the rest on failure."""
        with self._pipe(self._process.stderr) as stream:
            while line := stream.readline(_LONGEST_LINE):
                text = printable(line.decode(errors="replace").rstrip())
                if text.startswith(_EVENT):
                    say(f"{self.name}: {text}")
                elif text:
                    self._complaints = [*self._complaints[-9:], text]

    def hear_hello(self) -> dict[str, Any]:
        """What the node says of itself. Raises SlipwayError where it cannot be reached."""
        answers: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=lambda: answers.put(self._hello()), daemon=True)
        self._reader.start()
        try:
            line = answers.get(timeout=HELLO_S)
        except queue.Empty:
            raise SlipwayError(
                f"it has not answered within {HELLO_S:.0f} s", cure=self._cure
            ) from None
        if line is None:
            raise self._failure()
        return self._parse(line)

    def _hello(self) -> bytes | None:
        stream = self._pipe(self._process.stdout)
        mark = node_start.MARK.encode()
        for _ in range(_MOST_LINES):
            line = stream.readline(_LONGEST_LINE)
            if line.startswith(mark):
                return line.removeprefix(mark)
            if not line:
                break
        return None

    def serve(self, order: NodeOrder, file: SentFile) -> dict[str, Any]:
        """Start the program and give it what it asks for; its result.

        Raises SlipwayError with the node's own words where it fails.
        """
        head = {"program": len(order.program), "words": order.words, "env": dict(order.env)}
        with suppress(BrokenPipeError):  # its end says why
            self._write(json.dumps(head).encode() + b"\n" + order.program)
            stream = self._pipe(self._process.stdout)
            while line := stream.readline(_LONGEST_LINE):
                told = self._parse(line)
                if "path" in told:
                    self._finish()
                    return told
                self._answer(told, file)
        raise self._failure()

    @staticmethod
    def _parse(line: bytes) -> dict[str, Any]:
        with suppress(ValueError):
            told = json.loads(line)
            if isinstance(told, dict):
                return told
        raise SlipwayError(f"it answers with {printable(line[:80].decode(errors='replace'))!r}")

    def _answer(self, told: Mapping[str, Any], file: SentFile) -> None:
        if told.get("ask") == "file":
            head = {"size": len(file.sidecar), "name": file.name}
            self._write(json.dumps(head).encode() + b"\n" + file.sidecar)
            return
        place = file.find(told.get("ask"), told.get("offset"))
        if place is None:
            self._write(b'{"error": "it has no such piece"}\n')
            return
        start, left = place
        self._write(json.dumps({"size": left}).encode() + b"\n")
        pipe = self._pipe(self._process.stdin).fileno()
        while left:
            count = os.sendfile(pipe, file.handle, start, left)
            if not count:  # in the middle of an answer: nothing can be said to the node any more
                raise SlipwayError(f"{file.name} has become shorter here meanwhile")
            start, left = start + count, left - count

    def _write(self, data: bytes) -> None:
        pipe = self._pipe(self._process.stdin)
        pipe.write(data)
        pipe.flush()

    def _finish(self) -> None:
        with suppress(OSError):
            self._pipe(self._process.stdin).close()
        self._process.wait()
        # A connection that ssh keeps for the next command (ControlPersist) holds its stderr open.
        self._listener.join(_LAST_WORDS_S)

    def _failure(self) -> SlipwayError:
        """What the process and the node complained of."""
        self._finish()
        code = self._process.returncode
        if code == _NO_PYTHON and not self._complaints:
            return SlipwayError("there is no Python 3.9 or newer on it")
        for line in reversed(self._complaints):
            if line.startswith("launch: "):  # the program's own word for it
                words = line.removeprefix("launch: ").partition(": ")[2]
                return SlipwayError(words or line)
        last = self._complaints[-1] if self._complaints else f"it ended with {code}"
        return SlipwayError(last, cure=self._cure)

    def close(self) -> None:
        """End the process here; what runs on the node ends with its stdin."""
        self._process.kill()
        self._finish()
        if self._reader is not None:
            self._reader.join(_LAST_WORDS_S)
        self._pipe(self._process.stdout).close()

    @staticmethod
    def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
        assert stream is not None, "all three are pipes"
        return stream


def ssh_command(host: str, connect_s: int) -> list[str]:
    """By the user's own configuration and keys; nobody is there to type a password.

    A node that dies without a word is noticed after a minute.
    """
    options = [f"ConnectTimeout={connect_s}", "ServerAliveInterval=15", "ServerAliveCountMax=4"]
    words = [word for option in ("BatchMode=yes", *options) for word in ("-o", option)]
    return ["ssh", *words, "--", host, f"exec {shlex.join(start_words())}"]


def srun_command(job: str, node: str) -> list[str]:
    """A step of a job that runs, beside its others; stdin and stdout go by Slurm's connections."""
    options = (
        *(f"--jobid={job}", "--overlap", "--nodes=1", "--ntasks=1", f"--nodelist={node}"),
        *("--chdir=/", "--cpu-bind=none", "--unbuffered", "--quiet", "--job-name=slipway-send"),
    )
    return ["srun", *options, *start_words()]
