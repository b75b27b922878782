"""Our Dockerfiles as steps: all that is generated can be read, and the rest is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.append import (
    NeedsEngineError,
    dockerfile_through,
    installed_versions,
    ran_sections,
)
from slipway.append.build_steps import copy_paths, install_step, key_values, read_steps
from slipway.derive.dockerfile import dockerfile_quoted, environment_value

ROOT = Path(__file__).parents[3]
GENERATED = sorted((ROOT / "images" / "generated").glob("*/Dockerfile"))


def step_of(line: str, section: str = "mine"):  # type: ignore[no-untyped-def]
    (step,) = read_steps(f"FROM base\n# --- {section} 1.0 ---\n{line}\n")
    return step


@pytest.mark.parametrize("path", GENERATED, ids=lambda path: path.parent.name)
def test_a_generated_dockerfile_is_followed(path: Path) -> None:
    environment: dict[str, str] = {}
    for step in read_steps(path.read_text()):
        if step.name == "RUN":
            assert install_step(step).interpreter.startswith("/")
        elif step.name == "COPY":
            copy_paths(step)
        elif step.name in ("ENV", "LABEL"):
            pairs = key_values(step, environment)
            if "io.slipway.matrix" in pairs:
                assert json.loads(pairs["io.slipway.matrix"])["name"] == path.parent.name
        else:
            assert step.name in ("USER", "ENTRYPOINT", "CMD")


@given(st.text(st.characters(exclude_characters="\n\r\0", exclude_categories=["Cs"])))
def test_a_quoted_value_is_read_as_it_was_written(text: str) -> None:
    for quoted in (dockerfile_quoted(text), environment_value(text)):
        line = f"LABEL a={quoted} b=c"
        if line.splitlines() == [line]:  # what splitlines takes for the end of a line is one
            assert key_values(step_of(line), {}) == {"a": text, "b": "c"}


def test_variables_are_those_of_the_image_so_far() -> None:
    step = step_of("ENV PATH=/new:$PATH HERE=\"${HOME}/x\" THERE='$HOME' NONE=$NOT")
    found = key_values(step, {"PATH": "/bin", "HOME": "/root"})
    assert found == {"PATH": "/new:/bin", "HERE": "/root/x", "THERE": "$HOME", "NONE": ""}


@pytest.mark.parametrize(
    "line",
    [
        "RUN apt-get install -y git",
        'RUN ["/opt/venv/bin/python", "-m", "pip", "install", "x"]',
        'RUN --mount=type=secret,id=x,target=/mnt ["python", "-B", "/mnt/install_addons.py", "x"]',
        'RUN --mount=type=bind,source=python/x,target=/mnt ["python", "/mnt/other.py", "x"]',
    ],
)
def test_a_command_in_the_base_is_refused_by_the_name_of_its_section(line: str) -> None:
    with pytest.raises(NeedsEngineError, match="apt-tools runs a command"):
        install_step(step_of(line, "apt-tools"))


@pytest.mark.parametrize("line", ["COPY --from=x a /b", "COPY a b /c/", "COPY a relative"])
def test_a_copy_of_another_kind_is_refused(line: str) -> None:
    with pytest.raises(NeedsEngineError, match="mine: COPY"):
        copy_paths(step_of(line))


@pytest.mark.parametrize("line", ["ENV a b", 'LABEL a="b', "ENV =x"])
def test_pairs_that_are_none_are_refused(line: str) -> None:
    with pytest.raises(NeedsEngineError, match="mine: "):
        key_values(step_of(line), {})


STAGES = """\
ARG BASE_REGISTRY=x

# --- source-x ---
FROM ${BASE_REGISTRY}/base:1 AS source-x
RUN make

FROM ${BASE_REGISTRY}/base:1
USER root

# --- tools:system ---
RUN --mount=type=bind,source=system/tools,target=/mnt \\
    ["sh", "/mnt/install_packages.sh"]

# --- a 1.0 ---
RUN --mount=type=bind,source=python/a,target=/mnt \\
    ["/opt/venv/bin/python", "-B", "/mnt/install_addons.py", "a"]

# --- a:bytecode ---
RUN --mount=type=bind,source=python/a,target=/mnt \\
    ["/opt/venv/bin/python", "-B", "/mnt/compile_bytecode.py", "a"]

# --- x:/opt/x ---
COPY --from=source-x --chown=0:0 /opt/x/ /opt/x/

# --- launcher ---
COPY launcher/ /
"""


def test_the_last_stage_is_the_image() -> None:
    found = [(step.section, step.name, step.runs_in_base) for step in read_steps(STAGES)]
    assert found == [
        ("", "USER", False),
        ("tools:system", "RUN", True),
        ("a", "RUN", False),
        ("a:bytecode", "RUN", True),
        ("x:/opt/x", "COPY", True),
        ("launcher", "COPY", False),
    ]
    assert ran_sections(STAGES) == ("tools:system", "a:bytecode", "x:/opt/x")


def test_a_dockerfile_ends_with_the_section_that_is_asked_for() -> None:
    part = dockerfile_through(STAGES, "tools:system")
    assert STAGES.startswith(part)
    assert [step.section for step in read_steps(part)] == ["", "tools:system"]
    assert dockerfile_through(STAGES, "launcher") == STAGES
    with pytest.raises(KeyError):
        dockerfile_through(STAGES, "source-x")  # of another stage


def test_a_file_without_a_stage_is_no_image() -> None:
    with pytest.raises(NeedsEngineError, match="no stage"):
        read_steps("ARG A=1\n")


def test_what_an_image_has_follows_from_its_base_and_the_pins_of_its_addons() -> None:
    dockerfile = """\
FROM base AS builder
RUN make
FROM base
RUN --mount=type=bind,source=python/a,target=/mnt \\
    ["/opt/venv/bin/python", "-B", "/mnt/install_addons.py", "a", "--may-move", "Moved_One"]
RUN --mount=type=bind,source=python/b,target=/mnt \\
    ["/opt/venv/bin/python", "-B", "/mnt/install_addons.py", "b", "--replace", "b"]
"""
    script = ROOT / "images" / "context" / "install_addons.py"
    pins = {
        "a": "# asked: a==1\na==1 --hash=x\nkept==2 --hash=x\nmoved-one==2 --hash=x\n",
        "b": "# asked: b==2\nb==2 --hash=x\na==3 --hash=x\n",
    }
    base = {"kept": "1", "moved-one": "1", "b": "1", "torch": "2.13.0+cpu"}
    assert installed_versions(dockerfile, script, pins, base) == {
        "a": "1",
        "b": "2",
        "kept": "1",
        "moved-one": "2",
        "torch": "2.13.0+cpu",
    }
