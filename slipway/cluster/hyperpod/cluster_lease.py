"""Who works on a cluster: an object in its bucket, which S3 lets one writer make.

Two runs on different machines would each make what the other has not made yet. A run that was
killed leaves its lease behind: on the same machine that is seen at once, elsewhere after a while.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import socket
import time
from collections.abc import Iterator
from typing import Any

from slipway.cluster.aws_account import AwsAccount
from slipway.cluster.hyperpod.account_parts import NO_BUCKET
from slipway.core import Owner, SlipwayError, human_seconds, say, this_process

LEASE = "slipway-lease.json"
LEASE_S = 900.0
"""A lease that was not renewed for so long is nobody's: runs renew theirs every minute."""
RENEW_S = 60.0
_TAKEN = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")


class ClusterLease:
    """Held by this run. `renew` before each step; raises SlipwayError once another run has it."""

    def __init__(self, account: AwsAccount, bucket: str, doing: str) -> None:
        self._account = account
        self._bucket = bucket
        self._words = {
            "doing": doing,
            "user": getpass.getuser(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "owner": str(this_process()),
        }
        self._tag = ""
        self._renewed = 0.0

    def take(self) -> None:
        """Hold it. Raises SlipwayError that names who does."""
        answer = self._put(IfNoneMatch="*")
        if answer is None:
            tag, holder = self._holder()
            if holder is not None and not _is_dead(holder):
                raise _held(holder)
            if holder is not None:
                say(f"note: the run of {_title(holder)} was cut: this one goes on")
            answer = self._put(**({"IfMatch": tag} if tag else {"IfNoneMatch": "*"}))
        if answer is None:
            raise _held(self._holder()[1] or {})
        self._tag = answer["ETag"]

    def renew(self) -> None:
        """Say that this run goes on."""
        if time.monotonic() - self._renewed < RENEW_S:
            return
        answer = self._put(IfMatch=self._tag)
        if answer is None:
            raise _held(self._holder()[1] or {})
        self._tag = answer["ETag"]

    def release(self) -> None:
        """Let go; the bucket may be gone with it."""
        self._account.call("s3", "DeleteObject", NO_BUCKET, Bucket=self._bucket, Key=LEASE)

    def _put(self, **condition: str) -> Any:
        self._renewed = time.monotonic()
        body = json.dumps({**self._words, "time": time.time()}).encode()
        return self._account.call(
            "s3", "PutObject", _TAKEN, Bucket=self._bucket, Key=LEASE, Body=body, **condition
        )

    def _holder(self) -> tuple[str, dict[str, Any] | None]:
        answer = self._account.call(
            "s3", "GetObject", ("NoSuchKey",), Bucket=self._bucket, Key=LEASE
        )
        if answer is None:
            return "", None
        try:
            holder = json.loads(self._account.read_body("s3", "GetObject", answer))
        except (ValueError, RecursionError):
            holder = {}
        return str(answer["ETag"]), holder if isinstance(holder, dict) else {}


@contextlib.contextmanager
def hold_lease(account: AwsAccount, bucket: str, doing: str) -> Iterator[ClusterLease]:
    """Hold a cluster's lease until the end of the block."""
    lease = ClusterLease(account, bucket, doing)
    lease.take()
    try:
        yield lease
    finally:
        lease.release()


def _is_dead(holder: dict[str, Any]) -> bool:
    """Whether the run that left it has ended without letting go."""
    written = holder.get("time")
    if not isinstance(written, float) or time.time() - written > LEASE_S:
        return True
    owner = Owner.parse(str(holder.get("owner")))
    return owner is not None and owner.is_gone


def _title(holder: dict[str, Any]) -> str:
    return f"{holder.get('user', 'somebody')}@{holder.get('host', 'another machine')}"


def _held(holder: dict[str, Any]) -> SlipwayError:
    written = holder.get("time")
    age = f", {human_seconds(time.time() - written)} ago" if isinstance(written, float) else ""
    return SlipwayError(
        f"{_title(holder)} is at work on this cluster: inv {holder.get('doing', 'cluster.up')} "
        f"(pid {holder.get('pid', '?')}){age}",
        cure="Wait for it to end. A run that was killed on another machine counts as ended "
        f"{human_seconds(LEASE_S)} after its last sign.",
    )
