"""A door before the AWS API of the tests: it answers some calls itself and hands the others on."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

AnswerTarget = Callable[[str, str, bytes], "tuple[int, Any] | None"]
"""(service, call, body) of a request by its X-Amz-Target -> status and JSON, None: hand it on."""


def aws_door(answer_target: AnswerTarget, upstream: str) -> type[BaseHTTPRequestHandler]:
    """A handler for an HTTP server; `upstream` is HOST:PORT of what is behind it."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            service, _, call = self.headers.get("X-Amz-Target", "").partition(".")
            answer = answer_target(service, call, body)
            if answer is not None:
                self._send(answer[0], [], json.dumps(answer[1]).encode())
                return
            behind = http.client.HTTPConnection(upstream)
            behind.request(self.command, self.path, body, dict(self.headers))
            response = behind.getresponse()
            self._send(response.status, response.getheaders(), response.read())
            behind.close()

        def _send(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Nothing."""

    return Handler
