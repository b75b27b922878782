"""Configuration files of other programs as text and back, byte for byte where nothing changed.

dockerd takes the encoding of daemon.json from a byte order mark, and UTF-8 without one
(moby/moby:daemon/config, getConflictFreeConfiguration, 23.0 and newer). A file without a mark may
hold any bytes, in a comment or a string: they go through as they are (PEP 383).
"""

from __future__ import annotations

import codecs
import errno
from dataclasses import dataclass
from pathlib import Path

from slipway.core import UsageError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


@dataclass(frozen=True)
class TextFile:
    """A file's text, with what is needed to write another one in the same way."""

    text: str
    mark: bytes = b""
    encoding: str = "utf-8"

    def encode(self, text: str) -> bytes:
        """Another text as this file has its own."""
        return self.mark + text.encode(self.encoding, _errors(self.mark))


def decode_text(data: bytes | None, path: Path, *, wide: bool = False) -> TextFile:
    """A file's bytes as text; None is an empty file.

    `wide`: its program reads UTF-16. Raises UsageError, with the line, for what it cannot read.
    """
    data = data or b""
    mark, encoding = next((known for known in _MARKS if data.startswith(known[0])), (b"", "utf-8"))
    body = data[len(mark) :]
    what, line = "this is UTF-16, which its program does not read", 1
    if wide or encoding == "utf-8":
        try:
            return TextFile(body.decode(encoding, _errors(mark)), mark, encoding)
        except UnicodeDecodeError as error:
            what = f"this is not {encoding.upper()}, as its first bytes promise"
            line += body[: error.start].decode(encoding, "replace").count("\n")
    raise UsageError(what, where=f"{path}:{line}", cure="Save it as UTF-8; nothing was changed.")


def _errors(mark: bytes) -> str:
    return "strict" if mark else "surrogateescape"


def read_text_file(path: Path, *, wide: bool = False) -> TextFile:
    """A file as text; one that is missing is empty. Raises UsageError."""
    try:
        if path.is_fifo():
            raise OSError(errno.EINVAL, "It is a pipe")  # reading would wait for a writer
        data = path.read_bytes()
    except FileNotFoundError:
        data = b""
    except OSError as error:
        raise UsageError(
            f"this cannot be read: {error.strerror}",
            where=str(path),
            cure="Use sudo."
            if isinstance(error, PermissionError)
            else "Put a file there, or take it away; nothing was changed.",
        ) from error
    return decode_text(data, path, wide=wide)
