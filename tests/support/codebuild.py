"""CodeBuild on loopback: requests are checked by botocore's model, and a batch's builds are run
here, each by the commands of its buildspec in the source that the project has in S3.

What AWS documents of a batch (API reference, BuildBatch): phases SUBMITTED, IN_PROGRESS, then how
it ended; `complete`; a summary for each build that has begun. Everything else goes to moto.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3

from slipway.cluster.aws_model import request_faults
from tests.support.aws_door import aws_door
from tests.support.loopback_files import serve_requests

SERVICE = "CodeBuild_20161006"
#: A new account may run one build at once, and CodeBuild queues five times as many as may run.
QUEUE_FULL = "Cannot have more than 1 builds in queue for the account"


class CodeBuild:
    """One account's CodeBuild. `broken`: images whose build fails; `waits`: whose never begins."""

    def __init__(self, folder: Path, upstream: str, environment: Mapping[str, str]) -> None:
        self.calls: list[str] = []
        self.projects: dict[str, Any] = {}
        self.batches: dict[str, Any] = {}
        self.broken: set[str] = set()
        self.waits: set[str] = set()
        self.url = ""
        self.folder, self.upstream, self.environment = folder, upstream, environment
        self.threads: list[threading.Thread] = []

    def answer(self, call: str, request: Any) -> tuple[int, Any]:
        """The answer to a call that the model has no objection to."""
        self.calls.append(call)
        faults = request_faults("codebuild", call, request)
        if faults:
            text = "; ".join(f"{fault.field}: {fault.what}" for fault in faults)
            return 400, {"__type": "InvalidInputException", "message": text}
        if call == "BatchGetProjects":
            known = [self.projects[name] for name in request["names"] if name in self.projects]
            return 200, {"projects": known}
        if call in ("CreateProject", "UpdateProject"):
            if (call == "CreateProject") == (request["name"] in self.projects):
                kind = "ResourceAlreadyExists" if call == "CreateProject" else "ResourceNotFound"
                return 400, {"__type": f"{kind}Exception", "message": request["name"]}
            self.projects[request["name"]] = request
            return 200, {"project": {"name": request["name"]}}
        if call == "StartBuildBatch":
            return 200, {"buildBatch": self._start(request)}
        if call == "StopBuildBatch":
            batch = self.batches[request["id"]]
            batch.update(complete=True, buildBatchStatus="STOPPED")
            return 200, {"buildBatch": batch}
        assert call == "BatchGetBuildBatches"
        known = [self.batches[name] for name in request["ids"] if name in self.batches]
        missing = [name for name in request["ids"] if name not in self.batches]
        return 200, {"buildBatches": known, "buildBatchesNotFound": missing}

    def _start(self, request: Any) -> dict[str, Any]:
        name = f"{request['projectName']}:{len(self.batches)}"
        groups = [
            {"identifier": build["identifier"], "dependsOn": [], "ignoreFailure": False}
            for build in json.loads(request["buildspecOverride"])["batch"]["build-list"]
        ]
        batch = {
            "id": name,
            "buildBatchStatus": "IN_PROGRESS",
            "currentPhase": "SUBMITTED",
            "complete": False,
            "buildGroups": groups,
        }
        self.batches[name] = batch
        source = self.projects[request["projectName"]]["source"]["location"]
        thread = threading.Thread(
            target=self._build, args=(batch, source, json.loads(request["buildspecOverride"]))
        )
        self.threads.append(thread)
        thread.start()
        return batch

    def _build(self, batch: dict[str, Any], source: str, buildspec: Any) -> None:
        bucket, _, key = source.partition("/")
        statuses = []
        for group, build in zip(
            batch["buildGroups"], buildspec["batch"]["build-list"], strict=True
        ):
            image = build["env"]["variables"]["IMAGE"]
            if image in self.waits:
                continue
            data = boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
            place = self.folder / batch["id"] / group["identifier"]
            unpack(data, place)
            words = {**buildspec["env"]["variables"], **build["env"]["variables"]}
            # Each build has a machine of its own; what it takes from the cache is a copy.
            code = int(image in self.broken)
            for command in () if code else buildspec["phases"]["build"]["commands"]:
                code = (
                    code
                    or subprocess.run(
                        [buildspec["env"]["shell"], "-c", command],
                        cwd=place,
                        env={**os.environ, **self.environment, **words},
                        check=False,
                        capture_output=True,
                    ).returncode
                )
            statuses.append("FAILED" if code else "SUCCEEDED")
            group["currentBuildSummary"] = {
                "arn": f"arn:aws:codebuild:us-east-1:123456789012:build/{group['identifier']}",
                "buildStatus": statuses[-1],
            }
        ended = "SUCCEEDED" if {*statuses} == {"SUCCEEDED"} else "FAILED"
        batch["phases"] = [{"phaseType": "SUBMITTED", "phaseStatus": "SUCCEEDED"}]
        if self.waits:
            contexts = [{"message": QUEUE_FULL}]
            phase = {"phaseType": "IN_PROGRESS", "phaseStatus": "FAILED", "contexts": contexts}
            batch["phases"].append(phase)
        batch.update(complete=True, currentPhase=ended, buildBatchStatus=ended)


def unpack(data: bytes, place: Path) -> None:
    """A zip with the modes that it says, as CodeBuild's agent on Linux does."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for entry in archive.infolist():
            path = Path(archive.extract(entry, place))
            path.chmod(entry.external_attr >> 16 & 0o7777)


@contextmanager
def codebuild(folder: Path, api: str, environment: Mapping[str, str]) -> Iterator[CodeBuild]:
    """Serve one until the end of the block, in front of the AWS API at the URL `api`."""
    state = CodeBuild(folder, api.removeprefix("http://"), environment)

    def answer(service: str, call: str, body: bytes) -> tuple[int, Any] | None:
        return state.answer(call, json.loads(body)) if service == SERVICE else None

    with serve_requests(aws_door(answer, state.upstream)) as host:
        state.url = f"http://{host}"
        yield state
        for build in state.threads:
            build.join()
