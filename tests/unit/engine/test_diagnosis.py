"""What the daemon says about a failed transfer becomes a typed error.

The sentences are those that registries, ECR and dockerd print.
"""

from __future__ import annotations

import pytest

from slipway.engine.diagnosis import diagnose
from slipway.engine.errors import TransferKind

REFUSED = "dial tcp 127.0.0.1:5000: connect: connection refused"


@pytest.mark.parametrize(
    ("message", "kind", "retry"),
    [
        ("unauthorized: authentication required", "unauthorized", False),
        ("no basic auth credentials", "unauthorized", False),
        (
            'Head "https://x/v2/a/manifests/1": unauthorized: incorrect username or password',
            "unauthorized",
            False,
        ),
        (
            "unexpected status from HEAD request to https://x/v2/a/manifests/1: 401 Unauthorized",
            "unauthorized",
            False,
        ),
        (
            "could not verify layer data for: sha256:f69c6af935df. This may be because internal "
            "files in the layer store were modified. Re-pulling or rebuilding this image may "
            "resolve the issue",
            "other",
            False,
        ),
        ("denied: requested access to the resource is denied", "denied", False),
        # dockerd 28 and 29 with containerd's store: the registry's code is left out.
        ("error from registry: requested access to the resource is denied", "denied", False),
        ("error from registry: authentication required", "unauthorized", False),
        ("error from registry: repository name not known to registry", "not_found", False),
        ("error from registry: Requested image not found", "not_found", False),
        (
            "error from registry: The repository with name 'a' does not exist in the registry with"
            " id '111122223333'",
            "not_found",
            False,
        ),
        ("error from registry: Rate exceeded", "throttled", True),
        (
            "denied: User: arn:aws:iam::111122223333:user/me is not authorized to perform: "
            "ecr:InitiateLayerUpload on resource: arn:aws:ecr:us-east-1:111122223333:repository/r "
            "because no identity-based policy allows the ecr:InitiateLayerUpload action",
            "denied",
            False,
        ),
        (
            "pull access denied for x, repository does not exist or may require 'docker login': "
            "denied: requested access to the resource is denied",
            "denied",
            False,
        ),
        (
            "denied: Your authorization token has expired. Reauthenticate and try again.",
            "expired",
            True,
        ),
        (
            "tag invalid: The image tag 'v1' already exists in the 'team/app' repository and "
            "cannot be overwritten because the repository is immutable.",
            "immutable",
            False,
        ),
        (
            "name unknown: The repository with name 'a' does not exist in the registry with id "
            "'111122223333'",
            "not_found",
            False,
        ),
        (
            "manifest for 127.0.0.1:5000/a:1 not found: manifest unknown: manifest unknown",
            "not_found",
            False,
        ),
        ("An image does not exist locally with the tag: 127.0.0.1:5000/a", "not_found", False),
        ("tag does not exist: 127.0.0.1:5000/a:1", "not_found", False),
        (
            "push access denied, repository does not exist or may require authorization: "
            "authorization failed: no basic auth credentials",
            "unauthorized",
            False,
        ),
        ("toomanyrequests: Rate exceeded", "throttled", True),
        (
            "toomanyrequests: You have reached your unauthenticated pull rate limit.",
            "throttled",
            True,
        ),
        ("received unexpected HTTP status: 503 Service Unavailable", "server", True),
        ("received unexpected HTTP status: 500 Internal Server Error", "server", True),
        (
            "unexpected status from PUT request to http://x/v2/a/blobs: 502 Bad Gateway",
            "server",
            True,
        ),
        (f'Get "http://127.0.0.1:5000/v2/": {REFUSED}', "network", True),
        ("read tcp 10.0.0.1:4->10.0.0.2:443: read: connection reset by peer", "network", True),
        ('Get "https://x/v2/": dial tcp: lookup x on 10.0.0.2:53: no such host', "network", True),
        ("unexpected EOF", "network", True),
        ('Get "https://x/v2/": net/http: TLS handshake timeout', "network", True),
        (
            'Get "https://x/v2/": x509: certificate signed by unknown authority',
            "network",
            False,
        ),
        ("write /var/lib/docker/tmp/GetImageBlob1: no space left on device", "disk_full", False),
        ("something that nobody has said before", "other", False),
    ],
)
def test_each_complaint_has_its_kind_and_says_whether_to_try_again(
    message: str, kind: TransferKind, retry: bool
) -> None:
    found = diagnose(message)
    assert (found.kind, found.retry) == (kind, retry)


def test_a_digest_or_port_with_such_digits_is_not_an_http_status() -> None:
    assert diagnose("unknown blob sha256:429aa401bb403cc500dd").kind == "other"


@pytest.mark.parametrize(
    ("code", "message", "kind", "retry"),
    [
        ("UNKNOWN", "unknown error", "server", True),
        ("UNAVAILABLE", "service unavailable", "server", True),
        ("TOOMANYREQUESTS", "too many requests", "throttled", True),
        ("UNAUTHORIZED", "authentication required", "unauthorized", False),
        ("DENIED", "requested access to the resource is denied", "denied", False),
        ("NAME_UNKNOWN", "repository name not known to registry", "not_found", False),
        ("MANIFEST_UNKNOWN", "manifest unknown", "not_found", False),
    ],
)
def test_a_code_of_distribution_is_known_however_containerds_store_words_it(
    code: str, message: str, kind: TransferKind, retry: bool
) -> None:
    """Codes and messages: distribution/distribution:registry/api/errcode/register.go.

    dockerd prints the message, or the code's words where the message is the one that belongs to
    the code (containerd/containerd:core/remotes/docker/errcode.go).
    """
    words = code.lower().replace("_", " ")
    for text in (message, words, f"{words}\n{words}"):
        found = diagnose(f"error from registry: {text}")
        assert (found.kind, found.retry) == (kind, retry), text


@pytest.mark.parametrize("message", ["unknown field", "unknown layer digest", "unavailable here"])
def test_a_sentence_that_begins_as_a_code_does_is_not_that_code(message: str) -> None:
    assert diagnose(f"error from registry: {message}").kind == "other"
