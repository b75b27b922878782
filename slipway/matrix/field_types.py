"""Values of versions.yaml: what a version, a path or a name may look like, and the model of all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    StringConstraints,
)
from pydantic_core import PydanticCustomError

_PLAIN_NAME = "[A-Za-z0-9_.+@=-]+"  # what a Dockerfile takes as it is


def refuse(what: str, cure: str) -> PydanticCustomError:
    """What is wrong with a value, and what to write instead; to be raised."""
    return PydanticCustomError("slipway", "{what}", {"what": what, "cure": cure})


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _exact(text: str) -> str:
    """A version that means one release: parsed, without operators, wildcards or a local part."""
    try:
        if Version(text).local is None and text == text.strip().lower():
            return text
    except InvalidVersion:
        pass
    raise refuse(
        f"{text!r} is not one exact version",
        "pin one release, as 5.1.4: no ranges, no `latest`, no local part (+cpu)",
    )


def _exact_or(word: str, text: str) -> str:
    return text if text == word else _exact(text)


def _release(text: str) -> str:
    """One exact version of a package: a build of its own may have a local part."""
    public, plus, local = text.partition("+")
    if plus and not re.fullmatch("[a-z0-9]+([.][a-z0-9]+)*", local):
        raise refuse(f"{text!r} is not one exact version", "as 2.8.3+cu130torch2.13")
    return _exact(public) and text


def release_or(word: str, text: str) -> str:
    """One exact version, or `word`."""
    return text if text == word else _release(text)


def _account(text: str) -> str:
    if not re.fullmatch("[0-9]{12}", text):
        raise refuse(
            f"{text!r} is not an AWS account: those have twelve digits",
            "keep leading zeros, and quote it",
        )
    return text


def single_lines(values: Mapping[str, str]) -> None:
    """Raises where a value is more than one line."""
    for name, value in values.items():
        if not value.isprintable():
            raise refuse(f"the value of {name} is more than a line of text", "keep it on one line")


def _environment(env: Mapping[str, str]) -> Mapping[str, str]:
    single_lines(env)
    for name in env:
        if not re.fullmatch("[A-Z_][A-Z0-9_]*", name):
            raise refuse(f"{name!r} cannot name an environment variable", "as PYTHONUNBUFFERED")
        if name.startswith(("NCCL_", "FI_")):
            raise refuse(
                f"{name} must not be in an image: pyxis lets the image's environment win over the "
                "job's, so a job could not change it",
                "leave it to the launcher, which knows the instance and its network",
            )
    return env


def _repository_path(text: str) -> str:
    parts = text.rstrip("/").split("/")
    if not all(re.fullmatch(_PLAIN_NAME, part) and set(part) != {"."} for part in parts):
        raise refuse(
            f"{text!r} is no path of the repository",
            "from its root, as configs/trainer/ (a folder) or configs/a.yaml, in plain letters",
        )
    return text


def matching(pattern: str) -> StringConstraints:
    """Text of this form."""
    return StringConstraints(pattern=pattern, min_length=1)


Text = Annotated[str, StringConstraints(min_length=1)]
Prose = Annotated[str, StringConstraints(min_length=1), AfterValidator(_one_line)]
Exact = Annotated[str, AfterValidator(_exact)]
Account = Annotated[str, AfterValidator(_account)]
RepositoryPath = Annotated[str, AfterValidator(_repository_path)]
PlainPath = Annotated[str, matching(rf"^/$|^(/{_PLAIN_NAME})+/?$")]
AbsolutePath = Annotated[str, matching("^/[^ ]*$")]
Repository = Annotated[str, matching(r"^[a-z0-9]+([._/-][a-z0-9]+)*$")]
Cuda = Annotated[str, matching(r"^[0-9]{2}\.[0-9]$")]
Carried = Annotated[str, AfterValidator(lambda text: _exact_or("unknown", text))]
TorchVersion = Annotated[str, AfterValidator(lambda text: _exact_or("none", text))]
AxisVersion = Annotated[str, AfterValidator(lambda text: release_or("none", text))]
Environment = Annotated[dict[str, str], AfterValidator(_environment)]


class Entry(BaseModel):
    """Nothing is converted, and nothing unknown is let through."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


def _specifier(text: str) -> str:
    try:
        SpecifierSet(text)
    except InvalidSpecifier:
        raise refuse(f"{text!r} names no versions", 'as "<2.6" or "==2.3.*"') from None
    return text


Specifier = Annotated[str, AfterValidator(_specifier)]
