"""AWS as it is for a moment after a change: not everywhere of one mind.

What was made may be unknown to the next calls that name it, and a read may show what was there
before the last change (EC2 developer guide, "Eventual consistency in the Amazon EC2 API"; the codes
are of its page "Error codes for the Amazon EC2 API"). moto knows everything at once.
"""

from __future__ import annotations

import copy
import json
import random
import re
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import botocore.client
import pytest
from botocore.exceptions import ClientError

READS = re.compile(r"Describe|List|Get|Head")
SERVICES = ("ec2", "iam", "fsx")
NEW = re.compile(r'"((?:vpc|igw|subnet|eipalloc|nat|rtb|vpce|sg|fs)-[0-9a-f]+)"')
CODES = {
    "vpc": "InvalidVpcID.NotFound",
    "igw": "InvalidInternetGatewayID.NotFound",
    "subnet": "InvalidSubnetID.NotFound",
    "eipalloc": "InvalidElasticIpID.NotFound",
    "nat": "NatGatewayNotFound",
    "rtb": "InvalidRouteTableID.NotFound",
    "vpce": "InvalidVpcEndpointId.NotFound",
    "sg": "InvalidGroup.NotFound",
    "fs": "FileSystemNotFound",
}


class AwsLag:
    """For each new thing, and each read after a change, up to `most` calls that do not know it."""

    def __init__(self, seed: int, most: int = 3) -> None:
        self._random, self._most = random.Random(seed), most
        self._unknown: dict[str, int] = {}
        self._seen: dict[str, Any] = {}  # read -> the answer before the last change
        self._stale: dict[str, int] = defaultdict(int)
        self.missed = 0

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Stand before every call that leaves botocore."""
        client_class: Any = botocore.client.BaseClient
        send = client_class._make_api_call
        lag = self

        def call(client: Any, operation: str, parameters: dict[str, Any]) -> Any:
            service = client.meta.service_model.service_name
            if service not in SERVICES:
                return send(client, operation, parameters)
            lag._refuse_unknown(operation, parameters)
            if READS.match(operation):
                read = f"{service} {operation} {parameters}"
                return lag._read(read, lambda: send(client, operation, parameters))
            answer = send(client, operation, parameters)
            lag._learn(parameters, answer)
            return answer

        monkeypatch.setattr(client_class, "_make_api_call", call)

    def settle(self) -> None:
        """From here on all that has happened is known."""
        self._unknown.clear()
        self._stale.clear()

    def _count(self) -> int:
        return self._random.randint(0, self._most)

    def _learn(self, parameters: dict[str, Any], answer: Any) -> None:
        """A change: what it made is new, and every read may be of before."""
        known = NEW.findall(json.dumps(parameters, default=str))
        for identifier in NEW.findall(json.dumps(answer, default=str)):
            if identifier not in known and identifier not in self._unknown:
                self._unknown[identifier] = self._count()
        for read in self._seen:
            self._stale[read] = self._count()

    def _refuse_unknown(self, operation: str, parameters: dict[str, Any]) -> None:
        for identifier in NEW.findall(json.dumps(parameters, default=str)):
            if self._unknown.get(identifier, 0) > 0:
                self._unknown[identifier] -= 1
                self.missed += 1
                code = CODES[identifier.partition("-")[0]]
                words = f"The ID '{identifier}' does not exist"
                raise ClientError({"Error": {"Code": code, "Message": words}}, operation)

    def _read(self, read: str, send: Callable[[], Any]) -> Any:
        if self._stale[read] > 0:
            self._stale[read] -= 1
            self.missed += 1
            before = self._seen[read]
            if isinstance(before, ClientError):
                raise before
            return copy.deepcopy(before)
        try:
            answer = send()
        except ClientError as error:
            self._seen[read] = error
            raise
        self._seen[read] = copy.deepcopy(answer)
        return answer
