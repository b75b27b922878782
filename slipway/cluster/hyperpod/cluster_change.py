"""`cluster.up` and `cluster.delete`: part after part, from whatever there is to all or nothing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from slipway.cluster.aws_account import refusal_code
from slipway.cluster.documents import (
    ClusterFile,
    ClusterParts,
    make_cluster_request,
    read_cluster_file,
)
from slipway.cluster.hyperpod.account_parts import made_parts
from slipway.cluster.hyperpod.cluster_lease import ClusterLease, hold_lease
from slipway.cluster.hyperpod.cluster_part import ClusterPart, ClusterSite
from slipway.cluster.hyperpod.cluster_plan import (
    ClusterPlan,
    cluster_parts,
    find_parts,
    open_site,
    plan_cluster,
)
from slipway.cluster.hyperpod.consistency import (
    KNOWN_S,
    find_when_known,
    is_unknown,
    retry_while_unknown,
)
from slipway.cluster.hyperpod.refusals import file_errors
from slipway.core import Project, SlipwayError, UsageError, human_seconds, print_table, say
from slipway.storage import ask_user

POLL_S = 15.0
#: A cluster of many nodes takes most of an hour; FSx and the gateway ten minutes.
PATIENCE_S = 2 * 3600.0
#: What a network may still hold for a while, once the cluster is gone: interfaces of its nodes.
_BUSY = (
    *("DependencyViolation", "InvalidIPAddress.InUse", "AuthFailure.InUse", "DeleteConflict"),
    "ConflictException",  # a cluster that is being made or changed
)
#: What is made by its name, or belongs to another part, and is there although it was not seen.
_THERE = (
    *("EntityAlreadyExists", "InvalidGroup.Duplicate", "InvalidPermission.Duplicate"),
    *("InvalidSubnet.Conflict", "Resource.AlreadyAssociated", "RouteAlreadyExists"),
)


def bring_up_cluster(root: Path, file: str, *, yes: bool, dry_run: bool) -> None:
    """Print the plan, ask, and make what is not there. A run that was cut goes on by being run
    again. Raises SlipwayError."""
    cluster = read_cluster_file(Path(file))
    plan = plan_cluster(root, cluster)
    _show_plan(plan)
    plan.raise_problems()
    if dry_run:
        return
    changes = _changed_groups(plan.site) if "cluster" in plan.there else []
    if not plan.to_make and not changes:
        _wait_for(plan.parts[-1], plan.there["cluster"], None)
        say(f"{cluster.name} is there: `./inv cluster.nodes {file}`")
        return
    title = f"{len(plan.to_make)} parts are to be made" if plan.to_make else "groups are to change"
    if not ask_user(f"{title}: go on?", yes=yes):
        raise UsageError("nothing was made")
    with _cut_note(f"./inv cluster.up {file}"):
        # The lease lies in the bucket, so that this comes before it; S3 makes it once.
        bucket = plan.parts[0]
        plan.site.ids["bucket"] = bucket.find() or _make(bucket)
        with hold_lease(plan.site.account, cluster.bucket, "cluster.up") as lease:
            for part in plan.parts:
                _ensure(plan.site, part, lease)
            if changes:
                _update_groups(plan.site, changes)
                _wait_for(plan.parts[-1], plan.site.ids["cluster"], lease)
    say(f"{cluster.name} is in service. next: ./inv cluster.nodes {file}")


def delete_cluster(root: Path, file: str, *, yes: bool, keep_storage: bool) -> None:
    """List what there is, ask, remove all of it, and look again. With `keep_storage` the file
    system stays, and the network that it is in. Raises SlipwayError for what is still there."""
    cluster = read_cluster_file(Path(file))
    site = open_site(cluster)
    parts = cluster_parts(site, Project.at(root))
    there = find_parts(site, parts)
    kept = _kept_parts(parts) if keep_storage else frozenset()
    doomed = [part for part in reversed(parts) if part.name in there and part.name not in kept]
    _show_removal(cluster, parts, there, kept)
    if not doomed:
        say(f"nothing of {cluster.name} is left in {cluster.region}")
        return
    question = f"{len(doomed)} parts are removed for good"
    if "storage" in there and not keep_storage:
        question += f", and all data on {there['storage']} with them"
    if not ask_user(f"{question}: go on?", yes=yes):
        raise UsageError("nothing was removed")
    with _cut_note(f"./inv cluster.delete {file}"), contextlib.ExitStack() as stack:
        lease = None
        if "bucket" in there:
            lease = stack.enter_context(hold_lease(site.account, cluster.bucket, "cluster.delete"))
        for part in doomed:
            if part.remove is not None:
                _remove(part, there[part.name], lease)
    left = _what_is_left(site, parts, kept)
    if left:
        raise SlipwayError(
            f"still there: {', '.join(f'{name} ({found})' for name, found in left.items())}",
            where=cluster.region,
            cure=f"Run `./inv cluster.delete {file}` again.",
        )
    say(f"looked again: nothing of {len(doomed)} parts is left in {cluster.region}")


def _what_is_left(
    site: ClusterSite, parts: Sequence[ClusterPart], kept: frozenset[str]
) -> dict[str, str]:
    """The parts that are still there, also after a while: what has gone may be seen for longer."""
    until = time.monotonic() + KNOWN_S
    while True:
        there = find_parts(site, parts)
        left = {name: found for name, found in there.items() if name not in kept}
        if not left or time.monotonic() >= until:
            return left
        time.sleep(POLL_S)


def _show_plan(plan: ClusterPlan) -> None:
    cluster = plan.site.cluster
    print_table(("part", "state", "paid for"), list(plan.rows()))
    version = cluster.entry.image_version or "the newest"
    how = "in the call" if cluster.entry.slurm == "api" else "by lifecycle scripts"
    say(f"machine image: {version}; Slurm is configured {how}; zone {cluster.entry.zone}")
    for line in plan.costs():
        say(line)
    for note in plan.notes:
        say(f"note: {note}")
    for line in _what_stays(cluster):
        say(line)


def _show_removal(
    cluster: ClusterFile,
    parts: Sequence[ClusterPart],
    there: dict[str, str],
    kept: frozenset[str],
) -> None:
    rows = [
        (part.title, there[part.name], part.costs, "stays" if part.name in kept else "goes")
        for part in parts
        if part.name in there
    ]
    if rows:
        print_table(("part", "id", "paid for", ""), rows)
    for line in _what_stays(cluster):
        say(line)


def _what_stays(cluster: ClusterFile) -> Iterator[str]:
    """After `delete`: what is paid for all the same, or may be."""
    network, storage = cluster.entry.network, cluster.entry.storage
    if network != "make":
        yield f"stays, as the file only names it: {network.subnet}, {network.security_group}"
    if storage.file_system:
        yield f"stays, as the file only names it: {storage.file_system}"
    yield f"stays: CloudWatch's logs below /aws/sagemaker/Clusters/{cluster.name}; images in ECR"


def _kept_parts(parts: Sequence[ClusterPart]) -> frozenset[str]:
    """The file system, and what it is in."""
    names = [part.name for part in parts]
    if "storage" not in names:
        return frozenset()
    first = names.index("vpc") if "vpc" in names else names.index("storage")
    return frozenset(names[first : names.index("storage") + 1])


def _ensure(site: ClusterSite, part: ClusterPart, lease: ClusterLease) -> None:
    """Have the part there and ready. One that goes meanwhile, as after a `cluster.delete` that was
    cut, is made again."""
    is_ready = False
    while not is_ready:
        lease.renew()
        site.ids[part.name] = identifier = part.find() or _make(part)
        is_ready = _wait_for(part, identifier, lease)


def _make(part: ClusterPart) -> str:
    """Make a part and look until it is seen: a look that misses it would have it made twice."""
    try:
        made = retry_while_unknown(part.make)
    except SlipwayError as error:
        if refusal_code(error) not in _THERE:
            raise
        identifier = find_when_known(part.find)  # of a run that was cut, a moment ago
        if identifier is None:
            raise
    else:
        identifier = find_when_known(part.find) or made
    say(f"{part.title}: {identifier}")
    return identifier


def _wait_for(part: ClusterPart, identifier: str, lease: ClusterLease | None) -> bool:
    """Whether it is ready; False where it has gone."""
    started = time.monotonic()
    told = started
    while not retry_while_unknown(lambda: part.ready(identifier)):
        waited = time.monotonic() - started
        if waited > PATIENCE_S:
            raise SlipwayError(
                f"{part.title} is not ready after {human_seconds(waited)}",
                where=identifier,
                cure="Run the same again: it goes on from here.",
            )
        if time.monotonic() - told >= 60:
            say(f"{part.title}: not ready yet, {human_seconds(waited)}")
            told = time.monotonic()
        time.sleep(POLL_S)
        if lease is not None:
            lease.renew()
        if part.find() != identifier:
            return part.ready(identifier)  # which says why, where it has failed
    return True


def _remove(part: ClusterPart, identifier: str, lease: ClusterLease | None) -> None:
    """Until it is gone: a network waits for the interfaces of nodes that are on their way out."""
    assert part.remove is not None
    started = time.monotonic()
    asked = False
    while True:
        reason = "it is still there"
        if not asked:
            try:
                part.remove(identifier)
                asked = True
            except SlipwayError as error:
                code = refusal_code(error)
                asked = is_unknown(code)  # seen for a moment longer than it was there
                if not asked and code not in _BUSY:
                    raise
                reason = error.what
        found = part.find()
        if found is None:
            say(f"{part.title}: removed")
            return
        if found != identifier:  # a run that was cut before it could see the first had made two
            identifier, asked = found, False
        if time.monotonic() - started > PATIENCE_S:
            raise SlipwayError(
                f"{part.title} does not go: {reason}",
                where=identifier,
                cure="What still uses it is in its page of the console; then run the same again.",
            )
        time.sleep(POLL_S)
        if lease is not None:
            lease.renew()


def _changed_groups(site: ClusterSite) -> list[str]:
    """Groups whose number of nodes the file has changed. Raises UsageError for other changes."""
    cluster = site.cluster
    there = site.account.call("sagemaker", "DescribeCluster", ClusterName=cluster.name)
    now = {group["InstanceGroupName"]: group for group in there["InstanceGroups"]}
    wanted = _groups(site, ClusterParts.unmade(cluster))
    changed = []
    for name, group in wanted.items():
        if name not in now:
            changed.append(name)
        elif now[name].get("InstanceType", group["InstanceType"]) != group["InstanceType"]:
            raise UsageError(
                f"{name} is of {now[name]['InstanceType']}, and a group cannot change its type",
                where=cluster.where(("groups", name)),
                cure="Give the new type a group of its own.",
            )
        elif now[name]["TargetCount"] != group["InstanceCount"]:
            changed.append(name)
    for name in now:
        if name not in wanted:
            raise UsageError(
                f"the cluster has a group {name}, and the file has not",
                where=cluster.where(("groups",)),
                cure="`aws sagemaker update-cluster`, with InstanceGroupsToDelete, removes a group "
                "with its nodes.",
            )
    return changed


def _update_groups(site: ClusterSite, changed: Sequence[str]) -> None:
    parts = made_parts(site)
    wanted = _groups(site, parts)
    request = make_cluster_request(site.cluster, parts)
    with file_errors(site.cluster, ("groups",), request):
        site.account.call(
            "sagemaker",
            "UpdateCluster",
            ClusterName=site.cluster.name,
            InstanceGroups=[wanted[name] for name in changed],
        )
    say(f"changed: {', '.join(changed)}")


def _groups(site: ClusterSite, parts: ClusterParts) -> dict[str, Any]:
    request = make_cluster_request(site.cluster, parts)
    return {group["InstanceGroupName"]: group for group in request.parameters["InstanceGroups"]}


@contextlib.contextmanager
def _cut_note(command: str) -> Iterator[None]:
    try:
        yield
    except BaseException:
        say(f"cut: what is done stays; `{command}` goes on from here")
        raise
