"""Dockerfile syntax that engines build differently is refused before anything is sent."""

from __future__ import annotations

import pytest

from slipway.engine import EngineError
from slipway.engine.buildkit.build_context import check_dockerfile


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("FROM a\nRUN <<EOF\necho hi\nEOF\n", 2),
        ("FROM a\nRUN --mount=type=cache,target=/c <<-'EOT' sh\necho hi\nEOT\n", 2),
        ('FROM a\nCOPY <<"END" /etc/motd\nhello\nEND\n', 2),
        ("FROM a\n# a comment\n\nrun cat \\\n  <<EOF > /x\nhi\nEOF\n", 4),
        ("FROM a\nRUN true && 3<<EOF cat\nx\nEOF\n", 2),
        ("FROM a\nONBUILD RUN <<EOF\nx\nEOF\n", 2),
    ],
)
def test_heredocs_are_refused_with_their_line(text: str, line: int) -> None:
    with pytest.raises(EngineError, match="heredocs") as caught:
        check_dockerfile(text)
    assert caught.value.where == f"Dockerfile:{line}"


@pytest.mark.parametrize(
    "instruction",
    [
        "COPY --link a b",
        "COPY --chown=1:1 --link=true --from=x a b",
        "add --link a b",
        "ONBUILD COPY --link a b",
        "COPY \\\n  --link a b",
    ],
)
def test_linked_copies_are_refused(instruction: str) -> None:
    with pytest.raises(EngineError, match="--link"):
        check_dockerfile(f"FROM a\n{instruction}\n")


@pytest.mark.parametrize("directive", ["# syntax=docker/dockerfile:1", "#SYNTAX = x"])
def test_an_external_frontend_is_refused(directive: str) -> None:
    with pytest.raises(EngineError, match="frontend"):
        check_dockerfile(f"{directive}\nFROM a\n")


@pytest.mark.parametrize(
    "text",
    [
        "FROM a\nRUN --mount=type=cache,target=/c --mount=type=secret,id=s true\n",
        'FROM a\nRUN cat <<< "word"\n',
        "FROM a\nRUN echo $((1 << 3)) a<<b\n",
        "FROM a\nCOPY --from=b --chown=0:0 x /link\n",
        "FROM a\n# RUN <<EOF\n# syntax=late, so only a comment\nENV A=--link\n",
        'FROM a\nLABEL text="COPY --link"\nENV X="<<EOF"\n',
    ],
)
def test_what_every_engine_builds_the_same_passes(text: str) -> None:
    check_dockerfile(text)
