"""BuildKit's progress messages (`moby.buildkit.trace`) as frozen values.

Field numbers: moby/buildkit:api/services/control/control.proto, message StatusResponse.
"""

from __future__ import annotations

from dataclasses import dataclass

from slipway.engine.buildkit.protobuf import Value, message_fields, text_value


@dataclass(frozen=True)
class Vertex:
    """One step of a build. `started` and `completed` are seconds since the epoch."""

    digest: str
    name: str
    cached: bool
    started: float | None
    completed: float | None
    error: str


@dataclass(frozen=True)
class VertexStatus:
    """Progress inside a step: a layer that is fetched, a file that is sent. Counts are bytes."""

    id: str
    vertex: str
    name: str
    current: int
    total: int
    completed: bool


@dataclass(frozen=True)
class VertexLog:
    """Output of a step, cut anywhere. `stream` is 1 for stdout and 2 for stderr."""

    vertex: str
    stream: int
    data: bytes


@dataclass(frozen=True)
class Trace:
    """One StatusResponse."""

    vertexes: tuple[Vertex, ...]
    statuses: tuple[VertexStatus, ...]
    logs: tuple[VertexLog, ...]


def decode_trace(data: bytes) -> Trace:
    """Decode one StatusResponse; raises WireError. Fields that we do not show are passed over."""
    vertexes, statuses, logs = [], [], []
    for number, value in message_fields(data):
        if number == 1:
            vertexes.append(_vertex(_message(value)))
        elif number == 2:
            statuses.append(_status(_message(value)))
        elif number == 3:
            logs.append(_log(_message(value)))
    return Trace(tuple(vertexes), tuple(statuses), tuple(logs))


def _message(value: Value) -> dict[int, Value]:
    return dict(message_fields(value)) if isinstance(value, bytes) else {}


def _number(message: dict[int, Value], field: int) -> int:
    value = message.get(field, 0)
    return value if isinstance(value, int) else 0


def _time(message: dict[int, Value], field: int) -> float | None:
    if field not in message:
        return None
    stamp = _message(message[field])
    return _number(stamp, 1) + _number(stamp, 2) / 1e9


def _vertex(message: dict[int, Value]) -> Vertex:
    return Vertex(
        digest=text_value(message.get(1, b"")),
        name=text_value(message.get(3, b"")),
        cached=bool(_number(message, 4)),
        started=_time(message, 5),
        completed=_time(message, 6),
        error=text_value(message.get(7, b"")),
    )


def _status(message: dict[int, Value]) -> VertexStatus:
    return VertexStatus(
        id=text_value(message.get(1, b"")),
        vertex=text_value(message.get(2, b"")),
        name=text_value(message.get(3, b"")),
        current=_number(message, 4),
        total=_number(message, 5),
        completed=8 in message,
    )


def _log(message: dict[int, Value]) -> VertexLog:
    data = message.get(4, b"")
    return VertexLog(
        vertex=text_value(message.get(1, b"")),
        stream=_number(message, 3),
        data=data if isinstance(data, bytes) else b"",
    )
