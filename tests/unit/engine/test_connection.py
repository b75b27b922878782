"""The bare connection to the daemon: a refused upload, a streamed answer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from slipway.engine.buildkit.connection import (
    BrokenConnectionError,
    json_lines,
    post_hijacked,
    refusal_text,
)


@contextmanager
def _peer(answer: list[bytes], *, read_all: bool = True) -> Iterator[socket.socket]:
    """A connected socket whose other end reads the request, then sends the pieces and closes."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(30)

    def serve() -> None:
        with theirs:
            data = b""
            while (b"0\r\n\r\n" if read_all else b"\r\n\r\n") not in data:
                data += theirs.recv(65536)
            for piece in answer:
                theirs.sendall(piece)

    thread = threading.Thread(target=serve)
    thread.start()
    with ours:
        yield ours
    thread.join()


def _chunked(*pieces: bytes) -> list[bytes]:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces]
    return [head, *chunks, b"0\r\n\r\n"]


def _received(*pieces: bytes) -> list[dict[str, Any]]:
    with (
        _peer(_chunked(*pieces)) as sock,
        closing(post_hijacked(sock, "/build", {}, iter([b"tar"]))) as response,
    ):
        return list(json_lines(response))


def test_objects_arrive_one_by_one_however_they_are_cut() -> None:
    text = '{"id":"a"}\r\n{"aux":{"x":"größe"}}\n{"error":"}{"}'.encode()
    expected = [{"id": "a"}, {"aux": {"x": "größe"}}, {"error": "}{"}]
    assert _received(text) == expected
    assert _received(*(text[at : at + 1] for at in range(len(text)))) == expected


def test_an_answer_that_breaks_off_is_an_error_and_not_an_end() -> None:
    head, first, *_ = _chunked(b'{"id":"a"}')
    with (
        _peer([head, first]) as sock,
        closing(post_hijacked(sock, "/build", {}, iter([b"tar"]))) as response,
    ):
        lines = json_lines(response)
        assert next(lines) == {"id": "a"}
        with pytest.raises(BrokenConnectionError):
            next(lines)


def test_a_daemon_that_closes_while_we_send_is_still_heard() -> None:
    body = b'{"message":"dockerfile parse error"}'
    answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    endless = iter(lambda: b"x" * 65536, b"")
    with (
        _peer([answer], read_all=False) as sock,
        closing(post_hijacked(sock, "/build", {}, endless)) as response,
    ):
        assert (response.status, refusal_text(response)) == (400, "dockerfile parse error")


def test_a_connection_that_is_cut_before_the_answer_leaves_no_socket_open() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, pytest.raises(BrokenConnectionError):
        post_hijacked(ours, "/build", {}, iter([b"tar"]))
    assert ours.fileno() == -1
