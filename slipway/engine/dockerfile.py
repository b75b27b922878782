"""The Dockerfile syntax that every engine from 20.10 on builds the same way, and no other."""

from __future__ import annotations

import re
from collections.abc import Iterator

from slipway.engine.errors import EngineError

_HEREDOC = re.compile(r"""(?:^|\s)\d*<<-?["']?[A-Za-z_]\w*["']?(?:\s|$|[;|&>)])""")
_LINK = re.compile(r"^(?:ONBUILD\s+)?(?:COPY|ADD)\s+(?:--\S+\s+)*--link(?:[=\s]|$)", re.IGNORECASE)
_TAKES_HEREDOC = re.compile(r"^(?:ONBUILD\s+)?(?:RUN|COPY|ADD)\s", re.IGNORECASE)
_SYNTAX = re.compile(r"^#\s*syntax\s*=", re.IGNORECASE)


def check(dockerfile: str) -> None:
    """Raise EngineError, naming the line, for what engines build differently or not at all.

    - Heredocs: 20.10 refuses them, and an engine without BuildKit builds `RUN <<EOF`
      "successfully" without running its body.
    - `COPY --link`: 20.10 refuses it, newer ones change what the layer is made of.
    - `# syntax=`: fetches a frontend image from a public registry at build time.
    """
    for number, line in _instructions(dockerfile):
        if _SYNTAX.match(line):
            _refuse(number, "`# syntax=` makes every build fetch a frontend image")
        if _LINK.match(line):
            _refuse(number, "`--link` does not exist before Docker 23 and is built differently")
        if _TAKES_HEREDOC.match(line) and _HEREDOC.search(line):
            _refuse(number, "heredocs do not exist before Docker 23")


def _refuse(number: int, why: str) -> None:
    raise EngineError(
        f"{why}; nothing was sent",
        where=f"Dockerfile:{number}",
        cure="Use RUN with `&&`, or COPY of a file from the context.",
    )


def _instructions(dockerfile: str) -> Iterator[tuple[int, str]]:
    """(line number, text) of each instruction, continued lines joined; parser directives too."""
    joined, start, header = "", 0, True
    for number, raw in enumerate(dockerfile.splitlines(), 1):
        line = raw.strip()
        if line.startswith("#"):
            if header:
                yield number, line
            continue
        if line:
            header = False
        start = start if joined else number
        if line.endswith("\\"):
            joined += line[:-1] + " "
            continue
        if joined or line:
            yield start, joined + line
        joined = ""
    if joined:
        yield start, joined
