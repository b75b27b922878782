"""Inputs of builds from source: fetched once, by their hash."""

from __future__ import annotations

import hashlib
import http.server
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from slipway.core import Project, SlipwayError
from slipway.matrix import SourceInput
from slipway.wheels.source_inputs import fetch_source_input, input_path
from tests.support.loopback_files import serve_requests

CONTENT = b"\x1f\x8b as it lies there" * 1000
SHA = hashlib.sha256(CONTENT).hexdigest()


@contextmanager
def server(*answers: int | bytes) -> Iterator[tuple[str, list[str]]]:
    """Gives these in turn: a status, or content; the last one again and again."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers[min(len(asked), len(answers) - 1)]
            asked.append(self.path)
            self.send_response(answer if isinstance(answer, int) else 200)
            body = b"" if isinstance(answer, int) else answer
            # What lies there is encoded, says a server of files of this kind.
            self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with serve_requests(Handler) as host:
        yield f"http://{host}", asked


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path, tmp_path / "state")


def test_a_file_is_fetched_once_and_again_where_it_is_damaged(project: Project) -> None:
    with server(CONTENT) as (url, asked):
        wanted = SourceInput("a-1.0.tar.gz", f"{url}/a-1.0.tar.gz", SHA)
        path = fetch_source_input(project, "upper", wanted)
        assert path.read_bytes() == CONTENT
        assert fetch_source_input(project, "upper", wanted) == path
        assert asked == ["/a-1.0.tar.gz"]
        path.write_bytes(b"damaged")
        fetch_source_input(project, "upper", wanted)
    assert path.read_bytes() == CONTENT
    assert [each.name for each in path.parent.iterdir()] == ["a-1.0.tar.gz"]


def test_another_file_is_not_kept(project: Project) -> None:
    with server(b"another") as (url, _):
        wanted = SourceInput("a", f"{url}/a", SHA)
        with pytest.raises(SlipwayError, match=f"gives a file of sha256 [0-9a-f]+, and .* {SHA}"):
            fetch_source_input(project, "upper", wanted)
    assert list(input_path(project, wanted).parent.iterdir()) == []


def test_a_server_that_fails_for_a_moment_is_asked_again(project: Project) -> None:
    with server(503, CONTENT) as (url, asked):
        fetch_source_input(project, "upper", SourceInput("a", f"{url}/a", SHA))
    assert len(asked) == 2


def test_an_answer_is_an_answer_and_the_cure_names_a_place_for_the_file(project: Project) -> None:
    with server(404) as (url, asked):
        wanted = SourceInput("a", f"{url}/a", SHA)
        with pytest.raises(SlipwayError, match="404") as caught:
            fetch_source_input(project, "upper", wanted)
    assert len(asked) == 1
    place = input_path(project, wanted)
    assert str(place) in str(caught.value.cure)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(CONTENT)  # by hand, on a machine without a way out
    assert fetch_source_input(project, "upper", wanted) == place
