"""ECR's API as moto plays it in this process, and botocore's errors as ours."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import cast

import boto3
import pytest
from botocore import exceptions
from botocore.errorfactory import ClientExceptionsFactory
from botocore.stub import Stubber
from moto import mock_aws
from mypy_boto3_ecr import ECRClient

from slipway.core import UsageError
from slipway.registry import (
    NoCredentialsError,
    NotAuthorisedError,
    RegistryError,
    RegistryUnavailableError,
    RepositoryMissingError,
    Target,
    ThrottledError,
    WrongAccountError,
)
from slipway.registry.ecr import ecr_repository
from slipway.registry.ecr.aws_boundary import aws_errors, client_error
from slipway.registry.ecr.ecr_client import connect_ecr
from slipway.registry.ecr.ecr_repository import ensure_repository
from slipway.registry.ecr.policies import lifecycle_policy
from slipway.registry.ecr_target import find_ecr_target, prepare_repository

REGION = "eu-central-1"
ACCOUNT = "123456789012"  # moto's own
OTHER = "999988887777"
DESCRIBED = {
    "repositoryUri": "host/team/image",
    "registryId": ACCOUNT,
    "imageTagMutability": "IMMUTABLE",
}


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[ECRClient]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    with mock_aws():
        yield connect_ecr(REGION)


@pytest.fixture
def owner(client: ECRClient) -> ECRClient:
    """A client of the account's owner, who looks at what was made; not one of Slipway's."""
    return boto3.client("ecr", region_name=REGION)


def test_a_new_repository_has_immutable_tags_scans_and_a_lifecycle(
    client: ECRClient, owner: ECRClient
) -> None:
    made = ensure_repository(client, "team/image")
    assert (made.created, made.mutability, made.warnings) == (True, "IMMUTABLE", ())
    found = client.describe_repositories(repositoryNames=["team/image"])["repositories"][0]
    assert found["imageTagMutability"] == "IMMUTABLE"
    assert found["imageScanningConfiguration"] == {"scanOnPush": True}
    rules = json.loads(
        owner.get_lifecycle_policy(repositoryName="team/image")["lifecyclePolicyText"]
    )["rules"]
    assert rules == lifecycle_policy()["rules"]
    with pytest.raises(client.exceptions.RepositoryPolicyNotFoundException):
        client.get_repository_policy(repositoryName="team/image")


def test_aliases_move_where_the_api_knows_tags_that_move(client: ECRClient) -> None:
    made = ensure_repository(client, "team/image", alias_patterns=["latest*", "2.13-sagemaker"])
    assert made.mutability == "IMMUTABLE_WITH_EXCLUSION"
    found = client.describe_repositories(repositoryNames=["team/image"])["repositories"][0]
    assert found["imageTagMutabilityExclusionFilters"] == [
        {"filterType": "WILDCARD", "filter": "latest*"},
        {"filterType": "WILDCARD", "filter": "2.13-sagemaker"},
    ]


def test_an_api_that_knows_no_exceptions_gives_immutable_tags_and_a_warning(
    client: ECRClient,
) -> None:
    with Stubber(client) as stub:
        stub.add_client_error("describe_repositories", "RepositoryNotFoundException")
        stub.add_client_error("create_repository", "InvalidParameterException")
        stub.add_response(
            "create_repository",
            {"repository": DESCRIBED},
            {
                "repositoryName": "team/image",
                "imageTagMutability": "IMMUTABLE",
                "imageScanningConfiguration": {"scanOnPush": True},
            },
        )
        stub.add_client_error("describe_repositories", "RepositoryNotFoundException")
        stub.add_response("describe_repositories", {"repositories": [DESCRIBED]})
        stub.add_response("put_lifecycle_policy", {})
        made = ensure_repository(client, "team/image", alias_patterns=["latest*"])
        stub.assert_no_pending_responses()
    assert made.mutability == "IMMUTABLE"
    assert "aliases" in made.warnings[0]


def test_a_repository_that_exists_keeps_its_settings(client: ECRClient, owner: ECRClient) -> None:
    client.create_repository(repositoryName="team/image", imageTagMutability="MUTABLE")
    made = ensure_repository(client, "team/image")
    assert (made.created, made.mutability) == (False, "MUTABLE")
    with pytest.raises(owner.exceptions.LifecyclePolicyNotFoundException):
        owner.get_lifecycle_policy(repositoryName="team/image")


def test_consumers_are_let_in_also_later_and_others_statements_stay(client: ECRClient) -> None:
    ensure_repository(client, "team/image")
    theirs = {"Sid": "Theirs", "Effect": "Allow", "Principal": "*", "Action": "ecr:ListImages"}
    client.set_repository_policy(
        repositoryName="team/image",
        policyText=json.dumps({"Version": "2012-10-17", "Statement": [theirs]}),
    )
    ensure_repository(client, "team/image", consumers=[OTHER], sagemaker=True)
    text = client.get_repository_policy(repositoryName="team/image")["policyText"]
    statements = json.loads(text)["Statement"]
    assert [s["Sid"] for s in statements] == [
        "Theirs",
        "SlipwayConsumersPull",
        "SlipwaySageMakerPull",
    ]
    assert statements[1]["Principal"] == {"AWS": [f"arn:aws:iam::{OTHER}:root"]}


def test_a_missing_right_to_set_the_lifecycle_does_not_stop_a_push(client: ECRClient) -> None:
    with Stubber(client) as stub:
        stub.add_client_error("describe_repositories", "RepositoryNotFoundException")
        stub.add_response("create_repository", {"repository": DESCRIBED})
        stub.add_response("describe_repositories", {"repositories": [DESCRIBED]})
        stub.add_client_error("put_lifecycle_policy", "AccessDeniedException", "not authorized")
        made = ensure_repository(client, "team/image")
    assert made.created
    assert "nothing will expire" in made.warnings[0]


def test_a_repository_that_never_comes_is_told(
    client: ECRClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ecr_repository, "_KNOWN_S", 0.0)
    with Stubber(client) as stub:
        stub.add_client_error("describe_repositories", "RepositoryNotFoundException")
        stub.add_response("create_repository", {"repository": DESCRIBED})
        stub.add_client_error("describe_repositories", "RepositoryNotFoundException")
        with pytest.raises(RepositoryMissingError, match="does not know it"):
            ensure_repository(client, "team/image")


def test_two_pushes_that_create_it_at_once_both_have_it(client: ECRClient) -> None:
    names: list[str] = []
    threads = [
        threading.Thread(target=lambda: names.append(ensure_repository(client, "team/image").name))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names == ["team/image"] * 4


class _OfTwoThreads:
    """A client whose exception classes another thread has made as well."""

    def __init__(self, client: ECRClient) -> None:
        self._client = client
        self.exceptions = ClientExceptionsFactory().create_client_exceptions(
            client.meta.service_model
        )

    def __getattr__(self, name: str) -> object:
        return getattr(self._client, name)


def test_a_refusal_is_known_by_its_code_whichever_thread_made_the_exception_classes(
    client: ECRClient,
) -> None:
    """botocore makes them at their first use: two threads at once each make their own."""
    with Stubber(client) as stub:
        stub.add_client_error("describe_repositories", "RepositoryNotFoundException")
        stub.add_client_error("create_repository", "RepositoryAlreadyExistsException")
        stub.add_response("describe_repositories", {"repositories": [DESCRIBED]})
        stub.add_response("put_lifecycle_policy", {})
        stub.add_client_error("get_repository_policy", "RepositoryPolicyNotFoundException")
        stub.add_response("set_repository_policy", {})
        made = ensure_repository(
            cast("ECRClient", _OfTwoThreads(client)), "team/image", sagemaker=True
        )
        stub.assert_no_pending_responses()
    assert made.name == "team/image"


def test_a_repository_is_not_created_in_the_wrong_account(client: ECRClient) -> None:
    target = Target("ecr", "ecr", "host", REGION, OTHER)
    with pytest.raises(WrongAccountError) as failed:
        prepare_repository(target, "team/image")
    assert ACCOUNT in failed.value.what
    assert OTHER in failed.value.what
    assert client.describe_repositories()["repositories"] == []


def test_the_local_registry_needs_no_preparation() -> None:
    assert prepare_repository(Target("local", "local", "127.0.0.1:5055"), "team/image") is None


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"consumers": ["12345"]}, "twelve digits"),
        ({"alias_patterns": ["a", "b", "c", "d", "e", "f"]}, "at most 5"),
    ],
)
def test_bad_arguments_are_refused_before_any_call(
    client: ECRClient, arguments: dict[str, object], text: str
) -> None:
    with Stubber(client), pytest.raises(UsageError, match=text):
        ensure_repository(client, "team/image", **arguments)  # type: ignore[arg-type]


@pytest.mark.usefixtures("client")
def test_a_target_is_the_callers_own_account_unless_another_is_named() -> None:
    own = find_ecr_target(REGION)
    assert own.host == f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
    assert (own.kind, own.region, own.account) == ("ecr", REGION, ACCOUNT)
    assert (
        find_ecr_target("cn-north-1", OTHER).host == f"{OTHER}.dkr.ecr.cn-north-1.amazonaws.com.cn"
    )


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("UnrecognizedClientException", NoCredentialsError),
        ("ExpiredTokenException", NoCredentialsError),
        ("InvalidSignatureException", NoCredentialsError),
        ("AccessDeniedException", NotAuthorisedError),
        ("ThrottlingException", ThrottledError),
        ("TooManyRequestsException", ThrottledError),
        ("RepositoryNotFoundException", RepositoryMissingError),
        ("LimitExceededException", RegistryError),
    ],
)
def test_a_code_of_the_api_becomes_a_typed_error(code: str, expected: type[RegistryError]) -> None:
    error = client_error("ecr:DescribeImages", "here", code, "told by AWS")
    assert type(error) is expected
    assert "told by AWS" in error.what


@pytest.mark.parametrize(
    "code",
    ["AccountLimitExceededException", "AddressLimitExceeded", "LimitExceeded", "TooManyBuckets",
     "ResourceLimitExceeded", "ServiceLimitExceeded", "VpcLimitExceeded"],
)  # fmt: skip
def test_a_limit_of_the_account_is_told_with_where_to_ask_for_more(code: str) -> None:
    error = client_error("ec2:AllocateAddress", "here", code, "the maximum has been reached")
    assert "Service Quotas" in str(error)


def test_an_error_of_a_call_arrives_as_the_typed_one(client: ECRClient) -> None:
    with Stubber(client) as stub:
        stub.add_client_error("describe_repositories", "AccessDeniedException", "told by AWS")
        with (
            pytest.raises(NotAuthorisedError, match="told by AWS"),
            aws_errors("ecr:DescribeRepositories", "here"),
        ):
            client.describe_repositories(repositoryNames=["team/image"])


def test_the_four_messages_are_clearly_different() -> None:
    denied = (
        f"User: arn:aws:sts::{ACCOUNT}:assumed-role/Builder/me is not authorized to perform: "
        "ecr:PutImage"
    )
    errors = [
        client_error("a", "w", "UnrecognizedClientException", "t"),
        client_error("a", "w", "AccessDeniedException", denied, OTHER),
        client_error("a", "w", "AccessDeniedException", denied, ACCOUNT),
        client_error("a", "w", "ThrottlingException", "t"),
    ]
    assert [type(error) for error in errors] == [
        NoCredentialsError,
        WrongAccountError,
        NotAuthorisedError,
        ThrottledError,
    ]
    assert len({error.what for error in errors}) == 4
    assert len({error.cure for error in errors}) == 4


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (exceptions.NoCredentialsError(), NoCredentialsError),
        (exceptions.ProfileNotFound(profile="nobody"), NoCredentialsError),
        (exceptions.TokenRetrievalError(provider="sso", error_msg="expired"), NoCredentialsError),
        (exceptions.EndpointConnectionError(endpoint_url="https://x"), RegistryUnavailableError),
    ],
)
def test_what_botocore_raises_before_it_reaches_aws_is_told_as_well(
    raised: Exception, expected: type[RegistryError]
) -> None:
    with pytest.raises(expected), aws_errors("ecr:DescribeRepositories", "here"):
        raise raised


def test_without_any_credentials_the_first_call_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    with pytest.raises(NoCredentialsError, match="no AWS credentials"):
        find_ecr_target(REGION)
