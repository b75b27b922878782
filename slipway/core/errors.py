"""The one error type that a person sees: what happened, where, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from slipway.core.redaction import redact

DONE = 0
FAILED = 1
DRIFT = 2
USAGE = 3
HUNG_UP = 129
INTERRUPTED = 130
TERMINATED = 143

DOCUMENT_FAULTS = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What reading a JSON document raises that is none, or has another shape than the reader knows."""


def printable(text: str) -> str:
    """Text for a terminal: control characters, but for line ends and tabs, as escapes.

    What comes from outside may hold sequences that move the cursor, rewrite lines or change the
    title; the marks that turn the direction of writing around hide what a name is.
    """
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or character in "\n\t"
        else character.encode("unicode_escape").decode()
        for character in text
    )


def error_text(error: BaseException) -> str:
    """What an exception says, fit to be shown; its class where it says nothing, or cannot."""
    try:
        text = str(error).strip()
    except Exception:  # noqa: BLE001  some libraries' exceptions fail to describe themselves
        text = ""
    return redact(printable(text)) or type(error).__name__


class SlipwayError(Exception):
    """An expected failure. Printed as one short paragraph, never as a traceback.

    `what` says what happened; `where` names the place (``file:line``, a URI, a log file);
    `cure` says what to do about it. `exit_code` follows the CLI conventions: 1 failed,
    2 drift or stale, 3 usage or bad input.
    """

    exit_code = FAILED

    def __init__(self, what: str, *, where: str | None = None, cure: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.cure = cure

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return redact(printable(f"{text}\n  {self.cure}" if self.cure else text))


class DriftError(SlipwayError):
    """Something committed or recorded no longer agrees with what it is made from."""

    exit_code = DRIFT


class UsageError(SlipwayError):
    """Wrong arguments or bad input; nothing was done."""

    exit_code = USAGE


class ProcessError(SlipwayError):
    """A program could not be started."""


class TreeError(SlipwayError):
    """A tree of files could not be read, flushed or removed."""


class BadInputError(UsageError):
    """Several independent errors of one input, reported together."""

    def __init__(self, errors: list[SlipwayError]) -> None:
        super().__init__("\n".join(str(error) for error in errors))
        self.errors = errors


UNREADABLE = "unreadable"
"""What stands in a list where an entry's own value would."""

_ENTRIES_SHOWN = 20


class EntryFaults:
    """Collects faults of single entries, so that one of them hides none of the others.

    Who reads many things reads each inside of `skip`, and who shows them calls `raise_any` at the
    end. Safe to share by threads.
    """

    def __init__(self) -> None:
        self.errors: list[SlipwayError] = []

    @contextmanager
    def skip(self, *kinds: type[SlipwayError]) -> Iterator[None]:
        """Keep an error of these kinds and go on after the block."""
        try:
            yield
        except kinds as error:
            self.errors.append(error)

    def raise_any(self) -> None:
        """Raise SlipwayError that names each entry that could not be read, if there is one."""
        if not self.errors:
            return
        lines = sorted({str(error) for error in self.errors})
        shown = "\n".join(lines[:_ENTRIES_SHOWN])
        more = f"\nand {len(lines) - _ENTRIES_SHOWN} more" if len(lines) > _ENTRIES_SHOWN else ""
        raise SlipwayError(f"not everything could be read; what could is shown\n{shown}{more}")
