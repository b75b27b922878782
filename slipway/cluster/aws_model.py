"""What AWS would refuse of a request, as far as botocore's model of the call knows. No network.

botocore itself checks types, required members and lower bounds before it sends; patterns, lengths
and enumerations it leaves to the service.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from slipway.core import UsageError, did_you_mean

if TYPE_CHECKING:
    from botocore.model import OperationModel, ServiceModel

_SHOWN_VALUES = 12


@dataclass(frozen=True)
class RequestFault:
    """One member of a request that breaks its model. `path` leads to it, () is the request."""

    path: tuple[str | int, ...]
    what: str

    @property
    def field(self) -> str:
        """The path as it is written: InstanceGroups[1].InstanceType."""
        text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.path)
        return text.removeprefix(".") or "the request"


@functools.cache
def _service_model(service: str) -> ServiceModel:
    """Megabytes of JSON for some services: read once, whatever is asked of it."""
    import botocore.session

    return botocore.session.get_session().get_service_model(service)


def operation_model(service: str, name: str) -> OperationModel:
    """botocore's model of a call."""
    return _service_model(service).operation_model(name)


def request_faults(service: str, name: str, parameters: Mapping[str, Any]) -> list[RequestFault]:
    """All that AWS would refuse; nothing where the model has no objection."""
    from botocore.validate import ParamValidator

    shape = operation_model(service, name).input_shape
    if shape is None:
        return []
    report = ParamValidator().validate(dict(parameters), shape)
    if report.has_errors():
        return [RequestFault((), " ".join(report.generate_report().split()))]
    return list(_faults(dict(parameters), shape, ()))


def check_parameters(service: str, name: str, **parameters: Any) -> None:
    """Raise UsageError where AWS would refuse what a user has named, before it is asked."""
    faults = request_faults(service, name, parameters)
    if faults:
        given = " ".join(repr(value) for value in parameters.values())
        raise UsageError(
            f"{given} cannot be: " + "; ".join(f"{fault.field} {fault.what}" for fault in faults)
        )


def _faults(value: Any, shape: Any, path: tuple[str | int, ...]) -> Iterator[RequestFault]:
    if isinstance(value, dict) and shape.type_name == "structure":
        for name, member in value.items():
            yield from _faults(member, shape.members[name], (*path, name))
    elif isinstance(value, dict):
        for name, member in value.items():
            yield from _faults(name, shape.key, (*path, name))
            yield from _faults(member, shape.value, (*path, name))
    elif isinstance(value, list):
        for number, member in enumerate(value):
            yield from _faults(member, shape.member, (*path, number))
    rules: Mapping[str, Any] = shape.metadata
    size = len(value) if isinstance(value, str | list | dict) else value
    counted = isinstance(size, int) and not isinstance(size, bool)
    low, high = rules.get("min", 0), rules.get("max", size)
    if counted and not low <= size <= high:
        yield RequestFault(path, f"has {size}, and the bounds are {low} and {high}")
    if isinstance(value, str):
        yield from _text_faults(value, rules, path)


def _text_faults(
    value: str, rules: Mapping[str, Any], path: tuple[str | int, ...]
) -> Iterator[RequestFault]:
    pattern = rules.get("pattern", "")
    # Unicode classes are Java's; what has them is left to AWS.
    if pattern and "\\p{" not in pattern and not re.fullmatch(pattern, value):
        yield RequestFault(path, f"is {value!r}, which is not of the form {pattern}")
    known = rules.get("enum", [value])
    if value not in known:
        words = did_you_mean(value, known)
        words = f" ({', '.join(known)})" if len(known) <= _SHOWN_VALUES else words
        yield RequestFault(path, f"is {value!r}, which AWS does not have{words}")
