"""What a node says to the others of its job, and the case in which there are none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from launcher.causes import PEER, Cause, CauseError
from launcher.peers.addresses import PeerRoute
from launcher.stop_request import StopRequest

#: Stands in until the verdict is known: another node has failed, or is gone.
COLLECTING = Cause("PeerFailed", "another node has failed", PEER, secondary=True)


class Peers(Protocol):
    """The launchers of this job, this node's own included.

    `topics` holds what to call with the data of each `announce`.
    """

    topics: dict[str, Callable[[Any], None]]

    def connect(self, patience: float) -> None:
        """Meet node 0, for at most `patience` seconds; LaunchError 71 or 76 if it is not there."""

    def route(self) -> PeerRoute | None:
        """How this node and node 0 reach each other, once all have met; None for a lone node."""

    def gather(
        self,
        name: str,
        value: Any,
        *,
        timeout: float | None = None,
        halt: StopRequest | None = None,
    ) -> list[Any]:
        """Everyone's value, in node order, once all have given theirs.

        `timeout` counts from the first value; then the verdict names who is missing. Raises the
        job's verdict as PeerError when it fails meanwhile, StoppedError on any request to `halt`.
        Equal values may be one object: they are for reading.
        """

    def announce(self, topic: str, data: Any, *, node: int | None = None) -> None:
        """Tell all nodes, this one included; with `node` that one alone."""

    def stop(self, cause: Cause) -> None:
        """Tell all nodes that a stop was requested."""

    def fail(self, cause: Cause | None) -> Cause | None:
        """Report what went wrong here; what the whole job failed of, decided within seconds."""

    def leave(self) -> None:
        """Say goodbye; node 0 stays until everyone has."""


class LonePeers:
    """A job on one node: nobody to wait for."""

    def __init__(self) -> None:
        self.topics: dict[str, Callable[[Any], None]] = {}

    def connect(self, patience: float) -> None:
        """Nobody to meet."""

    def route(self) -> PeerRoute | None:
        """None: ranks meet on loopback."""
        return None

    def gather(
        self,
        name: str,
        value: Any,
        *,
        timeout: float | None = None,
        halt: StopRequest | None = None,
    ) -> list[Any]:
        """This node's value."""
        del name, timeout
        if halt is not None:
            halt.check()
        return [value]

    def announce(self, topic: str, data: Any, *, node: int | None = None) -> None:
        """Tell this node, which is any `node`."""
        del node
        self.topics[topic](data)

    def stop(self, cause: Cause) -> None:
        """Nobody to tell."""

    def fail(self, cause: Cause | None) -> Cause | None:
        """What went wrong here is what the job failed of."""
        return cause

    def leave(self) -> None:
        """Nobody to leave."""


class PeerError(CauseError):
    """The job has failed elsewhere, or was judged while this node waited."""
