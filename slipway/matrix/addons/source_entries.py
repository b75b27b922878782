"""An add-on that a script builds: how it is written in versions.yaml, and what must hold of it."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from slipway.matrix.field_types import (
    Entry,
    PlainPath,
    RepositoryPath,
    matching,
    refuse,
)
from slipway.matrix.model import SourceBuild, SourceInput

_INPUT_NAME = "[A-Za-z0-9_][A-Za-z0-9_.+-]{0,199}"

_SYSTEM_FOLDERS = """
    / /bin /boot /dev /etc /home /lib /lib64 /mnt /opt /proc /root /run /sbin /srv /sys /tmp /usr
    /usr/bin /usr/include /usr/lib /usr/lib64 /usr/local /usr/local/bin /usr/local/lib /usr/sbin
    /usr/share /var
"""
SYSTEM_FOLDERS = frozenset(_SYSTEM_FOLDERS.split())
"""Folders of the base, which a build would copy whole into the image as if it had made them."""


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("https", "http") or not parts.hostname or not text.isprintable():
        raise refuse(f"{text!r} is no address of a file", "as https://example.com/a-1.0.tar.gz")
    if parts.username or parts.password:
        raise refuse(
            "the address has a name or password in it, and this file is committed",
            "put them into ~/.netrc, which is read for the host",
        )
    return text


def _command(text: str) -> str:
    if not text.isprintable():
        raise refuse("the check is more than a line of text", "put a script into the image")
    return text


def _own_folder(text: str) -> str:
    folder = text.rstrip("/") or "/"
    if folder in SYSTEM_FOLDERS or set(folder.split("/")) & {".", ".."}:
        raise refuse(
            f"{text} is a folder of the base, and all that is in it would be copied",
            "name one of its own, as /opt/nccl-tests",
        )
    return folder


def _below(text: str) -> str:
    if text.startswith("/") or set(text.split("/")) & {"", ".", ".."} or not text.isprintable():
        raise refuse(f"{text!r} is no path below `folder`", "as bin/all_reduce_perf")
    return text


class InputEntry(Entry):
    """A file from elsewhere that a build gets."""

    url: Annotated[str, AfterValidator(_url)]
    sha256: Annotated[str, matching("^[0-9a-f]{64}$")]


class SourceEntry(Entry):
    """What a script of the repository builds on the base, without network."""

    script: RepositoryPath
    folder: Annotated[PlainPath, AfterValidator(_own_folder)]
    inputs: dict[Annotated[str, matching(f"^{_INPUT_NAME}$")], InputEntry] = {}
    gives: Annotated[list[Annotated[str, AfterValidator(_below)]], Field(max_length=1000)] = []


CheckCommand = Annotated[str, matching("."), AfterValidator(_command)]
"""A line for /bin/sh that succeeds in an image that is right."""


def source_build(entry: SourceEntry) -> SourceBuild:
    """The build that an entry describes."""
    inputs = (SourceInput(name, each.url, each.sha256) for name, each in entry.inputs.items())
    return SourceBuild(entry.script, entry.folder, tuple(inputs), tuple(entry.gives))
