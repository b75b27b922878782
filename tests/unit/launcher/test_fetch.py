"""`launch fetch`: whatever is there and whatever comes, the file is right or not there."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from launcher.causes import FETCH_SHORT, NO_SPACE, LaunchUsageError
from launcher.fetch import fetch_run, origin, partial_file
from launcher.fetch.fetch_command import run_fetch
from launcher.fetch.fetch_run import FetchRequest, FetchResult, fetch_sqsh
from launcher.fetch.named_origin import FolderOrigin, open_origin
from launcher.fetch.origin import CutError, fetch_from_origin
from launcher.fetch.partial_file import PartialFile, mark_of, write_mark
from launcher.fetch.registry_origin import RegistryLogins, challenge_parameters
from launcher.fetch.schedule import ALONE_TAKES
from launcher.fetch.sqsh_sidecar import FetchError, FilePiece, parse_sidecar
from launcher.stop_request import StopRequest
from slipway.registry.distribution.auth import parse_challenge
from slipway.sqsh import read_sidecar
from tests.support.launcher.sqsh_files import CountingOrigin, ServedFile, sidecar_text, write_sqsh

QUICK = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
PIECES = st.lists(st.sampled_from([bytes([n]) * (n * 1000 + 7) for n in range(9)]), min_size=1)
LAUNCHER = Path(__file__).parents[3] / "entrypoints" / "launcher"


def fetch(
    uri: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[FetchResult, list[str]]:
    """The result, and the pieces that the origin was asked for."""
    counted = CountingOrigin(uri)
    monkeypatch.setattr(fetch_run, "open_origin", lambda *_, **__: counted)
    return fetch_sqsh(FetchRequest(str(uri), folder), {}), counted.reads


def digests(pieces: list[bytes]) -> set[str]:
    return {hashlib.sha256(piece).hexdigest() for piece in pieces}


@QUICK
@given(
    wanted=PIECES,
    older=PIECES,
    damaged=st.sets(st.integers(0, 8)),
    kept=st.sets(st.integers(0, 8)),
    spoilt=st.booleans(),
)
def test_only_what_is_not_there_comes_from_the_origin(
    wanted: list[bytes],
    older: list[bytes],
    damaged: set[int],
    kept: set[int],
    spoilt: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Whatever an older file has of it, and a run that was killed has left, right or damaged."""
    top = tmp_path_factory.mktemp("fetch")
    content = write_sqsh(top / "origin" / "x.sqsh", wanted)
    write_sqsh(top / "node" / "older.sqsh", older)
    data = bytearray((top / "node" / "older.sqsh").read_bytes())
    position, whole = 0, set()
    for number, piece in enumerate(older):
        if number in damaged:
            data[position] ^= 1
        elif piece not in older[:number]:  # the first place of a content is what is copied
            whole |= digests([piece])
        position += len(piece)
    (top / "node" / "older.sqsh").write_bytes(data)
    half = bytearray(len(content))
    position, left = 0, set()
    for number, piece in enumerate(wanted):
        if number in kept:
            half[position : position + len(piece)] = piece
            if spoilt:
                half[position] ^= 1
        position += len(piece)
    if not spoilt:  # a content counts where it is at all of its places
        left = {
            hashlib.sha256(piece).hexdigest()
            for piece in wanted
            if all(n in kept for n, other in enumerate(wanted) if other == piece)
        }
    (top / "node" / ".x.sqsh.partial").write_bytes(half)
    with pytest.MonkeyPatch.context() as patch:
        result, reads = fetch(top / "origin" / "x.sqsh", top / "node", patch)
    assert result.path.read_bytes() == content
    assert (top / "node" / "x.sqsh.json").read_bytes() == sidecar_text(wanted)
    zeros = digests([bytes(7)])  # which are right where nothing was left, too
    assert set(reads) - zeros == digests(wanted) - whole - left - zeros
    assert len(reads) == len(set(reads))
    assert not (top / "node" / ".x.sqsh.partial").exists()


