"""Bare connections to the daemon, for what the SDK's HTTP client cannot do.

That is: the upgraded session connection, and a build that another thread must be able to cut off.
"""

from __future__ import annotations

import codecs
import json
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any
from urllib.parse import urlsplit

from slipway.engine.client import Engine
from slipway.engine.errors import EngineUnavailableError

_CONNECT_S = 30.0


class BrokenConnectionError(Exception):
    """The daemon's side of a connection ended in the middle.

    Not an OSError: those come from files too, and a full log is no dead daemon.
    """


def dial_engine(engine: Engine) -> socket.socket:
    """Connect to the daemon as the SDK's client does. Raises EngineUnavailableError."""
    url = urlsplit(engine.url)
    try:
        if url.scheme == "unix":
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.connect(url.path)
            except OSError:
                sock.close()
                raise
            return sock
        tcp = socket.create_connection((url.hostname or "localhost", url.port or 2375), _CONNECT_S)
        tcp.settimeout(None)  # a step may be silent for an hour; keepalive finds a dead host
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if engine.client.api.base_url.startswith("https:"):
            return _secure(tcp, engine, url.hostname or "localhost")
        return tcp
    except OSError as error:
        raise EngineUnavailableError(
            f"the engine does not answer: {error}",
            where=engine.url,
            cure="`./inv doctor` tells what is wrong with it.",
        ) from error


def _secure(sock: socket.socket, engine: Engine, host: str) -> socket.socket:
    """TLS with the certificates that the SDK's client was made with (DOCKER_CERT_PATH)."""
    verify, pair = engine.client.api.verify, engine.client.api.cert
    context = ssl.create_default_context(cafile=verify if isinstance(verify, str) else None)
    if verify is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if isinstance(pair, tuple):
        context.load_cert_chain(*pair)
    try:
        return context.wrap_socket(sock, server_hostname=host)
    except OSError:
        sock.close()
        raise


def post_hijacked(
    sock: socket.socket, path: str, headers: Mapping[str, str], body: Iterator[bytes]
) -> HTTPResponse:
    """POST `body` in chunks over `sock`; the answer's headers have been read.

    A daemon that refuses early answers and closes while we still send: its answer is what counts,
    so a broken pipe is an error only where no answer follows. Raises BrokenConnectionError.
    """
    connection = HTTPConnection("localhost")
    connection.sock = sock
    with _broken():
        connection.putrequest("POST", path)
        for name, value in {**headers, "Transfer-Encoding": "chunked"}.items():
            connection.putheader(name, value)
        try:
            connection.endheaders(body, encode_chunked=True)
        except (BrokenPipeError, ConnectionResetError):
            # http.client allows getresponse() only for a request that it believes sent.
            response = HTTPResponse(sock, method="POST")
            try:
                response.begin()
            except BaseException:
                response.close()
                raise
            return response
        return connection.getresponse()


def refusal_text(response: HTTPResponse) -> str:
    """What the daemon says in an answer that is not 200. Raises BrokenConnectionError."""
    with _broken():
        text = response.read().decode("utf-8", "replace").strip()
    with suppress(ValueError, LookupError, TypeError):
        return str(json.loads(text)["message"])
    return text


def json_lines(response: HTTPResponse) -> Iterator[dict[str, Any]]:
    """The JSON objects of a streamed answer, as they arrive. Raises BrokenConnectionError."""
    decoder, text = codecs.getincrementaldecoder("utf-8")("replace"), ""
    scanner = json.JSONDecoder()
    while True:
        with _broken():
            data = response.read1(65536)
        if not data:
            return
        text = (text + decoder.decode(data)).lstrip()
        while text:
            try:
                value, end = scanner.raw_decode(text)
            except json.JSONDecodeError:
                break  # the rest of the object has not arrived yet
            yield value
            text = text[end:].lstrip()


@contextmanager
def _broken() -> Iterator[None]:
    try:
        yield
    except (OSError, HTTPException) as error:
        raise BrokenConnectionError(str(error)) from error
