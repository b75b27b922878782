from __future__ import annotations

import json

import pytest

from slipway.registry import (
    ImageMissingError,
    NotAuthorisedError,
    RegistryError,
    RepositoryMissingError,
    ThrottledError,
)
from slipway.registry.errors import (
    ImmutableTagError,
    login_refused,
    refusal_error,
    registry_reply,
    unavailable_error,
)


def body(code: str, message: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()


@pytest.mark.parametrize(
    ("status", "content", "expected"),
    [
        (404, body("NAME_UNKNOWN", "The repository does not exist"), RepositoryMissingError),
        (404, body("MANIFEST_UNKNOWN", "Requested image not found"), ImageMissingError),
        (404, b"", ImageMissingError),
        (403, body("DENIED", "User: arn:... is not authorized to perform"), NotAuthorisedError),
        (403, b"<html>", NotAuthorisedError),
        (400, body("TAG_INVALID", "The image tag 'v1' already exists"), ImmutableTagError),
        (400, body("UNKNOWN", "the tag is immutable"), ImmutableTagError),
        (429, b"", ThrottledError),
        (400, body("TOOMANYREQUESTS", "Rate exceeded"), ThrottledError),
    ],
)
def test_an_answer_becomes_the_error_that_a_person_can_act_on(
    status: int, content: bytes, expected: type[RegistryError]
) -> None:
    error = refusal_error(status, content, where="host/repository:v1")
    assert type(error) is expected
    assert error.where == "host/repository:v1"


def test_an_answer_that_nobody_foresaw_is_shown_whole() -> None:
    error = refusal_error(418, body("TEAPOT", "short and stout"), where="host/x")
    assert type(error) is RegistryError
    assert "418 TEAPOT short and stout" in str(error)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"errors":[]}', b'{"errors":[1]}', b"x"])
def test_a_body_that_is_no_error_document_is_no_error_itself(content: bytes) -> None:
    assert (registry_reply(content).code, registry_reply(content).message) == ("", "")


def test_no_login_and_a_refused_login_are_two_messages() -> None:
    assert login_refused("host", None).what != login_refused("host", "AWS").what


def test_only_the_local_registry_is_cured_by_starting_it() -> None:
    assert "registry.up" in str(unavailable_error("127.0.0.1:5055/x", "refused"))
    assert "registry.up" not in str(unavailable_error("public.ecr.aws/x", "refused"))
