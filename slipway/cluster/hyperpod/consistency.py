"""What AWS was told a moment ago is not known everywhere at once: calls are made again, parts are
looked for until they are seen.

EC2 developer guide, "Eventual consistency in the Amazon EC2 API"; IAM user guide, "Changes that I
make are not always immediately visible"; S3 user guide, "Amazon S3 data consistency model" (of
buckets themselves). As met by others: hashicorp/terraform#5335, #6813 and #7527,
ansible-collections/amazon.aws#1872; a bucket's name: aws/aws-cli#2593.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TypeVar

from slipway.cluster.aws_account import refusal_code
from slipway.core import SlipwayError, human_seconds, say

KNOWN_S, NAME_FREE_S, POLL_S = 120.0, 3600.0, 5.0
"""How long what was made may be unknown, and a deleted bucket's name taken; how often is asked."""

_UNKNOWN = re.compile(r"NotFound$|^NoSuch(Entity|Bucket)$")
_ROLE_UNKNOWN = re.compile(r"(?i)\bassume\b[^.]*\brole\b|\brole\b[^.]*\bassume\b")
_NAME_TAKEN = "OperationAborted"

Answer = TypeVar("Answer")


def is_unknown(code: str) -> bool:
    """Whether AWS says with a code that something is not there: not yet, or not any more."""
    return _UNKNOWN.search(code) is not None


def retry_while_unknown(call: Callable[[], Answer]) -> Answer:
    """Make a call again that AWS refuses because it does not know yet what was made before.

    For calls that name only what this run has made or found. Raises as `call`, once that has
    lasted too long.
    """
    started = told = time.monotonic()
    while True:
        try:
            return call()
        except SlipwayError as error:
            reason, patience = _passing(error)
            if time.monotonic() - started >= patience:
                raise
        if told == started or time.monotonic() - told >= 60:
            waited = human_seconds(time.monotonic() - started)
            say(f"{reason}; asking again{'' if told == started else f', since {waited}'}")
            told = time.monotonic()
        time.sleep(POLL_S)


def _passing(error: SlipwayError) -> tuple[str, float]:
    """What is waited for after a refusal, and for how many seconds at most (0: it stays)."""
    code = refusal_code(error)
    if code == _NAME_TAKEN:
        return "S3 has not let go of the name of a bucket that was deleted", NAME_FREE_S
    if is_unknown(code) or code == "Gateway.NotAttached":
        return "AWS does not know everywhere yet what was made a moment ago", KNOWN_S
    if _ROLE_UNKNOWN.search(error.what):
        return "AWS does not know the new role everywhere yet", KNOWN_S
    return "", 0.0


def find_when_known(find: Callable[[], str | None]) -> str | None:
    """Look for what was made until it is seen; None where that takes too long."""
    end = time.monotonic() + KNOWN_S
    while (found := find()) is None and time.monotonic() < end:
        time.sleep(POLL_S)
    return found
