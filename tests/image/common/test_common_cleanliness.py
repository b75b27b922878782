from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from slipway.engine import Engine
from slipway.verify.expectations import CheckedImage

# What is looked at is what the image adds to its base: the base's own files are not ours to judge.

SECRET_NAMES = re.compile(
    r"/(\.netrc|_netrc|\.pypirc|\.pip/pip\.conf|pip\.conf|\.config/(pip|uv)/.*|uv\.toml"
    r"|\.aws/.*|\.docker/.*|\.dockercfg|\.ssh/.*|ssh_host_.*key|id_(rsa|dsa|ecdsa|ed25519)"
    r"|\.git-credentials|\.kube/.*|\.config/gcloud/.*|\.bash_history|\.python_history)$"
)
CERTIFICATE_FOLDERS = (
    "/etc/pki/",
    "/etc/ssl/",
    "/run/secrets/",
    "/usr/local/share/ca-certificates/",
    "/usr/share/ca-certificates/",
)
CACHES = (
    "/root/.cache/",
    "/root/.npm/",
    "/var/cache/",
    "/var/lib/apt/lists/",
    "/var/lib/dnf/",
    "/var/log/",
    "/var/tmp/",
    "/tmp/",
    "/mnt/",
    "/run/",
)
SECRET_CONTENTS = {
    "a private key": rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/=]{40,}",
    "an AWS access key": rb"\b(AKIA|ASIA)(?![A-Z0-9]*EXAMPLE)[A-Z0-9]{16}\b",
    "an AWS secret key": rb"(?i)aws_secret_access_key\s*[=:]\s*[\"']?[A-Za-z0-9/+]{40}",
    "a GitHub token": rb"\b(ghp|gho|ghs|github_pat)_[A-Za-z0-9_]{30,}",
    "a URL with a password": rb"\w+://[^/\s:@\"'{}$<>]+:[^/\s:@\"'{}$<>]+@[\w.-]+",
}
SECRET_VARIABLES = re.compile(
    r"(?i)secret|token|password|passwd|credential|(^|_)key$|_proxy$|index_url"
)


def host_secrets(environment: Mapping[str, str]) -> dict[str, bytes]:
    """Secrets of the machine that runs this, by the variable they are in."""
    found = {
        name: environment[name]
        for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID")
        if environment.get(name)
    }
    for name, value in environment.items():
        if "://" in value and (password := urlsplit(value.split()[0]).password):
            found[name] = password
    return {name: value.encode() for name, value in found.items() if len(value) >= 8}


def secrets_in(texts: Iterable[tuple[str, bytes]]) -> list[str]:
    patterns = {what: re.compile(pattern) for what, pattern in SECRET_CONTENTS.items()}
    needles = host_secrets(os.environ)
    found = []
    for place, text in texts:
        found += [f"{place}: {what}" for what, pattern in patterns.items() if pattern.search(text)]
        found += [
            f"{place}: ${name} of this host" for name, value in needles.items() if value in text
        ]
    return found


def test_no_file_that_usually_holds_a_secret_was_added(added: Mapping[str, bool]) -> None:
    assert [path for path in sorted(added) if SECRET_NAMES.search(path)] == []


def test_no_added_file_holds_a_secret(added_contents: Mapping[str, bytes]) -> None:
    assert secrets_in(added_contents.items()) == []


def test_no_variable_label_or_build_step_holds_a_secret(
    engine: Engine,
    image_config: Mapping[str, Any],
    base_config: Mapping[str, Any],
    subject: CheckedImage,
) -> None:
    new = set(image_config.get("Env") or []) - set(base_config.get("Env") or [])
    assert [entry for entry in new if SECRET_VARIABLES.search(entry.partition("=")[0])] == []
    base_steps = len(engine.client.images.get(subject.base_id).history())
    steps = engine.client.images.get(subject.image_id).history()[:-base_steps]
    texts = [(f"ENV {entry.partition('=')[0]}", entry.encode()) for entry in new]
    texts += [(f"LABEL {k}", v.encode()) for k, v in (image_config["Labels"] or {}).items()]
    texts += [("build step", step["CreatedBy"].encode()) for step in steps]
    assert secrets_in(texts) == []


def test_no_file_of_the_build_host_got_in(
    added_contents: Mapping[str, bytes], subject: CheckedImage
) -> None:
    found = {
        path: subject.private.get(hashlib.sha256(content).hexdigest())
        for path, content in added_contents.items()
    }
    assert {path: name for path, name in found.items() if name} == {}


def test_trusted_certificates_are_those_of_the_base(added: Mapping[str, bool]) -> None:
    assert [path for path in sorted(added) if path.startswith(CERTIFICATE_FOLDERS)] == []


def test_no_cache_log_or_temporary_file_was_added(added: Mapping[str, bool]) -> None:
    assert [path for path in sorted(added) if path.startswith(CACHES)] == []


def test_nothing_of_a_source_tree_was_added(added: Mapping[str, bool]) -> None:
    parts = {path: set(PurePosixPath(path).parts) for path in added if not added[path]}
    assert [path for path in sorted(parts) if parts[path] & {".git", ".hg", ".svn"}] == []
