"""BuildKit's trace: decoded, told as events, written to the log."""

from __future__ import annotations

import io

from slipway.core import Event
from slipway.engine.buildkit.progress import BuildProgress
from slipway.engine.buildkit.protobuf import encode_field
from slipway.engine.buildkit.trace import Trace, Vertex, VertexLog, VertexStatus, decode_trace

TASK = "build one"


def _progress() -> tuple[BuildProgress, list[Event], io.StringIO]:
    events: list[Event] = []
    log = io.StringIO()
    return BuildProgress(TASK, events.append, log), events, log


def _vertex(
    digest: str = "d",
    *,
    started: float | None = None,
    completed: float | None = None,
    cached: bool = False,
    error: str = "",
) -> Trace:
    return Trace((Vertex(digest, f"step {digest}", cached, started, completed, error),), (), ())


def _output(data: bytes, digest: str = "d", stream: int = 1) -> Trace:
    return Trace((), (), (VertexLog(digest, stream, data),))


def test_a_status_response_decodes_with_its_times_and_unknown_fields_passed_over() -> None:
    stamp = encode_field(1, 1_700_000_000) + encode_field(2, 500_000_000)
    vertex = (
        encode_field(1, "sha256:aa")
        + encode_field(2, "sha256:input")
        + encode_field(3, "[1/2] FROM x")
        + encode_field(4, 1)
        + encode_field(5, stamp)
        + encode_field(7, "broke")
        + encode_field(99, "new in a later BuildKit")
    )
    status = (
        encode_field(1, "layer")
        + encode_field(2, "sha256:aa")
        + encode_field(4, 10)
        + encode_field(5, 40)
    )
    log = encode_field(1, "sha256:aa") + encode_field(3, 2) + encode_field(4, b"out\n")
    assert decode_trace(
        encode_field(1, vertex)
        + encode_field(2, status)
        + encode_field(3, log)
        + encode_field(4, b"\x08\x01")
    ) == (
        Trace(
            (Vertex("sha256:aa", "[1/2] FROM x", True, 1_700_000_000.5, None, "broke"),),
            (VertexStatus("layer", "sha256:aa", "", 10, 40, False),),
            (VertexLog("sha256:aa", 2, b"out\n"),),
        )
    )


def test_a_step_that_runs_is_told_once_when_it_starts_and_once_when_it_ends() -> None:
    progress, events, log = _progress()
    for trace in (
        _vertex(),
        _vertex(started=10),
        _vertex(started=10),
        _vertex(started=10, completed=12.5),
        _vertex(started=10, completed=12.5),
    ):
        progress.take(trace)
    assert events == [
        Event("start", TASK, "step d"),
        Event("done", TASK, "step d", "2.5s"),
    ]
    assert log.getvalue() == "#1 step d\n#1 DONE 2.5s\n"


def test_a_cached_step_is_told_as_cached_and_not_as_done() -> None:
    progress, events, _ = _progress()
    progress.take(_vertex(started=10, completed=10, cached=True))
    assert [event.kind for event in events] == ["start", "cached"]


def test_output_is_told_by_whole_lines_however_it_is_cut() -> None:
    progress, events, _ = _progress()
    progress.take(_vertex(started=1))
    for piece in (b"fi", b"rst\nsec", b"ond\nthi", b"rd"):
        progress.take(_output(piece))
    progress.finish()
    assert [event.text for event in events if event.kind == "log"] == ["first", "second", "third"]


def test_a_character_cut_in_two_arrives_whole() -> None:
    progress, events, _ = _progress()
    raw = "größe\n".encode()
    progress.take(_output(raw[:4]))
    progress.take(_output(raw[4:]))
    assert [event.text for event in events] == ["größe"]


def test_stdout_and_stderr_do_not_mix_inside_a_line() -> None:
    progress, events, _ = _progress()
    progress.take(_output(b"on stdout", stream=1))
    progress.take(_output(b"on stderr\n", stream=2))
    progress.take(_output(b"\n", stream=1))
    assert [event.text for event in events] == ["on stderr", "on stdout"]


def test_of_a_redrawn_line_the_last_drawing_stays() -> None:
    progress, events, _ = _progress()
    progress.take(_output(b" 10%\r 50%\r100%\r\n"))
    assert [event.text for event in events] == ["100%"]


def test_the_failed_step_is_the_one_that_broke_and_not_its_cancelled_neighbour() -> None:
    progress, events, _ = _progress()
    progress.take(_vertex("neighbour", started=1))
    progress.take(_vertex("culprit", started=1))
    progress.take(_output(b"the reason\n", "culprit"))
    progress.take(_vertex("neighbour", started=1, completed=2, error="context canceled"))
    progress.take(_vertex("culprit", started=1, completed=2, error="exit code: 3"))
    failed = progress.failed
    assert failed is not None
    assert (failed.name, failed.error, list(failed.tail)) == (
        "step culprit",
        "exit code: 3",
        ["the reason"],
    )
    assert [event.kind for event in events].count("failed") == 2


def test_only_the_last_lines_of_a_step_are_kept_for_the_error() -> None:
    progress, _, log = _progress()
    progress.take(_output(b"".join(b"line %d\n" % number for number in range(100))))
    progress.take(_vertex(started=1, completed=2, error="exit code: 1"))
    failed = progress.failed
    assert failed is not None
    assert list(failed.tail) == [f"line {number}" for number in range(80, 100)]
    assert "| line 0\n" in log.getvalue()


def test_bytes_are_summed_over_the_layers_of_a_step() -> None:
    progress, events, _ = _progress()
    progress.take(_vertex(started=1))
    for id_, current, total in (("a", 10, 100), ("b", 5, 50), ("a", 60, 100)):
        progress.take(Trace((), (VertexStatus(id_, "d", "", current, total, False),), ()))
    assert [
        (event.current, event.total, event.unit) for event in events if event.kind == "progress"
    ] == [(10, 100, "B"), (15, 150, "B"), (65, 150, "B")]
