"""What a registry's or a network's complaint means, told from the daemon's one line of text.

The daemon gives no code: `errorDetail` has a sentence that starts with the registry's own error
(docker/docker-py#2226). So the sentences are matched, and each entry names who says it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from slipway.engine.errors import DAMAGED_LAYER_CURE, TransferKind, is_full


@dataclass(frozen=True)
class Diagnosis:
    """The kind of a failed transfer, whether a new try may succeed, and what to do."""

    kind: TransferKind
    retry: bool
    cure: str | None


# In the order of asking: "expired" and "immutable" come dressed as denials, and a throttled or
# broken registry may mention authorization.
_KNOWN: tuple[tuple[str, Diagnosis], ...] = (
    (
        # ECR: "denied: Your authorization token has expired. Reauthenticate and try again."
        r"token (has )?expired|expired ?token",
        Diagnosis("expired", True, "Fetch new credentials and repeat the command."),
    ),
    (
        # ECR: "tag invalid: The image tag 'x' already exists in the 'y' repository and cannot be
        # overwritten because the repository is immutable." (also: "tag is immutable")
        r"immutable",
        Diagnosis(
            "immutable",
            False,
            "The tag belongs to another image; a changed image has a changed build id, "
            "and with it a new tag.",
        ),
    ),
    (
        # Registries: TOOMANYREQUESTS; ECR: "Rate exceeded"; Docker Hub: "pull rate limit".
        r"too ?many ?requests|rate (limit|exceeded)|\b429\b",
        Diagnosis("throttled", True, "Wait a little, or use fewer parallel jobs."),
    ),
    (
        # dockerd, of what a registry or a proxy before it answered; with containerd's store the
        # words of a code alone, where the registry had nothing to add (Distribution's UNKNOWN is
        # its error 500).
        r"unexpected http status:? 5\d\d|unexpected status( code)?[^:]*: 5\d\d|\b50[0234]\b"
        r"|error from registry: (unknown( error)?|unavailable)(?m:$)"
        r"|internal server error|bad gateway|service unavailable|gateway time-?out",
        Diagnosis("server", True, "The registry has trouble; try again later."),
    ),
    (
        # Distribution: "unauthorized: authentication required"; ECR without a login: "no basic
        # auth credentials"; Docker Hub: "incorrect username or password".
        r"unauthorized|no basic auth credentials|authorization failed|\b401\b"
        r"|incorrect username or password|authentication required",
        Diagnosis(
            "unauthorized", False, "Check the credentials for this registry: who is logged in?"
        ),
    ),
    (
        # Distribution: NAME_UNKNOWN and MANIFEST_UNKNOWN; dockerd: "manifest for x not found". With
        # containerd's store dockerd leaves the code out, and these are what registries say with it:
        # Distribution: "repository name not known to registry", ECR: "The repository with name 'x'
        # does not exist in the registry with id 'y'", "Requested image not found".
        r"name unknown|manifest unknown|repository .*not found|not found: manifest"
        r"|repository name not known|the repository with name .* does not exist"
        r"|requested image not found"
        r"|manifest for .* not found|no such image|does not exist locally|tag does not exist"
        r"|: not found",
        Diagnosis("not_found", False, "Check account, region, repository and tag."),
    ),
    (
        # dockerd, of a layer that it keeps as files and headers: moby/moby#37680.
        r"could not verify layer data",
        Diagnosis("other", False, DAMAGED_LAYER_CURE),
    ),
    (
        r"denied|forbidden|\b403\b|not authorized to perform",
        Diagnosis("denied", False, "The login is valid but may not do this: check its policy."),
    ),
    (
        # Not curable by waiting: a certificate that nobody here trusts, plain HTTP on a far host.
        r"x509|certificate|server gave http response to https client",
        Diagnosis(
            "network",
            False,
            "Give the daemon the certificate authority (/etc/docker/certs.d, SSL_CERT_FILE).",
        ),
    ),
    (
        # Go's net and net/http packages.
        r"connection (reset|refused|timed out)|broken pipe|\beof\b|i/o timeout|no such host"
        r"|tls handshake|deadline exceeded|client\.timeout|network is unreachable|no route to host"
        r"|server misbehaving|closed network connection|temporary failure",
        Diagnosis("network", True, "Check the network and the proxy settings of the daemon."),
    ),
)


def diagnose(message: str) -> Diagnosis:
    """What `message` means; kind "other" for a sentence that nobody has said before."""
    if is_full(message):
        return Diagnosis("disk_full", False, None)
    for pattern, diagnosis in _KNOWN:
        if re.search(pattern, message, re.IGNORECASE):
            return diagnosis
    return Diagnosis("other", False, None)
