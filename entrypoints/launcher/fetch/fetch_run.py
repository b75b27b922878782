"""One node's fetch: what is there already, what comes from where, and the file under its name."""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from launcher import events
from launcher.causes import Cause, LaunchError
from launcher.fetch.file_turn import file_turn
from launcher.fetch.named_origin import open_origin
from launcher.fetch.origin import Origin, OriginFile, describe_origin, fetch_from_origin
from launcher.fetch.partial_file import OlderPlace, PartialFile, whole_file
from launcher.fetch.piece_server import PieceServer, fetch_from_peer
from launcher.fetch.schedule import ALONE_TAKES
from launcher.fetch.sqsh_sidecar import FetchError, SqshSidecar
from launcher.fetch.swarm import LoneOrders, Lost, Orders, Over, SwarmOrders, Take
from launcher.peers import GatePlace
from launcher.stop_request import StopRequest

#: Node 0 may still be starting.
MEET_SECONDS = 30.0
#: Between two times that a node tells what it has read of older files.
TELL_SECONDS = 1.0

_GIVEN_UP = Cause("FetchError", "another part of the fetch has failed")


@dataclass(frozen=True)
class FetchRequest:
    """What to fetch, into which folder, and with which other nodes: `place` and the `key` by which
    they give pieces to each other; None for a node by itself."""

    uri: str
    folder: Path
    place: GatePlace | None = None
    key: bytes = b""
    plain_http: bool = False
    digest: str = ""  # of the file that is wanted; "" for whichever is there


@dataclass(frozen=True)
class FetchResult:
    """Where the file is, and how many bytes of it came from where. `again`: of pieces that came
    twice, because they were damaged the first time."""

    path: Path
    size: int
    from_origin: int = 0
    from_peers: int = 0
    from_older: int = 0
    given: int = 0
    again: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class _Came:
    """A piece that a thread was to bring: `error` where it did not come."""

    take: Take
    count: int = 0
    seconds: float = 0.0
    again: int = 0
    error: Exception | None = None


@dataclass(frozen=True)
class _Copied:
    """A piece that an older file was to have: whether it was `good`, or why that is not known."""

    piece: int
    good: bool = False
    error: Exception | None = None


class _OlderCopies:
    """Pieces that are read of older files: which are not told of yet. The schedule is told of many
    at a time, since there may be thousands on a thousand nodes."""

    def __init__(self, pending: set[int]) -> None:
        self.unsettled = set(pending)  # also those that node 0 has yet to hear of
        self._reading = set(pending)
        self._has: set[int] = set()
        self._lacks: set[int] = set()
        self._told = time.monotonic()

    def settle(self, piece: int, good: bool) -> bool:
        """Note one; whether it is time to tell."""
        self._reading.discard(piece)
        (self._has if good else self._lacks).add(piece)
        late = time.monotonic() - self._told > TELL_SECONDS
        return not self._reading or late or bool(self._lacks)

    def take(self) -> tuple[set[int], set[int]]:
        """What is to be told: what is there, and what is not."""
        told = self._has, self._lacks
        self.unsettled -= self._has | self._lacks
        self._has, self._lacks = set(), set()
        self._told = time.monotonic()
        return told


@dataclass
class _Tally:
    origin: int = 0
    peers: int = 0
    again: int = 0
    taking: set[int] = field(default_factory=set)


def fetch_sqsh(request: FetchRequest, env: Mapping[str, str]) -> FetchResult:
    """Bring the file to the folder, whole and checked, or leave nothing under its name.

    Only pieces that are neither there nor in another .sqsh of the folder move. Raises FetchError,
    LaunchUsageError; what has come is kept for the next try.
    """
    began = time.monotonic()
    halt = StopRequest()
    origin = open_origin(request.uri, env, plain_http=request.plain_http)
    described = describe_origin(origin, halt)
    if request.digest not in ("", described.sidecar.digest):
        raise FetchError(
            f"{origin.where} has another file than the one that is wanted: its digest is"
            f" {described.sidecar.digest[:16]}, not {request.digest[:16]}"
        )
    try:
        request.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FetchError(f"{request.folder} cannot be made: {error.strerror}") from error
    result = _NodeFetch(request, origin, described, halt).run()
    return replace(result, seconds=time.monotonic() - began)


