"""The edge to CodeBuild: the project is made or brought up to date, batches are started, watched,
stopped."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
import uuid
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from slipway.cluster.aws_model import check_parameters
from slipway.cluster.fanout.codebuild_documents import (
    PROJECT,
    CodeBuildOptions,
    CodeBuildPlace,
    base_repositories,
    batch_buildspec,
    batches_of,
    check_options,
    identified,
    project_request,
    role_documents,
)
from slipway.cluster.fanout.fanout_plan import FanoutPlan, PlannedImage
from slipway.cluster.fanout.image_results import ImageResult, show_results
from slipway.cluster.fanout.run_folder import checkout_files
from slipway.core import UsageError, human_bytes, printable, say
from slipway.matrix import Image
from slipway.registry import aws_errors, connect_aws

POLL_S = 15.0
_DATED = (1980, 1, 1, 0, 0, 0)  # the oldest that a zip can hold: one content, one archive


def run_codebuild_fanout(
    root: Path,
    plan: FanoutPlan,
    options: CodeBuildOptions,
    images: Sequence[Image],
    *,
    prefix: str,
    as_json: bool,
) -> None:
    """Start batches of one build an image, wait for them, and print the table.

    `images` are those of the plan, `prefix` is that of the repositories to push to.
    Raises SlipwayError where an image failed or was not reached.
    """
    place = check_options(plan, options)
    engine = "--no-engine" not in plan.ship
    if options.plan:
        key = place.archive_key("DIGEST")
        documents = {
            **role_documents(place, base_repositories(images, place), prefix),
            "project": project_request(place, key, engine=engine),
            "batches": [
                json.loads(batch_buildspec(group, plan.ship)) for group in batches_of(plan)
            ],
        }
        print(json.dumps(documents, indent=2))
        return
    key = upload_checkout(root, place)
    client = connect_aws("codebuild", place.region)
    put_project(client, project_request(place, key, engine=engine))
    groups = batches_of(plan)
    started = []
    for group in groups:
        identifier = start_batch(client, batch_buildspec(group, plan.ship))
        started.append(identifier)
        say(f"batch {identifier}: {len(group)} builds")
    if options.detach:
        return
    try:
        batches = wait_for_batches(client, started)
    except KeyboardInterrupt:
        for identifier in started:
            say(f"it goes on; to end it: ./inv fanout.stop {identifier} --region {place.region}")
        raise
    for identifier in started:
        for reason in failure_reasons(batches[identifier]):
            say(f"{identifier}: {printable(reason)}")
    results = [
        result
        for identifier, group in zip(started, groups, strict=True)
        for result in batch_results(batches[identifier], group)
    ]
    show_results(plan.images, results, as_json=as_json)


def upload_checkout(root: Path, place: CodeBuildPlace) -> str:
    """Have the checkout in S3 as a zip named by its content; its key."""
    with tempfile.TemporaryFile(prefix="slipway-checkout-") as archive:
        count = write_checkout_zip(root, archive)
        size = archive.tell()
        archive.seek(0)
        key = place.archive_key(hashlib.sha256(archive.read()).hexdigest())
        say(f"checkout: {count} files, {human_bytes(size)} -> s3://{place.bucket}/{key}")
        archive.seek(0)
        with aws_errors("s3:PutObject", f"s3://{place.bucket}"):
            connect_aws("s3", place.region).upload_fileobj(archive, place.bucket, key)
    return key


def write_checkout_zip(root: Path, stream: IO[bytes]) -> int:
    """CodeBuild takes a source from S3 as a zip; modes are kept, links are what they point to."""
    count = 0
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in checkout_files(root):
            if path.is_file():
                entry = zipfile.ZipInfo(path.relative_to(root).as_posix(), _DATED)
                entry.external_attr = path.stat().st_mode << 16
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, path.read_bytes())
                count += 1
    return count


def put_project(client: Any, request: Mapping[str, Any]) -> None:
    """Have the project be as asked."""
    with aws_errors("codebuild:BatchGetProjects", PROJECT):
        there = client.batch_get_projects(names=[PROJECT])["projects"]
    action = "UpdateProject" if there else "CreateProject"
    with aws_errors(f"codebuild:{action}", PROJECT):
        (client.update_project if there else client.create_project)(**request)


def start_batch(client: Any, buildspec: str) -> str:
    """Its id. A request that boto3 sends again starts no second batch."""
    with aws_errors("codebuild:StartBuildBatch", PROJECT):
        answer = client.start_build_batch(
            projectName=PROJECT, buildspecOverride=buildspec, idempotencyToken=uuid.uuid4().hex
        )
    return str(answer["buildBatch"]["id"])


def stop_batch(identifier: str, region: str) -> None:
    """Have CodeBuild stop a batch with all its builds. Raises UsageError where there is none."""
    client = connect_aws("codebuild", region)
    (batch,) = _get(client, [identifier]).values()
    if batch.get("complete"):
        raise UsageError(f"{identifier} has ended already: {batch['buildBatchStatus']}")
    with aws_errors("codebuild:StopBuildBatch", identifier):
        client.stop_build_batch(id=identifier)
    say(f"{identifier} is told to stop: what its builds have pushed stays")


def wait_for_batches(client: Any, identifiers: Sequence[str]) -> dict[str, Any]:
    """The batches when all have ended, saying what is done meanwhile. boto3 obeys throttling."""
    told: set[tuple[str, str]] = set()
    while True:
        batches = _get(client, identifiers)
        for identifier, batch in batches.items():
            for group in batch.get("buildGroups", ()):
                name = group["identifier"]
                status = (group.get("currentBuildSummary") or {}).get("buildStatus", "")
                if status and status != "IN_PROGRESS" and (identifier, name) not in told:
                    told.add((identifier, name))
                    say(f"{name}: {status}")
        if all(batch.get("complete") for batch in batches.values()):
            return batches
        time.sleep(POLL_S)


def _get(client: Any, identifiers: Sequence[str]) -> dict[str, Any]:
    check_parameters("codebuild", "BatchGetBuildBatches", ids=list(identifiers))
    with aws_errors("codebuild:BatchGetBuildBatches", PROJECT):
        answer = client.batch_get_build_batches(ids=list(identifiers))
    if missing := answer.get("buildBatchesNotFound"):
        raise UsageError(
            f"there is no batch {', '.join(missing)} in {client.meta.region_name}",
            cure="`aws codebuild list-build-batches` lists those there are.",
        )
    return {batch["id"]: batch for batch in answer["buildBatches"]}


def failure_reasons(batch: Mapping[str, Any]) -> Iterator[str]:
    """Why a batch has not done what it should, in CodeBuild's words: builds that never began have
    no record of their own (API reference, BuildBatchPhase)."""
    for phase in batch.get("phases", ()):
        if phase.get("phaseStatus") not in (None, "SUCCEEDED"):
            for context in phase.get("contexts", ()):
                yield ": ".join(filter(None, (context.get("statusCode"), context.get("message"))))


def batch_results(
    batch: Mapping[str, Any], images: Sequence[PlannedImage]
) -> Iterator[ImageResult]:
    """What became of each image whose build has begun."""
    groups = {group["identifier"]: group for group in batch.get("buildGroups", ())}
    for identifier, image in identified(images):
        group = groups.get(identifier, {})
        summary = group.get("currentBuildSummary")
        if not summary:
            continue
        status, arn = str(summary["buildStatus"]), str(summary.get("arn", ""))
        good = status == "SUCCEEDED"
        yield ImageResult(
            image.name,
            image.base,
            image.build_id,
            None if good else f"{status}: {arn}",
            "codebuild",
            attempt=1 + len(group.get("priorBuildSummaryList", ())),
            uri=arn if good else "",
            made=("build",) if good else (),
        )
