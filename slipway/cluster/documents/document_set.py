"""Everything that a cluster is made of, as files: what `inv cluster.documents` writes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slipway.cluster.documents.cluster_file import ClusterFile, read_cluster_file
from slipway.cluster.documents.cluster_requests import (
    ClusterParts,
    check_cluster_request,
    make_cluster_request,
    make_file_system_request,
    make_role_request,
    provisioning_parameters,
    security_group_rules,
)
from slipway.cluster.documents.operator_policy import operator_permissions
from slipway.cluster.documents.permissions import (
    Permission,
    node_permissions,
    policy_document,
    policy_text,
)
from slipway.core import Project, UsageError, print_json, say, write_atomic
from slipway.matrix import Matrix, read_matrix
from slipway.registry import pull_statements

_LIFECYCLE = Path(__file__).parent / "lifecycle"
#: A role's inline policies together, a managed policy (IAM user guide, "IAM and AWS STS quotas"),
#: a repository's policy (Amazon ECR API reference, SetRepositoryPolicy).
_ROLE_CHARACTERS, _POLICY_CHARACTERS, _REPOSITORY_CHARACTERS = 10_240, 6_144, 10_240
_LISTS = ("repositories", "buckets")


@dataclass(frozen=True)
class ClusterDocuments:
    """File name -> text of each document; the statements of each policy, by its name."""

    files: Mapping[str, str]
    policies: Mapping[str, Sequence[Permission]]

    def explain(self) -> Iterator[str]:
        """Lines: each statement of each policy, what it allows, why, and who says so."""
        for policy, permissions in self.policies.items():
            for permission in permissions:
                yield f"policy-{policy}.json, {permission.sid}: {', '.join(permission.actions)}"
                yield f"    on {', '.join(permission.resources)}"
                yield f"    {permission.reason}"
                yield f"    {permission.source}"


def lifecycle_scripts(cluster: ClusterFile, parts: ClusterParts) -> dict[str, str]:
    """Name -> text of what a new node fetches from the bucket and runs."""
    legacy = cluster.entry.slurm == "legacy"
    scripts = {
        path.name: path.read_text("utf-8")
        for path in sorted(_LIFECYCLE.glob("*.sh"))
        if legacy or path.name != "on_create.sh"
    }
    if legacy:
        scripts["provisioning_parameters.json"] = _text(provisioning_parameters(cluster, parts))
    return scripts


def role_permissions(cluster: ClusterFile, project: Project) -> dict[str, list[Permission]]:
    """Policy name -> statements of the nodes' role: what the file says, or the matrix's own."""
    matrix = read_matrix(project)
    bases = set()
    for base in matrix.bases if cluster.entry.builds else ():
        account = base.registry.accounts.get(cluster.region) if base.registry else None
        if account is not None:
            place = f"arn:{cluster.partition}:ecr:{cluster.region}:{account}:repository"
            bases.add(f"{place}/{base.repository}")
    repositories = _repositories(cluster, matrix)
    return node_permissions(cluster, repositories, sorted(bases))


def make_cluster_documents(cluster: ClusterFile, project: Project) -> ClusterDocuments:
    """All documents of a cluster; ids of what is not made yet are zeros."""
    parts = ClusterParts.unmade(cluster)
    policies = role_permissions(cluster, project)
    request = make_cluster_request(cluster, parts)
    check_cluster_request(cluster, request)
    files = {
        "create-cluster.json": _text(request.parameters),
        "create-role.json": _text(make_role_request(cluster)),
        "security-group.json": _text(security_group_rules(parts.security_group)),
    }
    if cluster.entry.storage.file_system is None:
        files["create-file-system.json"] = _text(make_file_system_request(cluster, parts))
    if cluster.entry.consumers:
        statements = pull_statements(cluster.partition, cluster.entry.consumers, False)
        files["repository-policy.json"] = _text({"Version": "2012-10-17", "Statement": statements})
    operator = operator_permissions(cluster, _repositories(cluster, read_matrix(project)))
    policies |= operator
    for name, permissions in policies.items():
        files[f"policy-{name}.json"] = _text(policy_document(permissions))
    _check_sizes(cluster, policies, files.get("repository-policy.json"))
    for name, text in lifecycle_scripts(cluster, parts).items():
        files[f"lifecycle/{name}"] = text
    return ClusterDocuments(files, policies)


def _check_sizes(
    cluster: ClusterFile, policies: Mapping[str, Sequence[Permission]], consumers: str | None
) -> None:
    """Raise UsageError where the file's lists make a policy longer than AWS stores."""
    sizes = {name: len(policy_text(permissions)) for name, permissions in policies.items()}
    nodes = sum(size for name, size in sizes.items() if not name.startswith("operator"))
    rows: list[tuple[str, int, int, tuple[str, ...]]] = [
        ("the nodes' policies together", nodes, _ROLE_CHARACTERS, _LISTS)
    ]
    for name, size in sizes.items():
        if name.startswith("operator"):
            rows.append((f"policy-{name}.json", size, _POLICY_CHARACTERS, _LISTS))
    if consumers is not None:
        short = json.dumps(json.loads(consumers), separators=(",", ":"))
        size = len(short)
        rows.append(("repository-policy.json", size, _REPOSITORY_CHARACTERS, ("consumers",)))
    for what, size, most, lists in rows:
        if size > most:
            longest = max(lists, key=lambda key: len("".join(getattr(cluster.entry, key))))
            raise UsageError(
                f"{what} would have {size:,} characters, and AWS stores {most:,}: "
                f"{longest} is too long a list",
                where=cluster.where((longest,)),
                cure="Name fewer: a pattern like team/* stands for many repositories, and a bucket "
                "or account that only some jobs need is given its own policy.",
            )


def write_cluster_documents(root: Path, file: str, output: str, *, explain: bool) -> None:
    """Print the documents of a cluster's file as one JSON, or write them into a folder.

    With `explain`: why each permission is there, and who says so. Raises UsageError.
    """
    documents = make_cluster_documents(read_cluster_file(Path(file)), Project.at(root))
    if output:
        for name, text in documents.files.items():
            write_atomic(Path(output, name), text)
        say(f"wrote {len(documents.files)} documents to {output}")
        say("ids of what does not exist yet are zeros: `cluster.up` has the real ones")
    if explain:
        for line in documents.explain():
            print(line)
    elif not output:
        print_json({name: _value(name, text) for name, text in documents.files.items()})


def _repositories(cluster: ClusterFile, matrix: Matrix) -> list[str]:
    return list(cluster.entry.repositories) or [f"{matrix.repository_prefix}/*"]


def _text(document: Any) -> str:
    return json.dumps(document, indent=2) + "\n"


def _value(name: str, text: str) -> Any:
    return json.loads(text) if name.endswith(".json") else text
