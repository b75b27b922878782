"""What a node says to the others of its job, and the case in which there are none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from launcher.causes import PEER, Cause, CauseError
from launcher.stop_request import StopRequest

#: Stands in until the verdict is known: another node has failed, or is gone.
COLLECTING = Cause("PeerFailed", "another node has failed", PEER, secondary=True)


class LonePeers:
    """A job on one node: nobody to wait for."""

    def __init__(self) -> None:
        self.topics: dict[str, Callable[[Any], None]] = {}

    def connect(self, patience: float) -> None:
        """Meet node 0, for at most `patience` seconds."""

    def gather(
        self,
        name: str,
        value: Any,
        *,
        timeout: float | None = None,
        halt: StopRequest | None = None,
    ) -> list[Any]:
        """Everyone's value."""
        del name, timeout
        if halt is not None:
            halt.check()
        return [value]

    def announce(self, topic: str, data: Any, *, node: int | None = None) -> None:
        """Tell all nodes, this one included; with `node` that one alone."""
        del node
        self.topics[topic](data)

    def stop(self, cause: Cause) -> None:
        """Tell all nodes that a stop was requested."""

    def fail(self, cause: Cause | None) -> Cause | None:
        """Report what went wrong here; what the whole job failed of."""
        return cause

    def leave(self) -> None:
        """Say goodbye."""


class PeerError(CauseError):
    """The job has failed elsewhere, or was judged while this node waited."""