def test_a_file_that_is_there_is_left_alone_and_an_altered_one_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = [os.urandom(5000) for _ in range(6)]
    content = write_sqsh(tmp_path / "o" / "x.sqsh", pieces)
    first, reads = fetch(tmp_path / "o" / "x.sqsh", tmp_path / "n", monkeypatch)
    assert len(reads) == 6
    inode = first.path.stat().st_ino
    again, reads = fetch(tmp_path / "o" / "x.sqsh", tmp_path / "n", monkeypatch)
    assert (reads, again.path.stat().st_ino) == ([], inode)
    with first.path.open("r+b") as stream:
        stream.seek(12_000)
        stream.write(b"!")
    mended, reads = fetch(tmp_path / "o" / "x.sqsh", tmp_path / "n", monkeypatch)
    assert set(reads) == digests([pieces[2]])
    assert mended.path.read_bytes() == content


def test_the_mark_of_a_checked_file_is_the_one_that_jobs_look_for(tmp_path: Path) -> None:
    """templates/sqsh.j2 asks stat(1), and hashes no file whose mark it finds."""
    path = tmp_path / "x.sqsh"
    for seconds in (0, 1_700_000_000, 1_720_000_000):  # winter and summer time
        path.write_bytes(b"x")
        os.utime(path, ns=(0, seconds * 10**9 + 1234))
        write_mark(path, "d")
        command = ["stat", "--dereference", "--format=%i %s %y", str(path)]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert mark_of(path).read_text() == f"d {told}"


SIDECARS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "another format": lambda data: {**data, "format": "slipway-sqsh/9"},
    "no pieces": lambda data: {**data, "pieces": []},
    "pieces that are no list": lambda data: {**data, "pieces": {"a": 1}},
    "a number for a piece": lambda data: {**data, "pieces": [1]},
    "a path for a digest": lambda data: {**data, "pieces": ["5 ../../etc/passwd"]},
    "a piece of no bytes": lambda data: {**data, "pieces": ["0 " + "a" * 64]},
    "a negative piece": lambda data: {**data, "pieces": ["-5 " + "a" * 64]},
    "a piece of a terabyte": lambda data: {**data, "pieces": ["1099511627776 " + "a" * 64]},
    "another size": lambda data: {**data, "size": data["size"] + 1},
    "a size that is true": lambda data: {**data, "size": True},
    "another digest": lambda data: {**data, "digest": "0" * 64},
    "a list": lambda data: [data],
    "a text": lambda data: "x",
}


@pytest.mark.parametrize("name", SIDECARS)
def test_a_sidecar_that_lies_is_refused_by_name(name: str) -> None:
    data = json.loads(sidecar_text([b"abcde", b"fgh"]))
    raw = json.dumps(SIDECARS[name](data)).encode()
    with pytest.raises(FetchError, match=r"^host/x is no sidecar of a \.sqsh"):
        parse_sidecar(raw, "host/x")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_sidecar_or_an_error(raw: bytes) -> None:
    with pytest.raises(FetchError):
        parse_sidecar(raw, "x")


@given(PIECES)
def test_both_readers_of_a_sidecar_see_the_same_pieces(pieces: list[bytes]) -> None:
    raw = sidecar_text(pieces)
    ours = parse_sidecar(raw, "x")
    places = sorted((start, p.size, p.sha256) for p in ours.pieces for start in p.starts)
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"vectors-{os.getpid()}.sqsh"
    beside = path.with_name(path.name + ".json")
    beside.write_bytes(raw)
    try:
        theirs = read_sidecar(path)
    finally:
        beside.unlink()
    assert theirs is not None
    assert [(size, sha) for _, size, sha in places] == [(p.size, p.sha256) for p in theirs.pieces]
    assert (ours.size, ours.digest) == (theirs.size, theirs.digest)


