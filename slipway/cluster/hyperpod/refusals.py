"""What AWS refuses, in its own words, with the field and the line of the cluster's file."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from slipway.cluster.aws_account import refusal_code
from slipway.cluster.documents import ClusterFile, ClusterRequest
from slipway.core import SlipwayError
from slipway.registry import RegistryError

_FIELD = re.compile(r"at '([A-Za-z0-9.]+)'")
_LIMITS = ("ResourceLimitExceeded", "ServiceLimitExceeded")
_STATES = ("ConflictException", "ResourceInUse")
_OURS = ("Throttling", "ThrottlingException", "AccessDeniedException")


@contextlib.contextmanager
def file_errors(
    cluster: ClusterFile,
    place: tuple[str | int, ...] = (),
    request: ClusterRequest | None = None,
) -> Iterator[None]:
    """Say of a refusal which line of the file it is about: `place`, or what its words name."""
    try:
        yield
    except RegistryError as error:
        code = refusal_code(error)
        if not code or code in _OURS:
            raise  # nothing in the file is wrong
        field = refused_field(error.what)
        found = request.place(field) if request and field else place
        if not found:
            found = named_instance(cluster, error.what) or place
        cure = error.cure
        if code in _LIMITS:
            cure = (
                "Ask for more in Service Quotas (SageMaker), or use fewer nodes, another type or "
                f"region; what there is stays, and `./inv cluster.up {cluster.path}` goes on."
            )
        if code in _STATES:
            cure = (
                "The cluster is in a state that forbids it: `./inv cluster.status "
                f"{cluster.path}` says in which; wait for it, and run the same again."
            )
        raise SlipwayError(error.what, where=cluster.where(found), cure=cure) from error


def refused_field(text: str) -> tuple[str | int, ...]:
    """The member of the request that a ValidationException names, as the model spells it.

    AWS writes it with small first letters and numbers lists from 1:
    instanceGroups.2.member.instanceType.
    """
    match = _FIELD.search(text)
    if match is None:
        return ()
    path: list[str | int] = []
    for word in match[1].split("."):
        if word.isdecimal():
            path.append(int(word) - 1)
        elif word != "member":
            path.append(word[:1].upper() + word[1:])
    return tuple(path)


def named_instance(cluster: ClusterFile, text: str) -> tuple[str | int, ...]:
    """The place of the instance type that a text names."""
    for place, instance, _ in cluster.instance_counts():
        if re.search(rf"\b{re.escape(instance)}\b", text):
            return place
    return ()
