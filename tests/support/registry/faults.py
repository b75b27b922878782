"""Faults that a front door makes on demand, chosen by verb and path, a counted number of times."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from typing import Literal

Action = Literal["status", "reset", "stall", "expire", "lose", "corrupt", "misname"]


@dataclass
class Fault:
    """One rule. `method` and `path` are regular expressions for the whole verb and any part of the
    path with its query; `count` is how many requests it meets.

    status: answer so, after having read the body. reset: cut the connection, after `after_bytes`
    of the body went upstream (a shorter body passes and is not counted), or of the answer to a
    GET. stall: be silent for `seconds`, then cut. expire: no token is good any more, then serve.
    lose: serve, then cut in place of the answer. corrupt: turn the last byte of the body, or of
    the answer to a GET, into another. misname: answer with the digest of something else.
    """

    method: str
    path: str
    action: Action
    count: int = 1
    status: int = 503
    code: str = "UNAVAILABLE"
    message: str = "made by the test"
    retry_after: str | None = None
    after_bytes: int = 0
    seconds: float = 0.0
    met: int = 0


@dataclass(frozen=True)
class Request:
    """What came through the door. `received` counts bytes of the body."""

    method: str
    path: str
    received: int
    status: int | None  # None: no answer was given


@dataclass
class Faults:
    """All rules and the record of requests; shared by the door's threads."""

    rules: list[Fault] = field(default_factory=list)
    seen: list[Request] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, fault: Fault) -> Fault:
        with self.lock:
            self.rules.append(fault)
        return fault

    def take(self, method: str, path: str) -> Fault | None:
        """The first rule that fits and has something left; it is one less then."""
        with self.lock:
            for fault in self.rules:
                fits = re.fullmatch(fault.method, method) and re.search(fault.path, path)
                if fits and fault.met < fault.count:
                    fault.met += 1
                    return fault
        return None

    def give_back(self, fault: Fault) -> None:
        with self.lock:
            fault.met -= 1

    def record(self, request: Request) -> None:
        with self.lock:
            self.seen.append(request)

    def clear(self) -> None:
        with self.lock:
            self.rules.clear()
            self.seen.clear()

    def requests(self, method: str, path: str) -> list[Request]:
        with self.lock:
            return [
                r for r in self.seen if re.fullmatch(method, r.method) and re.search(path, r.path)
            ]

    def uploaded(self) -> int:
        """Bytes of blobs that came in, those of cut requests included."""
        return sum(r.received for r in self.requests("PATCH|PUT", "/blobs/uploads/"))
