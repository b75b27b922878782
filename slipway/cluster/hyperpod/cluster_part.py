"""What a cluster is made of, piece by piece: how each is found, made, awaited and removed.

Nothing about a cluster is kept on this machine. Every part has a name of its own or a tag, and is
looked for before it is made: whatever a run that was cut has left is taken as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from slipway.cluster.aws_account import AwsAccount
from slipway.cluster.documents import CLUSTER_TAG, PART_TAG, ClusterFile


def _always(_identifier: str) -> bool:
    return True


@dataclass(frozen=True)
class ClusterPart:
    """One part. `make` is one call that changes something, so that a run can be cut anywhere.

    `find` gives its id, None where it is not there; `ready` whether it can be used, and raises
    where it never will be; `remove` None: it goes with what it belongs to. `costs` says what is
    paid for it, as long as it is there.
    """

    name: str
    title: str
    find: Callable[[], str | None]
    make: Callable[[], str]
    remove: Callable[[str], None] | None = None
    ready: Callable[[str], bool] = _always
    costs: str = ""


@dataclass
class ClusterSite:
    """A cluster's file, the account that it is made in, and the ids of its parts so far."""

    cluster: ClusterFile
    account: AwsAccount
    ids: dict[str, str] = field(default_factory=dict)

    def tags(self, part: str) -> list[dict[str, str]]:
        """The tags of a part."""
        return [*self.cluster.tags, {"Key": PART_TAG, "Value": part}]

    def filters(self, part: str) -> list[dict[str, object]]:
        """EC2's filters that find a part."""
        return [
            {"Name": f"tag:{CLUSTER_TAG}", "Values": [self.cluster.name]},
            {"Name": f"tag:{PART_TAG}", "Values": [part]},
        ]
