"""One of `addons` or `tools`, as it is written in versions.yaml."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from packaging.requirements import InvalidRequirement, Requirement
from pydantic import AfterValidator, Field

from slipway.matrix.addons.source_entries import CheckCommand, SourceEntry
from slipway.matrix.addons.system_entries import SystemEntry
from slipway.matrix.field_types import (
    AbsolutePath,
    Entry,
    Environment,
    Exact,
    PlainPath,
    Prose,
    RepositoryPath,
    Specifier,
    Text,
    matching,
    refuse,
    release_or,
    single_lines,
)
from slipway.matrix.model import Architecture, Platform


class ReplaceEntry(Entry):
    """The oldest version that may stay where a base carries the add-on."""

    version: Exact
    because: Prose


def checked_requirement(text: str) -> str:
    """What may stand in `requires`: one requirement that an index can answer."""
    try:
        parsed = Requirement(text)
    except InvalidRequirement:
        raise refuse(f"{text!r} is not a requirement", 'as "transformers[torch]>=5,<6"') from None
    if parsed.url is not None:
        raise refuse(
            f"{text!r} names a place and no version: nothing of it could be locked for others",
            "publish it to an index that pip knows, and name it with its version",
        )
    return text


def _labels(labels: Mapping[str, str]) -> Mapping[str, str]:
    single_lines(labels)
    for name in labels:
        if not re.fullmatch(r"[a-z0-9]+([.\-/_][a-z0-9]+)*", name):
            raise refuse(f"{name!r} cannot name a label", "as com.example.team")
        if name.startswith(("org.opencontainers.image.", "io.slipway.")):
            raise refuse(f"{name} is written by Slipway", "choose a name of your own domain")
    return labels


class OnlyEntry(Entry):
    """The images that an add-on is for. A key that is not there matches everything."""

    images: list[Text] = []
    groups: list[Text] = []
    bases: list[Text] = []
    families: list[Text] = []
    device: Literal["gpu", "cpu"] | None = None
    architecture: Architecture | None = None
    torch: Specifier = ""
    python: Specifier = ""


class MismatchEntry(Entry):
    """What an add-on needs on a base whose CUDA toolkit is not the one of its torch."""

    env: Environment
    because: Prose


_ACCOUNT = "([a-z_][a-z0-9_-]*|[0-9]{1,9})"


class FilesEntry(Entry):
    """Files of the repository that go into an image: one, or a folder with all that is below."""

    from_: RepositoryPath = Field(alias="from")
    to: PlainPath
    mode: Annotated[str, matching("^0?[0-7]{3}$")] | None = None
    owner: Annotated[str, matching("^[0-9]{1,9}(:[0-9]{1,9})?$")] | None = None


class AddonEntry(Entry):
    """One of `addons`: a package of its own name and `version`, or any of the others together."""

    version: Annotated[str, AfterValidator(lambda text: release_or("axis", text))] | None = None
    tag: Annotated[str, matching("^[a-z]{1,16}$")] | None = None
    requires: list[Annotated[str, AfterValidator(checked_requirement)]] = []
    requirements: RepositoryPath | None = None
    index: Annotated[str, matching("^[a-z][a-z0-9-]{0,39}$")] | None = None
    labels: Annotated[dict[str, str], AfterValidator(_labels)] = {}
    files: list[FilesEntry] = []
    source: SourceEntry | None = None
    system: SystemEntry | None = None
    check: CheckCommand | None = None
    workdir: PlainPath | None = None
    user: Annotated[str, matching(f"^{_ACCOUNT}(:{_ACCOUNT})?$")] | None = None
    needs: list[Text] = []
    only: OnlyEntry | None = None
    on_request: bool = False
    because: Prose
    platforms: list[Platform] | None = None
    with_: dict[str, Exact] = Field(default={}, alias="with")
    env: Environment = {}
    replace_below: ReplaceEntry | None = None
    on_cuda_mismatch: MismatchEntry | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        """What it brings beyond a package of its own name, by the keys that say so."""
        keys = ("requires", "requirements", "files", "source", "system", "workdir", "user")
        return tuple(key for key in keys if getattr(self, key))


class ToolEntry(Entry):
    """One of `tools`."""

    version: Exact
    wheel: Annotated[str, matching(r"^[a-z0-9-]+==[0-9][0-9a-z.]*$")]
    member: Annotated[str, matching("^[^/ ][^ ]*$")]
    path: AbsolutePath
    because: Prose
