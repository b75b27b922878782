"""A .sqsh of whoever started this program and holds its stdin and stdout: `inv sqsh.send`.

A question is one line of JSON on stdout: `{"ask": "file"}`, or `{"ask": DIGEST, "offset": N}` for
the rest of a piece. Its answer on stdin is one line of JSON with `size`, and so many bytes. Answers
come in the order of the questions, so that one is asked while another one is still on its way.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from launcher.fetch.origin import OriginFile
from launcher.fetch.sqsh_sidecar import (
    LARGEST_SIDECAR,
    FetchError,
    FilePiece,
    check_name,
    parse_sidecar,
)

_LONGEST_LINE = 4096
_BUFFER = 1 << 18


class SenderOrigin:
    """The other end of `answers` and `questions`. Once it is gone, it does not come back."""

    def __init__(self, answers: BinaryIO, questions: BinaryIO) -> None:
        self.where = "the sender"
        self._answers = answers
        self._questions = questions
        self._asking = threading.Lock()
        self._turn = threading.Condition()
        self._asked = self._answered = 0
        self._gone = False

    def describe(self) -> OriginFile:
        """As Origin says."""
        with self._answer(ask="file") as told:
            size = told["size"]
            if not 0 < size <= LARGEST_SIDECAR:
                raise FetchError(f"{self.where} has a sidecar of {size} bytes")
            name = check_name(str(told["name"]), self.where)
            return OriginFile(name, parse_sidecar(self._read(size), self.where))

    def read(self, piece: FilePiece, offset: int) -> Generator[bytes, None, None]:
        """As Origin says; never a CutError, since nobody would answer another question."""
        with self._answer(ask=piece.sha256, offset=offset) as told:
            left = told["size"]
            if left != piece.size - offset:
                raise FetchError(f"{self.where} has another piece {piece.sha256[:12]}")
            while left:
                data = self._read(min(_BUFFER, left))
                left -= len(data)
                yield data

    @contextmanager
    def _answer(self, **question: object) -> Iterator[dict[str, Any]]:
        """Ask, wait for those who asked before, and have the answer's first line.

        A block that does not read its answer to the end ends the conversation: what follows would
        be taken for something else.
        """
        with self._asking:
            number = self._asked
            self._asked += 1
            try:
                self._questions.write(json.dumps(question).encode() + b"\n")
                self._questions.flush()
            except OSError as error:
                self._gone = True
                raise self._lost() from error
        with self._turn:
            self._turn.wait_for(lambda: self._gone or self._answered == number)
        whole = False
        try:
            if self._gone:
                raise self._lost()
            yield self._first_line()
            whole = True
        finally:
            with self._turn:
                self._answered += 1
                self._gone = self._gone or not whole
                self._turn.notify_all()

    def _first_line(self) -> dict[str, Any]:
        line = self._answers.readline(_LONGEST_LINE)
        if not line.endswith(b"\n"):
            raise self._lost()
        try:
            told = json.loads(line)
            if "error" in told:
                raise FetchError(f"{self.where}: {str(told['error'])[:500]}")
            if type(told["size"]) is not int:
                raise ValueError("no size")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise FetchError(f"{self.where} answers with {line[:80]!r}") from error
        return dict(told)

    def _read(self, size: int) -> bytes:
        data = self._answers.read(size)
        if len(data) < size:
            raise self._lost()
        return data

    def _lost(self) -> FetchError:
        return FetchError(
            f"{self.where} is gone before all had come. What has come is kept: the same command"
            " goes on from there"
        )
