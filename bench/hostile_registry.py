"""A server in a registry's place that answers as it likes, for `bench.push_faults`."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def answering(answers: dict[str, dict[str, object]]) -> Iterator[str]:
    """The host of a server that answers each verb so, whatever it is asked for."""

    class Handler(BaseHTTPRequestHandler):
        def do(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer = answers.get(self.command, {"status": 404})
            own = f"http://{self.headers['Host']}"
            self.send_response(int(str(answer.get("status", 200))))
            self.send_header("Location", f"{own}/v2/{uuid.uuid4().hex}")
            self.send_header("WWW-Authenticate", f'Bearer realm="{own}/token",service="x"')
            kind = "text/html" if "page" in answer else "application/json"
            self.send_header("Content-Type", kind)
            self.end_headers()
            with contextlib.suppress(OSError):
                while answer.get("endless"):
                    self.wfile.write(b"x" * 65536)

        do_HEAD = do_GET = do_POST = do_PATCH = do_PUT = do  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        listener.daemon_threads = True
        thread = threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.server_address[1]}"
        listener.shutdown()
        thread.join()
