"""One resolution by uv: what an add-on needs beyond what is there, for a base's Python."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from slipway.core import SlipwayError
from slipway.records import GLIBC, MACHINES, Pin, pins_of
from slipway.resolve.base_stubs import STUB_PATTERN, is_stub, without_label, write_stubs
from slipway.resolve.pip_settings import PipSettings, host_uv_environment
from slipway.wheels import index_url

_NAME = r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?"
_NETWORK = (
    "error sending request",
    "dns error",
    "failed to fetch",
    "could not connect",
    "timed out",
)


@dataclass(frozen=True)
class ResolveRequest:
    """What to resolve. `present` are packages that may not move; `before` are pins to prefer."""

    requirements: tuple[str, ...]
    python: str  # "3.12"
    arch: str = "amd64"
    present: Mapping[str, str] = field(default_factory=dict)
    before: tuple[Pin, ...] = ()
    on: str = ""  # the base, for messages
    wheels_only: tuple[str, ...] = ()  # packages of which no sdist will do; ":all:" is every one
    closure: bool = True  # False: only what is asked for, without its dependencies
    index: str = ""  # one by its name in versions.yaml, asked before pip's own


@dataclass(frozen=True)
class Resolver:
    """uv with the host's pip settings. `cache` is uv's own and safe for several processes."""

    settings: PipSettings
    cache: Path

    def resolve(self, question: ResolveRequest) -> tuple[Pin, ...]:
        """The pins that `question` needs and that are not present, sorted by name.

        Raises SlipwayError: a conflict with what is present names the package, both sides and the
        cure; other failures say what uv said.
        """
        with tempfile.TemporaryDirectory(prefix="slipway-lock-") as name:
            folder = Path(name)
            stubs = folder / "stubs"
            stubs.mkdir()
            constraints = write_stubs(stubs, question.present)
            (folder / "constraints.txt").write_text(constraints)
            # An sdist's own build must not get a stand-in for setuptools.
            (folder / "build-constraints.txt").write_text(constraints.replace("==", "!="))
            (folder / "requirements.txt").write_text("\n".join(question.requirements) + "\n")
            answer = folder / "pylock.answer.toml"
            if question.before:
                answer.write_text(_preferences(question.before))
            done = self._run(question, folder, answer, stubs)
            if done.returncode != 0:
                raise explain_conflict(done.stderr, question.requirements, question.on)
            pins = pins_of(answer.read_text(), question.python, question.arch, question.before)
        return tuple(pin for pin in pins if not is_stub(pin.version))

    def _run(
        self, question: ResolveRequest, folder: Path, answer: Path, stubs: Path
    ) -> subprocess.CompletedProcess[str]:
        environment = host_uv_environment(self.settings)
        links = [*self.settings.find_links, str(stubs)]
        environment["UV_FIND_LINKS"] = ",".join(links)
        if question.index:
            environment["UV_INDEX"] = " ".join(
                filter(None, (index_url(question.index), environment.get("UV_INDEX", "")))
            )
        environment["UV_CACHE_DIR"] = str(self.cache)
        command = [str(uv_binary()), "pip", "compile", "--quiet", "--no-config"]
        command += ["--format", "pylock.toml", "--output-file", str(answer)]
        command += ["--python", sys.executable, "--python-version", question.python]
        machine = MACHINES[question.arch]
        command += ["--python-platform", f"{machine}-manylinux_2_{GLIBC}"]
        command += ["--constraints", str(folder / "constraints.txt")]
        command += ["--build-constraints", str(folder / "build-constraints.txt")]
        for name in question.wheels_only:
            command += ["--only-binary", name]
        if not question.closure:
            command.append("--no-deps")
        if self.settings.no_index:
            command.append("--no-index")
        command.append(str(folder / "requirements.txt"))
        # Away from the project, whose pyproject.toml has nothing to say about an image.
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )


def uv_binary() -> Path:
    """uv of the environment that Slipway runs in. Raises SlipwayError where it is missing."""
    path = Path(sys.executable).with_name("uv")
    if not path.exists():
        raise SlipwayError(
            f"there is no uv beside {sys.executable}",
            cure="Run through `./inv`, which makes an environment with everything in it.",
        )
    return path


def _preferences(before: tuple[Pin, ...]) -> str:
    """`before` as the output of an earlier run: uv keeps those versions where they still fit."""
    lines = ['lock-version = "1.0"', 'created-by = "slipway"']
    for pin in before:
        lines += ["[[packages]]", f'name = "{pin.name}"', f'version = "{pin.version}"']
    return "\n".join(lines) + "\n"


_STUB = re.compile(rf"(?P<name>{_NAME})==(?P<version>{STUB_PATTERN})")


class NoSolutionError(SlipwayError):
    """No set of offered versions meets the requirements."""


def explain_conflict(output: str, requirements: tuple[str, ...], on: str) -> SlipwayError:
    """The error for one failed run. `on` names the base; `output` is uv's standard error."""
    text = " ".join(output.split())
    asked = ", ".join(requirements)
    where = f"base {on}" if on else None
    if any(sign in text.lower() for sign in _NETWORK):
        return SlipwayError(
            f"no package index answered while resolving {asked}: {_last_cause(output)}",
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
        f"{asked} cannot be resolved: {without_label(_no_solution(output))}",
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


def _no_solution(output: str) -> str:
    causes = re.split(r"cause:|╰─▶", output, maxsplit=1)
    return " ".join(causes[-1].split())


def _last_cause(output: str) -> str:
    lines = [line.strip(" ╰─▶") for line in output.splitlines() if line.strip()]
    return lines[-1].removeprefix("cause:").strip() if lines else "no answer"
