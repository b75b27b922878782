"""What uv says when it finds no solution, in terms of bases and add-ons."""

from __future__ import annotations

import re

from slipway.errors import SlipwayError
from slipway.lock.stubs import STUB_PATTERN, without_label

_NAME = r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?"
_STUB = re.compile(rf"(?P<name>{_NAME})==(?P<version>{STUB_PATTERN})")
_NETWORK = (
    "error sending request",
    "dns error",
    "failed to fetch",
    "could not connect",
    "timed out",
)


class NoSolutionError(SlipwayError):
    """No set of offered versions meets the requirements."""


def explain(said: str, requirements: tuple[str, ...], on: str) -> SlipwayError:
    """The error for one failed run. `on` names the base; `said` is uv's standard error."""
    text = " ".join(said.split())
    asked = ", ".join(requirements)
    where = f"base {on}" if on else None
    if any(sign in text.lower() for sign in _NETWORK):
        return SlipwayError(
            f"no package index answered while resolving {asked}: {_last_cause(said)}",
            where=where,
            cure="Check the network and the index, proxy and cert of `pip config list`.",
        )
    for stub in _STUB.finditer(text):
        name, version = stub["name"], without_label(stub["version"])
        wants = _wants(text, name)
        if wants is None:
            continue
        who, specifier = wants
        return SlipwayError(
            f"{asked} cannot be added without moving {name}: {who} asks for {name}{specifier}, "
            f"and there is {name} {version} already",
            where=where,
            cure=f"Choose another version of the add-on in versions.yaml, or list {name} under "
            "`moves:` of the base with a reason.",
        )
    return NoSolutionError(
        f"{asked} cannot be resolved: {without_label(_no_solution(said))}",
        where=where,
        cure="Correct the version in versions.yaml, or offer the package through pip's index-url, "
        "extra-index-url or find-links.",
    )


def _wants(text: str, name: str) -> tuple[str, str] | None:
    """Who asks for another `name`, and which version of it.

    uv says "A==2 depends on B>=1", "all versions of A depend on B>=1" and "you require B>=1".
    """
    specifier = r"(?P<spec>(?:[<>=!~]=?=?[^\s,]+(?:,\s*(?=[<>=!~]))?)+)"
    pattern = rf"(?P<who>\S+) depends? on (?:[^.]*? and )??{re.escape(name)}{specifier}"
    for match in re.finditer(pattern, text):
        if not re.fullmatch(rf"=={STUB_PATTERN}", match["spec"].rstrip(".")):
            return re.sub(r"[<>=].*", "", match["who"]), match["spec"].rstrip(".,")
    direct = re.search(rf"you require {re.escape(name)}{specifier}", text)
    return ("versions.yaml", direct["spec"].rstrip(".,")) if direct else None


def _no_solution(said: str) -> str:
    causes = re.split(r"cause:|╰─▶", said, maxsplit=1)
    return " ".join(causes[-1].split())


def _last_cause(said: str) -> str:
    lines = [line.strip(" ╰─▶") for line in said.splitlines() if line.strip()]
    return lines[-1].removeprefix("cause:").strip() if lines else "no answer"
