from __future__ import annotations

import pytest

from slipway.core import SlipwayError, UsageError, anonymous
from slipway.inventory import run_settings
from slipway.matrix import Registry
from slipway.records import BaseLock
from slipway.registry import (
    ImageMissingError,
    NoCredentialsError,
    NotAuthorisedError,
    RegistryUnavailableError,
)
from slipway.resolve.base_lookup import (
    merge_base_lock,
    require_architecture,
    resolve_base,
    unresolved_reason,
)
from tests.support.lock_samples import base

OLD = BaseLock("b", digest="sha256:old", media_type="m", size=1, packages={"torch": "2.8.0"})


def test_a_registry_that_cannot_be_reached_leaves_the_base_unresolved() -> None:
    closed = Registry("dlc", {}, "127.0.0.1:9/dlc", ("repository",))
    found = resolve_base(base("b", registry=closed), None, anonymous)
    assert found == BaseLock("b", unresolved="its registry could not be reached")


def test_a_base_on_no_public_mirror_is_unresolved_without_a_region() -> None:
    private = Registry("smp", {"us-east-1": "658645717510"})
    found = resolve_base(base("b", registry=private), None, anonymous)
    assert found == BaseLock("b", unresolved="no public mirror has it, and no region was named")


def test_a_base_of_our_own_asks_nobody() -> None:
    assert resolve_base(base("b"), "us-east-1", anonymous) == BaseLock("b")


@pytest.mark.parametrize(
    "error",
    [
        UsageError("no such region"),
        RegistryUnavailableError("connection refused by 10.0.0.1", where="host.example"),
        NoCredentialsError("none", where="host.example"),
        NotAuthorisedError("denied", where="host.example"),
        ImageMissingError("gone", where="host.example"),
    ],
)
def test_reasons_differ_by_kind_and_name_no_host(error: SlipwayError) -> None:
    others = [UsageError, RegistryUnavailableError, NoCredentialsError, NotAuthorisedError]
    others.append(ImageMissingError)
    told = [unresolved_reason(kind("x")) for kind in others]
    assert len(set(told)) == len(told)
    assert unresolved_reason(error) in told
    assert "host.example" not in unresolved_reason(error)
    assert "10.0.0.1" not in unresolved_reason(error)


def test_a_base_that_cannot_be_asked_now_keeps_what_was_known() -> None:
    assert (
        merge_base_lock(OLD, BaseLock("b", unresolved="its registry could not be reached")) == OLD
    )


def test_the_packages_of_another_digest_are_not_those_of_this_one() -> None:
    moved = merge_base_lock(OLD, BaseLock("b", digest="sha256:new"))
    assert moved.digest == "sha256:new"
    assert moved.packages is None
    same = merge_base_lock(OLD, BaseLock("b", digest="sha256:old"))
    assert same.packages == OLD.packages


@pytest.mark.parametrize(
    ("config", "named"),
    [({"architecture": "arm64"}, "arm64"), ({"architecture": ""}, "no archi"), ({}, "no archi")],
)
def test_a_base_of_another_architecture_gets_no_digest_and_the_reason_says_so(
    config: dict[str, str], named: str
) -> None:
    with pytest.raises(SlipwayError) as caught:
        require_architecture(config, "amd64")
    assert unresolved_reason(caught.value).startswith(f"its image is for {named}")
    require_architecture({"architecture": "amd64"}, "amd64")
    require_architecture({"architecture": "arm64"}, "arm64")


def test_only_what_builds_depend_on_is_kept_of_a_configuration() -> None:
    config = {
        "created": "2026-07-20T00:00:00Z",
        "config": {
            "Env": ["PATH=/bin"],
            "Cmd": ["bash"],
            "User": "",
            "WorkingDir": "/w",
            "Hostname": "h",
        },
    }
    assert run_settings(config) == {"Env": ["PATH=/bin"], "Cmd": ["bash"], "WorkingDir": "/w"}
