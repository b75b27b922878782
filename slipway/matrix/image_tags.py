"""Names of what we make: our repository, the immutable tag, and its parts back from a tag."""

from __future__ import annotations

import re
from dataclasses import dataclass

from slipway.core import UsageError
from slipway.matrix.model import Architecture, Image, Platform

_VERSION = r"[0-9]+(?:\.[0-9a-z]+)*(?:_[0-9a-z.]+)?"
_TAG = re.compile(
    r"(?P<torch>notorch|[0-9]+(?:\.[0-9a-z]+)+(?:_[0-9a-z.]+)?)-py(?P<python>[0-9][0-9]{1,2})-(?:cu(?P<cuda>[0-9]{3})|cpu)"
    r"-(?P<os>[a-z][a-z0-9.]*)-(?P<platform>sagemaker|hyperpod)"
    r"(?:-(?P<architecture>arm64))?"
    rf"(?P<addons>(?:-[a-z]{{1,16}}?(?:none|{_VERSION}))*)-(?P<build>[0-9a-f]{{12}})"
)
_ADDON = re.compile(rf"([a-z]{{1,16}}?)(?:none|({_VERSION}))")
_NO_TORCH = "notorch"
_LONGEST = 128  # of an OCI tag: opencontainers/distribution-spec:spec.md


@dataclass(frozen=True)
class ImageTag:
    """What an immutable tag of ours says.

    `cuda` is the one torch was built with, the toolkit's where the base has no torch, None for CPU.
    """

    torch: str  # "" for an image without it
    python: str
    cuda: str | None
    os: str
    platform: Platform
    addons: tuple[tuple[str, str | None], ...]  # what the group varies over: label, version
    build: str  # the first twelve digits of the build id
    architecture: Architecture = "amd64"

    @property
    def stem(self) -> str:
        """All but the build: the same for every build of an image."""
        cuda = f"cu{self.cuda.replace('.', '')}" if self.cuda else "cpu"
        python = self.python.replace(".", "")
        addons = [f"{label}{taggable(version or 'none')}" for label, version in self.addons]
        machine = [] if self.architecture == "amd64" else [self.architecture]
        torch = taggable(self.torch) or _NO_TORCH
        parts = [torch, f"py{python}", cuda, self.os, self.platform, *machine, *addons]
        return "-".join(parts)

    def __str__(self) -> str:
        return f"{self.stem}-{self.build}"


def taggable(version: str) -> str:
    """A version as a tag can have it: no `+` before the local part."""
    return version.replace("+", "_")


def parse_image_tag(tag: str) -> ImageTag:
    """The parts of an immutable tag. Raises UsageError where it is not one (an alias, say)."""
    match = _TAG.fullmatch(tag)
    if match is None or len(tag) > _LONGEST:
        raise UsageError(
            f"{tag!r} is not a tag of a Slipway image",
            cure="those are {torch|notorch}-py{NNN}-{cuNNN|cpu}-{os}-{platform}[-arm64]"
            "[-{add-on}{version|none}]-{build}",
        )
    python, cuda = match["python"], match["cuda"]
    return ImageTag(
        torch="" if match["torch"] == _NO_TORCH else match["torch"].replace("_", "+"),
        python=f"{python[0]}.{python[1:]}",
        cuda=f"{cuda[:2]}.{cuda[2:]}" if cuda else None,
        os=match["os"],
        platform="sagemaker" if match["platform"] == "sagemaker" else "hyperpod",
        addons=tuple(_addon(part) for part in match["addons"].split("-")[1:]),
        build=match["build"],
        architecture="arm64" if match["architecture"] else "amd64",
    )


def _addon(part: str) -> tuple[str, str | None]:
    match = _ADDON.fullmatch(part)
    assert match  # it is a piece of what _TAG matched
    return match[1], match[2] and match[2].replace("_", "+")


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
    facts = image.base.facts
    return ImageTag(
        torch=image.torch,
        python=facts.python,
        cuda=facts.torch_cuda if facts.torch else facts.cuda,
        os=facts.os,
        platform=image.platform,
        addons=tuple((axis.label, axis.version) for axis in image.axes),
        build=build,
        architecture=facts.architecture,
    )