class _NodeFetch:
    def __init__(
        self, request: FetchRequest, origin: Origin, described: OriginFile, halt: StopRequest
    ) -> None:
        self._request = request
        self._origin = origin
        self._sidecar: SqshSidecar = described.sidecar
        self._target = request.folder / described.name
        self._sizes = [piece.size for piece in described.sidecar.pieces]
        self._halt = halt
        self._inbox: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._tally = _Tally()
        self._copies = _OlderCopies(set())

    def run(self) -> FetchResult:
        orders = self._meet()
        try:
            with file_turn(self._target, self._halt) as alone:
                present = whole_file(self._target, self._sidecar)
                file = PartialFile(self._target, self._sidecar, shared=not alone, whole=present)
                server = None
                try:
                    if not present:
                        file.prepare()
                    places = file.older_places()
                    self._copies = _OlderCopies(set(places))
                    server = self._serve(file)
                    port = server.port if server else 0
                    orders.join(file.missing - set(places), set(places), port)
                    orders = self._bring(file, orders, places)
                    if not present:
                        file.commit()
                except BaseException:
                    self._close(file, server)
                    raise
            # The others of this folder may go on; those of the job still want pieces.
            try:
                if isinstance(orders, SwarmOrders):
                    self._wait_for_others()
            finally:
                self._close(file, server)
        finally:
            orders.leave()
        tally = self._tally
        return FetchResult(
            self._target,
            self._sidecar.size,
            tally.origin,
            tally.peers,
            file.copied_bytes,
            server.given_bytes if server else 0,
            tally.again,
        )

    def _meet(self) -> Orders:
        place = self._request.place
        if place is not None and len(place.hosts) > 1:
            orders = SwarmOrders(place, self._sidecar.digest, self._sizes, self._inbox.put)
            try:
                orders.connect(MEET_SECONDS)
                return orders
            except LaunchError as error:
                events.emit("fetch-alone", why=str(error))
        return LoneOrders(self._sizes, self._inbox.put)

    def _serve(self, file: PartialFile) -> PieceServer | None:
        if self._request.place is None:
            return None

        def has_piece(number: int) -> bool:
            return number not in file.missing

        return PieceServer(self._request.key, file.handle, self._sidecar, has_piece)

    def _close(self, file: PartialFile, server: PieceServer | None) -> None:
        if server is not None:
            server.close()
        file.close()

    def _bring(
        self, file: PartialFile, orders: Orders, places: dict[int, list[OlderPlace]]
    ) -> Orders:
        """Until nothing is missing; who gives the orders in the end.

        Older files are read while pieces come: neither waits for the other.
        """
        cores = os.cpu_count() or 1
        with ThreadPoolExecutor(ALONE_TAKES) as takes, ThreadPoolExecutor(cores) as copies:
            try:
                for number, there in places.items():
                    copies.submit(self._copy, file, number, there)
                while file.missing:
                    item = self._inbox.get()
                    if isinstance(item, Take):
                        # Told twice where node 0 was lost meanwhile.
                        if item.piece in file.missing - self._tally.taking:
                            self._tally.taking.add(item.piece)
                            takes.submit(self._take, file, item)
                    elif isinstance(item, _Copied):
                        self._copied(file, item, orders)
                    elif isinstance(item, _Came):
                        self._came(file, item, orders)
                    elif isinstance(item, Lost):
                        orders = self._go_on_alone(file, orders)
                    elif isinstance(item, LaunchError):
                        raise item
            except BaseException:
                self._halt.request(_GIVEN_UP, hard=True)  # the other threads end, too
                raise
        return orders

    def _copy(self, file: PartialFile, number: int, places: list[OlderPlace]) -> None:
        """In a thread: bring one piece from an older file, and tell whether it came."""
        try:
            self._halt.check()
            self._inbox.put(_Copied(number, file.copy_piece(number, places)))
        except Exception as error:  # noqa: BLE001 - told to the thread that waits
            self._inbox.put(_Copied(number, error=error))

    def _copied(self, file: PartialFile, copied: _Copied, orders: Orders) -> None:
        if copied.error is not None:
            raise copied.error
        if copied.good:
            file.finish_piece(copied.piece)
            file.copied_bytes += file.sidecar.pieces[copied.piece].size
        if self._copies.settle(copied.piece, copied.good):
            orders.settle(*self._copies.take())

    def _go_on_alone(self, file: PartialFile, orders: Orders) -> Orders:
        if not isinstance(orders, SwarmOrders):
            return orders
        events.emit("fetch-alone", why="node 0, which keeps the schedule, is gone")
        orders.leave()
        lone = LoneOrders(self._sizes, self._inbox.put)
        pending = self._copies.unsettled
        lone.join(file.missing - self._tally.taking - pending, pending, 0)
        return lone

    def _take(self, file: PartialFile, take: Take) -> None:
        """In a thread: bring one piece, and tell how it went."""
        began = time.monotonic()
        try:
            again = 0
            if take.address is None:
                count, again = fetch_from_origin(self._origin, file, take.piece, self._halt)
            else:
                assert self._request.place is not None, "only members of a job have peers"
                place = replace(self._request.place, key=self._request.key)
                count = fetch_from_peer(take.address, place, file, take.piece)
            self._inbox.put(_Came(take, count, time.monotonic() - began, again))
        except Exception as error:  # noqa: BLE001 - told to the thread that waits
            self._inbox.put(_Came(take, error=error))

    def _came(self, file: PartialFile, came: _Came, orders: Orders) -> None:
        piece, address = came.take.piece, came.take.address
        self._tally.taking.discard(piece)
        if came.error is None:
            file.finish_piece(piece)
            if address is None:
                self._tally.origin += came.count
            else:
                self._tally.peers += came.count
            self._tally.again += came.again
            orders.got(piece, came.seconds)
            return
        if address is None or not isinstance(came.error, (OSError, ValueError)):
            raise came.error
        # A peer that is gone or damaged; node 0 names another one, or the origin.
        self._tally.again += isinstance(came.error, ValueError)
        events.emit("fetch-peer", peer=address[0], piece=piece, error=str(came.error))
        orders.failed(piece)

    def _wait_for_others(self) -> None:
        while not isinstance(self._inbox.get(), (Over, Lost)):
            pass
