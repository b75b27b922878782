"""Names of what we make: our repository, the immutable tag, and its parts back from a tag."""

from __future__ import annotations

import re
from dataclasses import dataclass

from slipway.core import UsageError
from slipway.matrix.model import AXIS, Image, Platform

_TAG = re.compile(
    r"(?P<torch>[0-9]+(?:\.[0-9a-z]+)+)-py(?P<python>[0-9][0-9]{1,2})-(?:cu(?P<cuda>[0-9]{3})|cpu)"
    r"-(?P<os>[a-z][a-z0-9.]*)-(?P<platform>sagemaker|hyperpod)"
    r"-ds(?P<deepspeed>none|[0-9]+(?:\.[0-9a-z]+)+)-(?P<build>[0-9a-f]{12})"
)
_LONGEST = 128  # of an OCI tag: opencontainers/distribution-spec:spec.md


@dataclass(frozen=True)
class ImageTag:
    """What an immutable tag of ours says. `cuda` is the one torch was built with, None for CPU."""

    torch: str
    python: str
    cuda: str | None
    os: str
    platform: Platform
    deepspeed: str | None
    build: str  # the first twelve digits of the build id

    @property
    def stem(self) -> str:
        """All but the build: the same for every build of an image."""
        cuda = f"cu{self.cuda.replace('.', '')}" if self.cuda else "cpu"
        python = self.python.replace(".", "")
        deepspeed = self.deepspeed or "none"
        return f"{self.torch}-py{python}-{cuda}-{self.os}-{self.platform}-ds{deepspeed}"

    def __str__(self) -> str:
        return f"{self.stem}-{self.build}"


def parse_image_tag(tag: str) -> ImageTag:
    """The parts of an immutable tag. Raises UsageError where it is not one (an alias, say)."""
    match = _TAG.fullmatch(tag)
    if match is None or len(tag) > _LONGEST:
        raise UsageError(
            f"{tag!r} is not a tag of a Slipway image",
            cure="those are {torch}-py{NNN}-{cuNNN|cpu}-{os}-{platform}-ds{version|none}-{build}",
        )
    python, cuda = match["python"], match["cuda"]
    return ImageTag(
        torch=match["torch"],
        python=f"{python[0]}.{python[1:]}",
        cuda=f"{cuda[:2]}.{cuda[2:]}" if cuda else None,
        os=match["os"],
        platform="sagemaker" if match["platform"] == "sagemaker" else "hyperpod",
        deepspeed=None if match["deepspeed"] == "none" else match["deepspeed"],
        build=match["build"],
    )


def image_tag(image: Image, build_id: str) -> str:
    """The immutable tag of one build of an image."""
    return str(_tag(image, build_id[:12]))


def tag_stem(image: Image) -> str:
    """The immutable tag without the build: what the image is, whatever build of it."""
    return _tag(image, "").stem


def repository_name(image: Image, prefix: str) -> str:
    """Our repository of an image; why the default prefix has "sagemaker" in it: versions.yaml."""
    return f"{prefix}/{image.repository}"


def _tag(image: Image, build: str) -> ImageTag:
    facts, deepspeed = image.base.facts, image.addon(AXIS)
    return ImageTag(
        torch=facts.torch,
        python=facts.python,
        cuda=facts.torch_cuda,
        os=facts.os,
        platform=image.platform,
        deepspeed=deepspeed.version if deepspeed else None,
        build=build,
    )
