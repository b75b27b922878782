"""Fetch files by hash with the host's pip; run as a program, one JSON request on standard input.

`pip download` cannot be used for sdists: to learn what it knows already it runs their setup.py on
the host, with build requirements that nothing pins (pypa/pip#7995). So this asks pip for its
index, proxies, certificates and logins, and takes the files as they are. pip says nothing about
these modules staying as they are; pip-tools has used the same ones for years
(jazzband/pip-tools:piptools/repositories/pypi.py), and a pip that has changed them is reported.

Answers are JSON lines: ``{"name", "received", "total"}`` while a file comes,
``{"name", "sha256", "path"}`` when it is whole, ``{"name", "error", "detail"}`` when it is not.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

STEP = 4 << 20
"""Bytes between two progress lines."""

AT_ONCE = 4
"""Files at a time: most are small, and an index answers in a tenth of a second or more."""

_saying = threading.Lock()


def print_line(**line: Any) -> None:
    """One line of the answer."""
    with _saying:
        print(json.dumps(line), flush=True)


class UnreachedError(logging.Handler):
    """Index pages that could not be read. pip only logs that, and goes on as if they were empty.

    A 404 is an index that does not have the package, which is ordinary with several indexes.
    """

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message of pip's collector about a page that it skips."""
        text = record.getMessage()
        if text.startswith("Could not fetch URL") and "404" not in text:
            self.messages.append(text)


unreached = UnreachedError()


class IndexSource:
    """Where the host's pip gets its files from."""

    def __init__(self, python: str, platforms: list[str], indexes: list[str]) -> None:
        """Raises ImportError, AttributeError or TypeError where this pip is built otherwise."""
        from pip._internal.cli.cmdoptions import make_target_python
        from pip._internal.commands import create_command

        command: Any = create_command("download")
        arguments = ["--no-cache-dir", "--python-version", python, "--implementation", "cp", "x"]
        for platform in platforms:
            arguments += ["--platform", platform]
        for index in indexes:
            arguments += ["--extra-index-url", index]
        options, _ = command.parse_args(arguments)
        self.session = command._build_session(options)
        self.finder = command._build_package_finder(
            options=options,
            session=self.session,
            target_python=make_target_python(options),
            ignore_requires_python=True,
        )

    def links(self, name: str, version: str, hashes: set[str]) -> list[Any]:
        """Links that have or may have one of the hashes; those that say so first."""
        sure, unsure = [], []
        for candidate in self.finder.find_all_candidates(name):
            link = candidate.link
            if link.hash_name == "sha256" and link.hash in hashes:
                sure.append(link)
            elif link.hash_name != "sha256" and str(candidate.version) == version:
                unsure.append(link)
        return sure + unsure

    def read(self, link: Any) -> tuple[Iterator[bytes], int]:
        """The bytes of a link as they come, and how many there should be (0: not said)."""
        # The file itself: a server may otherwise send a .tar.gz with its gzip taken off.
        headers = {"Accept-Encoding": "identity"}
        response = self.session.get(link.url_without_fragment, headers=headers, stream=True)
        response.raise_for_status()
        return response.iter_content(1 << 18), int(response.headers.get("Content-Length") or 0)


def fetch_files(source: IndexSource, wanted: dict[str, Any], folder: Path) -> None:
    """Fetch one pin into ``folder/<sha256>/<file name>``, or say why not."""
    name, version, hashes = wanted["name"], wanted["version"], set(wanted["sha256"])
    for link in source.links(name, version, hashes):
        partial, sha = _receive(source, name, link, folder)
        if sha in hashes:
            path = folder / sha / link.filename
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.chmod(0o644)
            partial.replace(path)
            print_line(name=name, sha256=sha, path=str(path))
            return
        partial.unlink()
        if link.hash_name == "sha256":
            print_line(name=name, error="hash mismatch", detail=f"{link.filename} has sha256 {sha}")
            return
    if unreached.messages:
        print_line(name=name, error="network", detail=unreached.messages[0])
    else:
        print_line(name=name, error="not offered", detail=f"{name} {version}")


def _receive(source: IndexSource, name: str, link: Any, folder: Path) -> tuple[Path, str]:
    chunks, total = source.read(link)
    digest = hashlib.sha256()
    received = told = 0
    handle, partial = tempfile.mkstemp(prefix=f".partial-{os.getpid()}-", dir=folder)
    try:
        with os.fdopen(handle, "wb") as stream:
            for chunk in chunks:
                stream.write(chunk)
                digest.update(chunk)
                received += len(chunk)
                if received - told >= STEP:
                    told = received
                    print_line(name=name, received=received, total=total)
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:
        Path(partial).unlink()
        raise
    return Path(partial), digest.hexdigest()


def main() -> None:
    """Read the request, fetch, answer."""
    request = json.load(sys.stdin)
    folder = Path(request["folder"])
    collector = logging.getLogger("pip._internal.index.collector")
    collector.setLevel(logging.DEBUG)
    collector.addHandler(unreached)
    sources = threading.local()  # neither pip's finder nor its session is made for threads
    from pip._vendor.requests.exceptions import RequestException

    def one(wanted: dict[str, Any]) -> None:
        try:
            if not hasattr(sources, "mine"):
                sources.mine = IndexSource(
                    request["python"], request["platforms"], request["indexes"]
                )
            fetch_files(sources.mine, wanted, folder)
        except (RequestException, OSError) as error:
            print_line(
                name=wanted["name"], error="network", detail=f"{type(error).__name__}: {error}"
            )
        except (ImportError, AttributeError, TypeError) as error:
            print_line(name=wanted["name"], error="pip", detail=f"{type(error).__name__}: {error}")

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(one, request["wanted"]):
            pass


if __name__ == "__main__":
    main()