@pytest.mark.parametrize(
    "text",
    [
        'realm="https://a/t",service="b",scope="repository:x:pull"',
        'realm = "https://a/t" , error="a \\"b\\" c"',
        "realm=https://a/t,service=x",
        "",
        'Realm="https://a"',
    ],
)
def test_challenges_are_read_as_slipway_reads_them(text: str) -> None:
    assert challenge_parameters(text) == parse_challenge(f"Bearer {text}").parameters


class FaultyOrigin(FolderOrigin):
    """A folder whose answers `fault` may change: (bytes of a piece, offset, which try)."""

    def __init__(self, path: Path, fault: Callable[[bytes, int], bytes | None]) -> None:
        super().__init__(path)
        self.where = "origin"
        self.asked: list[int] = []
        self._fault = fault

    def read(self, piece: FilePiece, offset: int) -> Generator[bytes, None, None]:
        self.asked.append(offset)
        data = b"".join(super().read(piece, offset))
        answer = self._fault(data, len(self.asked))
        if answer is not None:
            yield answer
        if answer is None or len(answer) < len(data):
            raise CutError("cut")


def bring(tmp_path: Path, fault: Callable[[bytes, int], bytes | None]) -> tuple[bytes, list[int]]:
    """One piece of an origin with a fault; the file then, and the offsets that were asked for."""
    write_sqsh(tmp_path / "o" / "x.sqsh", [b"abcdefghij"])
    faulty = FaultyOrigin(tmp_path / "o" / "x.sqsh", fault)
    (tmp_path / "n").mkdir()
    file = PartialFile(tmp_path / "n" / "x.sqsh", faulty.describe().sidecar)
    try:
        file.prepare()
        fetch_from_origin(faulty, file, 0, StopRequest())
        return file.path.read_bytes(), faulty.asked
    finally:
        file.close()


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origin, "LONGEST_PAUSE", 0.0)


@pytest.mark.usefixtures("no_pauses")
def test_after_a_cut_it_goes_on_where_it_stopped(tmp_path: Path) -> None:
    content, asked = bring(tmp_path, lambda data, _: data[:3])
    assert (content, asked) == (b"abcdefghij", [0, 3, 6, 9])


@pytest.mark.usefixtures("no_pauses")
def test_a_damaged_piece_is_asked_for_once_more(tmp_path: Path) -> None:
    content, asked = bring(tmp_path, lambda data, n: b"X" * 10 if n == 1 else data)
    assert (content, asked) == (b"abcdefghij", [0, 0])


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (lambda data, _: b"X" * 10, "has other bytes than its sidecar says"),
        (lambda data, _: data + b"more", "sends more than the 10 bytes"),
        (lambda data, _: None, "does not answer to the end"),
    ],
)
def test_an_origin_that_stays_wrong_is_named(
    tmp_path: Path, fault: Callable[[bytes, int], bytes | None], said: str
) -> None:
    with pytest.raises(FetchError, match=f"origin.*{said}"):
        bring(tmp_path, fault)


def test_a_disk_without_room_is_named_before_anything_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sqsh(tmp_path / "o" / "x.sqsh", [b"abc"])
    monkeypatch.setattr(partial_file, "_SPARE_BYTES", 1 << 60)
    with pytest.raises(FetchError, match="MiB free") as caught:
        fetch(tmp_path / "o" / "x.sqsh", tmp_path / "n", monkeypatch)
    assert caught.value.code == NO_SPACE


