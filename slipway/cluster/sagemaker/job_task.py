"""What `inv sagemaker.job` does: one image's job as a document, as code, or asked for."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from slipway.cluster import option_values
from slipway.cluster.sagemaker.sdk_code import FORMS, render_job
from slipway.cluster.sagemaker.training_jobs import submit_training_job
from slipway.cluster.sagemaker.training_request import TrainingOptions, make_training_request
from slipway.core import Project, SlipwayError, UsageError, say, write_atomic
from slipway.matrix import Image, load_matrix, select_images
from slipway.records import load_record

_ECR = re.compile(r"\d{12}\.dkr\.ecr(?:-fips)?\.(?P<region>[a-z0-9-]+)\.[a-z0-9.-]+/.+")


@dataclass(frozen=True)
class JobChoice:
    """Which image, where, and what becomes of the job: its document, code for an SDK, or itself.

    Without `image_uri` the job takes what this checkout has pushed to ECR in `region`.
    """

    region: str | None = None
    image_uri: str = ""
    form: str = "json"
    submit: bool = False
    output: str = ""


def write_training_job(
    root: Path,
    name: str,
    options: TrainingOptions,
    choice: JobChoice,
    *,
    current_build_id: Callable[[Image], str],
) -> None:
    """Print the job of image `name`, write it to a file, or ask SageMaker for it.

    Raises SlipwayError for what cannot work.
    """
    project = Project.at(root)
    form = option_values.one_of_values(choice.form, "--as", FORMS)
    if choice.submit and form != "json":
        raise UsageError(f"--submit and --as {form} exclude each other")
    images = select_images(load_matrix(project.versions), [name])
    if len(images) != 1:
        raise UsageError(
            f"{name!r} names {len(images)} images, and a job is of one",
            cure=f"One of {', '.join(image.name for image in images)}.",
        )
    (image,) = images
    for option, value in (
        ("--instance", options.instance),
        ("--role", options.role),
        ("--output-uri", options.output),
    ):
        if not value:
            raise UsageError(f"{option} is missing", cure="`./inv --help sagemaker.job` explains.")
    uri, region = _image_uri(project, image, choice)
    request = make_training_request(
        options, image, uri, project.launcher, datetime.now(timezone.utc)
    )
    record = load_record(project, image.name)
    if not choice.image_uri and (
        record.built is None or record.built.build_id != current_build_id(image)
    ):
        say(f"note: {uri} is not the build that the matrix gives now: `./inv ship {image.name}`")
    if image.platform != "sagemaker":
        say(f"note: {image.name} is made for {image.platform}, not for SageMaker")
    for note in request.notes:
        say(f"note: {note}")
    if choice.submit:
        print(submit_training_job(request, region))
        say(f"next: ./inv sagemaker.status {request.name} --region {region}")
        return
    text = render_job(request, form, region)
    if choice.output and choice.output != "-":
        write_atomic(Path(choice.output), text)
        say(f"wrote {choice.output}")
    else:
        sys.stdout.write(text)
    if form == "json":
        say(f"its code is to be at {request.source_uri}: --submit puts it there")


def _image_uri(project: Project, image: Image, choice: JobChoice) -> tuple[str, str]:
    """An ECR reference of the image, and its region."""
    if choice.image_uri:
        match = _ECR.fullmatch(choice.image_uri)
        if match is None:
            raise UsageError(
                f"--image-uri {choice.image_uri!r} is in no ECR, and SageMaker takes images from "
                "there only",
                cure=f"`./inv push {image.name} --target ecr --region REGION` pushes it.",
            )
        return choice.image_uri, match["region"]
    pushed = load_record(project, image.name).pushed
    places = {}
    for push in pushed.values():
        match = _ECR.fullmatch(push.uri)
        if match is not None and choice.region in (None, match["region"]):
            name = push.uri.rpartition("/")
            places[f"{name[0]}/{name[2].partition(':')[0]}@{push.digest}"] = match["region"]
    if len(places) != 1:
        raise SlipwayError(
            f"{image.name} is in {len(places)} places"
            if places
            else f"{image.name} is in no ECR" + (f" of {choice.region}" if choice.region else ""),
            cure=f"`./inv push {image.name} --target ecr --region REGION`, or --image-uri URI."
            if not places
            else "Give one of them: --region REGION or --image-uri URI.",
        )
    return next(iter(places.items()))
