"""The edge to AWS: one place where calls leave, and where refusals become errors."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from slipway.registry import aws_errors, connect_aws, tolerate


def refusal_code(error: BaseException) -> str:
    """AWS's code for why a call was refused ("" where AWS did not answer at all)."""
    cause = error.__cause__
    while cause is not None:
        if response := getattr(cause, "response", None):
            return str(response.get("Error", {}).get("Code", ""))
        cause = cause.__cause__
    return ""


class AwsAccount:
    """Calls to the services of one region. They raise SlipwayError with AWS's own words."""

    def __init__(self, region: str) -> None:
        self.region = region
        self._clients: dict[str, Any] = {}

    def call(
        self, service: str, operation: str, missing: Collection[str] = (), **parameters: Any
    ) -> Any:
        """What AWS answers; None where it refuses with one of the codes in `missing`."""
        from botocore import xform_name

        method = getattr(self._client(service), xform_name(operation))
        with aws_errors(f"{service}:{operation}", self.region), tolerate(*missing):
            return method(**parameters)
        return None

    def read_body(self, service: str, operation: str, answer: Any) -> bytes:
        """What follows an answer as a stream, which may end before all of it came."""
        with aws_errors(f"{service}:{operation}", self.region):
            return bytes(answer["Body"].read())

    def pages(self, service: str, operation: str, key: str, **parameters: Any) -> Iterator[Any]:
        """The entries under `key` of every page of an answer."""
        from botocore import xform_name

        paginator = self._client(service).get_paginator(xform_name(operation))
        with aws_errors(f"{service}:{operation}", self.region):
            for page in paginator.paginate(**parameters):
                yield from page.get(key, ())

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = connect_aws(service, self.region)
        return self._clients[service]