@pytest.mark.parametrize("name", ["link", "pipe", "folder"])
def test_something_else_in_the_place_of_our_file_is_not_written_to(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sqsh(tmp_path / "o" / "x.sqsh", [b"abc"])
    place = tmp_path / "n" / ".x.sqsh.partial"
    place.parent.mkdir()
    victim = tmp_path / "victim"
    victim.write_text("mine")
    if name == "link":
        place.symlink_to(victim)
    elif name == "pipe":
        os.mkfifo(place)
    else:
        place.mkdir()
    with pytest.raises(FetchError, match=r"\.x\.sqsh\.partial"):
        fetch(tmp_path / "o" / "x.sqsh", tmp_path / "n", monkeypatch)
    assert victim.read_text() == "mine"


@pytest.mark.parametrize(
    "uri",
    ["", "x", "ftp://a/b.sqsh", "registry://h/r", "registry://h/../r:t", "registry://h/r@sha256:1",
     "registry://me:pw@h/r:t", "/fsx/x.tar", "file:///x.sqsh"],
)  # fmt: skip
def test_what_cannot_be_fetched_is_a_usage_error(uri: str) -> None:
    with pytest.raises(LaunchUsageError):
        open_origin(uri, {})


def test_words_that_mean_nothing_are_a_usage_error() -> None:
    for words in ([], ["/a.sqsh", "--to"], ["/a.sqsh", "--to", "x", "--nonsense"]):
        with pytest.raises(LaunchUsageError):
            run_fetch(words, {})


def launched(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", str(LAUNCHER), "fetch", *words, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def test_of_several_processes_one_fetches_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    pieces = [os.urandom(200_000) for _ in range(20)]
    with ServedFile(pieces, slow=0.1) as (host, asked):
        words = [f"registry://{host}/r:t", "--to", str(tmp_path / "n")]
        first = launched(*words)
        deadline = time.monotonic() + 30
        while len(asked) < 10 and time.monotonic() < deadline:
            time.sleep(0.02)
        first.send_signal(signal.SIGKILL)
        first.communicate()
        before = len(asked)
        others = [launched(*words) for _ in range(3)]
        results = [json.loads(process.communicate()[0]) for process in others]
    assert {Path(result["path"]).read_bytes() for result in results} == {b"".join(pieces)}
    assert sum(result["from_origin"] > 0 for result in results) == 1
    # Fetched again is only what was on its way: each of eight threads had one piece.
    assert before >= 10
    assert len(asked) <= 20 + ALONE_TAKES


HOSTILE: dict[str, tuple[Callable[[str, int, dict[str, str], bytes], Any], str]] = {
    "another manifest": (
        lambda path, status, headers, data: (
            (200, {}, data + b" ") if "manifests/sha256" in path else None
        ),
        "answers with something else",
    ),
    "a manifest that is no JSON": (
        lambda path, status, headers, data: (200, {}, b"<html>") if "manifests/t" in path else None,
        "no JSON",
    ),
    "a manifest without end": (
        lambda path, status, headers, data: (
            (200, {}, b" " * (5 << 20)) if "manifests/t" in path else None
        ),
        "more than 4194304 bytes",
    ),
    "no referrers": (
        lambda path, status, headers, data: (404, {}, b"") if "referrers" in path else None,
        r"has no \.sqsh: `./inv sqsh NAME --push`",
    ),
    "referrers that are none of ours": (
        lambda path, status, headers, data: (
            (
                200,
                {},
                b'{"manifests": [{"digest": "../x", "artifactType": "x"}, 5, null]}',
            )
            if "referrers" in path
            else None
        ),
        r"has no \.sqsh",
    ),
    "a redirect to a file": (
        lambda path, status, headers, data: (307, {"Location": "file:///etc/passwd"}, b""),
        "sends us to 'file:///etc/passwd'",
    ),
    "a redirect in a circle": (
        lambda path, status, headers, data: (307, {"Location": path}, b""),
        "redirects more than 5 times",
    ),
    "a refused login": (
        lambda path, status, headers, data: (401, {"WWW-Authenticate": "Basic"}, b""),
        "refuses this login",
    ),
    "a token of a stranger over http": (
        lambda path, status, headers, data: (
            401,
            {"WWW-Authenticate": 'Bearer realm="http://evil.example/token"'},
            b"",
        ),
        "not https",
    ),
    "another sidecar": (
        lambda path, status, headers, data: (
            (200, {}, data.replace(b"b1", b"b2")) if b"slipway-sqsh/4" in data else None
        ),
        "answers with something else",
    ),
    "wrong bytes in a piece": (
        lambda path, status, headers, data: (
            (200, {}, b"X" * len(data)) if len(data) == 1000 else None
        ),
        "has other bytes than its sidecar says",
    ),
    "a piece that does not end": (
        lambda path, status, headers, data: (200, {}, data * 9) if len(data) == 1000 else None,
        "sends more than",
    ),
    "another range": (
        lambda path, status, headers, data: (
            (206, {"Content-Range": "bytes 5-9/10"}, data) if len(data) == 1000 else None
        ),
        "another range",
    ),
}


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_registry_that_lies_is_refused_by_name_and_leaves_nothing(
    name: str, tmp_path: Path
) -> None:
    spoil, said = HOSTILE[name]
    pieces = [b"a" * 1000, b"b" * 1001]
    with (
        ServedFile(pieces, spoil=spoil) as (host, _),
        pytest.raises(FetchError, match=said) as caught,
    ):
        fetch_sqsh(FetchRequest(f"registry://{host}/r:t", tmp_path / "n"), {})
    assert caught.value.code == FETCH_SHORT
    assert list(tmp_path.rglob("*.sqsh")) == []


@pytest.mark.parametrize("name", ["../x.sqsh", "/etc/x.sqsh", "x", ".x.sqsh", "a\n.sqsh", ""])
def test_a_name_that_leads_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    with (
        ServedFile([b"a"], name=name) as (host, _),
        pytest.raises(FetchError, match=r"no name of a \.sqsh"),
    ):
        fetch_sqsh(FetchRequest(f"registry://{host}/r:t", tmp_path / "n"), {})


def test_a_login_goes_to_its_own_host_alone(tmp_path: Path) -> None:
    pieces = [b"a" * 1000]
    (tmp_path / "config.json").write_text("{}")
    with ServedFile(pieces) as (storage, _):

        def spoil(path: str, status: int, headers: dict[str, str], data: bytes) -> Any:
            if "Authorization" not in headers:
                return 401, {"WWW-Authenticate": 'Basic realm="x"'}, b""
            if "blobs" in path:
                return 307, {"Location": f"http://{storage}{path}"}, b""
            return None

        door = ServedFile(pieces, spoil=spoil)
        behind = ServedFile(pieces)
        with door as (host, _):
            env = {"SLIPWAY_REGISTRY_LOGIN": f"{host}=me:hush", "DOCKER_CONFIG": str(tmp_path)}
            result = fetch_sqsh(FetchRequest(f"registry://{host}/r:t", tmp_path / "n"), env)
            assert result.path.read_bytes() == b"".join(pieces)
        assert any("Authorization" in headers for headers in door.headers)
        assert not any("Authorization" in headers for headers in behind.headers)


@pytest.mark.parametrize(
    ("config", "login"),
    [
        ({"auths": {"h:1": {"auth": "bWU6aHVzaA=="}}}, "me:hush"),
        ({"auths": {"https://h:1/v1/": {"auth": "bWU6aHVzaA=="}}}, "me:hush"),
        ({"auths": {"h:1": {}, "https://h:1": {"auth": "bWU6aHVzaAA="}}}, "me:hush"),
        ({"credsStore": "nobody-has-this", "auths": {"h:1": {"auth": "bWU6aHVzaA=="}}}, "me:hush"),
        ({"auths": {"h:12": {"auth": "bWU6aHVzaA=="}, "h": {"auth": "bWU6aHVzaA=="}}}, ""),
        ({"auths": {"other": {"auth": "bWU6aHVzaA=="}}}, ""),
        ({"auths": {"h:1": {"auth": "***"}}}, ""),
        ({"auths": []}, ""),
        ({"credHelpers": {"h:1": "../../bin/sh"}}, ""),
        ({"credHelpers": {"h:1": "nobody-has-this"}}, ""),
        ([], ""),
    ],
)
def test_logins_are_those_of_docker(config: Any, login: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert RegistryLogins("h:1", {"DOCKER_CONFIG": str(tmp_path)}).find() == login


@pytest.mark.parametrize("place", ["/v2/r/referrers/next", "?page=2", "http://elsewhere/v2/r/x"])
def test_a_file_may_stand_on_a_later_page_of_an_images_referrers(
    place: str, tmp_path: Path
) -> None:
    pieces = [b"a" * 1000]

    def spoil(path: str, status: int, headers: dict[str, str], data: bytes) -> Any:
        if "referrers" not in path:
            return None
        if path.endswith(("next", "page=2")):
            return 200, {}, pages["index"]
        pages["index"] = data
        return 200, {"Link": f'<{place}>; rel="next"'}, b'{"manifests": []}'

    pages: dict[str, bytes] = {}
    with ServedFile(pieces, spoil=spoil) as (host, _):
        request = FetchRequest(f"registry://{host}/r:t", tmp_path / "n")
        if "elsewhere" in place:
            with pytest.raises(FetchError, match="sends us on to"):
                fetch_sqsh(request, {})
        else:
            assert fetch_sqsh(request, {}).path.read_bytes() == b"".join(pieces)


def test_a_login_that_is_refused_makes_room_for_the_next(tmp_path: Path) -> None:
    """ECR answers 403 to a login of docker that has ended, and names no challenge with it."""
    pieces = [b"a" * 1000]

    def spoil(path: str, status: int, headers: dict[str, str], data: bytes) -> Any:
        if "Authorization" not in headers:
            return 401, {"WWW-Authenticate": 'Basic realm="x"'}, b""
        return None if headers["Authorization"] == "Basic bWU6aHVzaA==" else (403, {}, b"")

    with ServedFile(pieces, spoil=spoil) as (host, _):
        (tmp_path / "config.json").write_text(
            json.dumps({"auths": {host: {"auth": "bWU6aHVzaA=="}}})
        )
        env = {"SLIPWAY_REGISTRY_LOGIN": f"{host}=me:ended", "DOCKER_CONFIG": str(tmp_path)}
        result = fetch_sqsh(FetchRequest(f"registry://{host}/r:t", tmp_path / "n"), env)
        assert result.path.read_bytes() == b"".join(pieces)
        (tmp_path / "config.json").write_text("{}")
        with pytest.raises(FetchError, match=r"refuses this login \(403\)"):
            fetch_sqsh(FetchRequest(f"registry://{host}/r:t", tmp_path / "m"), env)


def test_after_a_login_of_docker_the_aws_command_is_asked_for_ecr(tmp_path: Path) -> None:
    host = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
    (tmp_path / "config.json").write_text(json.dumps({"auths": {host: {"auth": "QVdTOm9sZA=="}}}))
    command = tmp_path / "aws"
    command.write_text('#!/bin/sh\n[ "$4" = eu-central-1 ] && echo fresh\n')
    command.chmod(0o755)
    env = {"DOCKER_CONFIG": str(tmp_path), "PATH": f"{tmp_path}:/usr/bin:/bin"}
    logins = RegistryLogins(host, env)
    assert logins.find() == "AWS:old"
    logins.refuse("Basic QVdTOm9sZA==")
    assert logins.find() == "AWS:fresh"
    assert logins.answer("", "", f"https://{host}/v2/a").startswith("Basic ")


def test_an_error_has_one_line_and_a_code(tmp_path: Path) -> None:
    process = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            str(LAUNCHER),
            "fetch",
            str(tmp_path / "x.sqsh"),
            "--to",
            "/x",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == FETCH_SHORT
    assert process.stderr.startswith("launch: FetchError: ")
    assert process.stderr.count("\n") == 1
