"""How a cluster and its nodes are, and a shell on one of them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from slipway.cluster.documents import ClusterFile, read_cluster_file
from slipway.cluster.hyperpod.account_parts import NO_CLUSTER
from slipway.cluster.hyperpod.cluster_part import ClusterSite
from slipway.cluster.hyperpod.cluster_plan import open_site
from slipway.core import (
    SlipwayError,
    UsageError,
    did_you_mean,
    print_json,
    print_table,
    printable,
    say,
)

_LAST_EVENTS = 15
_PLUGIN = "session-manager-plugin"


def show_cluster(file: str, *, as_json: bool) -> None:
    """Print a cluster: why it failed on top, its groups, what happened last."""
    site = open_site(read_cluster_file(Path(file)))
    cluster = _describe(site)
    events = _events(site) if cluster.get("NodeProvisioningMode") == "Continuous" else []
    if as_json:
        print_json(
            {
                "name": site.cluster.name,
                "arn": cluster["ClusterArn"],
                "status": cluster["ClusterStatus"],
                "cause": cluster.get("FailureMessage") or None,
                "groups": [
                    {
                        "name": group["InstanceGroupName"],
                        "type": group.get("InstanceType"),
                        "nodes": group["CurrentCount"],
                        "wanted": group["TargetCount"],
                        "status": group.get("Status"),
                    }
                    for group in cluster["InstanceGroups"]
                ],
                "events": events,
            }
        )
        return
    print(f"{site.cluster.name}: {cluster['ClusterStatus']}")
    if cluster.get("FailureMessage"):
        print(f"cause: {printable(cluster['FailureMessage'])}")
    rows = [
        (
            group["InstanceGroupName"],
            group.get("InstanceType", ""),
            f"{group['CurrentCount']} of {group['TargetCount']}",
            group.get("Status", ""),
        )
        for group in cluster["InstanceGroups"]
    ]
    print_table(("group", "type", "nodes", "state"), rows)
    for event in events:
        print("  ".join(filter(None, event.values())))


def show_nodes(file: str, *, as_json: bool) -> None:
    """Print every node: group, id, type, state, address, and AWS's words about it."""
    site = open_site(read_cluster_file(Path(file)))
    _describe(site)
    rows = [
        {
            "group": node["InstanceGroupName"],
            "id": node["InstanceId"],
            "type": node["InstanceType"],
            "status": node["InstanceStatus"]["Status"],
            "host": node.get("PrivateDnsHostname", ""),
            "message": printable(node["InstanceStatus"].get("Message", "")),
        }
        for node in _nodes(site)
    ]
    if as_json:
        print_json(rows)
    else:
        print_table(tuple(rows[0]) if rows else ("group",), [tuple(row.values()) for row in rows])


def open_shell(file: str, node: str, *, ssh_config: bool) -> None:
    """Become a shell on a node (an id, or a group of which the first is meant), through Systems
    Manager; or print an entry of ~/.ssh/config that goes the same way. Raises SlipwayError."""
    cluster = read_cluster_file(Path(file))
    site = open_site(cluster)
    target = _target(site, node)
    if ssh_config:
        print(_ssh_config(cluster, target))
        return
    if shutil.which(_PLUGIN) is None:
        raise SlipwayError(
            f"there is no {_PLUGIN} here, which speaks for the terminal",
            cure="Install it: docs.aws.amazon.com/systems-manager/latest/userguide/"
            "session-manager-working-with-install-plugin.html",
        )
    answer = site.account.call("ssm", "StartSession", Target=target)
    session = {key: answer[key] for key in ("SessionId", "TokenValue", "StreamUrl")}
    say(f"{target}: `exit` ends the session")
    # In the environment, as the AWS CLI does: an argument is there for everybody to read.
    variable = "AWS_SSM_START_SESSION_RESPONSE"
    environment = {**os.environ, variable: json.dumps(session)}
    words = (variable, cluster.region, "StartSession", "", json.dumps({"Target": target}))
    os.execvpe(_PLUGIN, (_PLUGIN, *words, ""), environment)  # noqa: S606 - no shell is meant


def _ssh_config(cluster: ClusterFile, target: str) -> str:
    command = (
        f"aws ssm start-session --region {cluster.region} --target {target} "
        "--document-name AWS-StartSSHSession --parameters portNumber=%p"
    )
    return (
        f"Host {cluster.name}\n    User ubuntu\n    IdentityFile ~/.ssh/{cluster.name}\n"
        f"    ProxyCommand {command}\n"
    )


def _target(site: ClusterSite, node: str) -> str:
    """What Systems Manager calls a node: sagemaker-cluster:CLUSTER_GROUP-INSTANCE."""
    arn = str(_describe(site)["ClusterArn"])
    nodes = list(_nodes(site))
    for each in nodes:
        if node in (each["InstanceId"], each["InstanceGroupName"]):
            status = each["InstanceStatus"]["Status"]
            if status != "Running":
                raise SlipwayError(
                    f"{each['InstanceId']} of {each['InstanceGroupName']} is {status}: "
                    f"{each['InstanceStatus'].get('Message') or 'AWS says no more'}",
                    cure=f"`./inv cluster.nodes {site.cluster.path}` lists those that run.",
                )
            identifier = arn.rpartition("/")[2]
            return (
                f"sagemaker-cluster:{identifier}_{each['InstanceGroupName']}-{each['InstanceId']}"
            )
    known = sorted({each["InstanceGroupName"] for each in nodes})
    raise UsageError(
        f"{site.cluster.name} has no node or group {node!r}{did_you_mean(node, known)}",
        cure=f"`./inv cluster.nodes {site.cluster.path}` lists them.",
    )


def _describe(site: ClusterSite) -> Any:
    name = site.cluster.name
    answer = site.account.call("sagemaker", "DescribeCluster", NO_CLUSTER, ClusterName=name)
    if answer is None:
        raise UsageError(
            f"there is no cluster {name!r} in {site.cluster.region}",
            where=site.cluster.where(("name",)),
            cure=f"`./inv cluster.up {site.cluster.path}` makes it.",
        )
    return answer


def _nodes(site: ClusterSite) -> Any:
    return site.account.pages(
        "sagemaker", "ListClusterNodes", "ClusterNodeSummaries", ClusterName=site.cluster.name
    )


def _events(site: ClusterSite) -> list[dict[str, str]]:
    """The last ones, the newest at the end."""
    answer = site.account.call(
        "sagemaker",
        "ListClusterEvents",
        ClusterName=site.cluster.name,
        SortOrder="Descending",
        MaxResults=_LAST_EVENTS,
    )
    return [
        {
            "time": event["EventTime"].isoformat(timespec="seconds"),
            "level": event.get("EventLevel", ""),
            "what": event.get("InstanceId") or event.get("InstanceGroupName") or "cluster",
            "text": printable(event.get("Description", "")),
        }
        for event in reversed(answer.get("Events", []))
    ]
