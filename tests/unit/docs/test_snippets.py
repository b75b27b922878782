"""The snippets of the documents: run where this machine can, parsed where it can not.

A command that needs no engine, cluster, network or AWS is run as it stands, in a folder that holds
the page's own YAML files; what a `console` block shows is what its commands print now. Blocks
without a language are pictures and output of what cannot be run here: each is named below.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from ruamel.yaml import YAML

from slipway.cluster.documents.cluster_file import read_cluster_file
from tests.support.aws_control_plane import check_request
from tests.unit.docs.test_docs import DOCUMENTS, ROOT

#: Tasks that are run as the documents write them; with what else they need here.
URI = "111122223333.dkr.ecr.us-west-2.amazonaws.com/sagemaker-slipway/x@sha256:" + "a" * 64
RUN = {
    "cluster.documents": (),
    "matrix": (),
    "matrix.show": (),
    "plan": (),
    "sagemaker.job": ("--image-uri", URI),
    "slurm.script": ("--sqsh", "/fsx/images/x.sqsh"),
}
#: All others are parsed (test_docs), and why they are not run.
PARSED = {
    **dict.fromkeys(
        ("diff", "push", "report", "ship", "sqsh", "sqsh.diff", "sqsh.fetch", "sqsh.fetcher",
         "sqsh.send", "sqsh.trace", "sqsh.verify", "storage.move", "storage.prune",
         "storage.restore", "storage.status", "watch"),
        "needs an image, an engine, disks or a run: the system tests of its task do it",
    ),
    **dict.fromkeys(
        ("cluster.check", "cluster.delete", "cluster.nodes", "cluster.shell", "cluster.up",
         "deploy.delete", "deploy.invoke", "deploy.lmi", "deploy.status", "fanout",
         "fanout.status", "fanout.stop", "lock", "sagemaker.logs", "sagemaker.status",
         "sagemaker.stop", "slurm.logs", "slurm.queue", "slurm.status", "slurm.stop",
         "slurm.submit"),
        "needs a cluster, AWS or a network: the system tests of its task do it",
    ),
    **dict.fromkeys(("doctor", "test"), "CI runs it on the whole checkout"),
}  # fmt: skip
#: Blocks without a language, by how they begin: pictures, and output of what cannot be run here.
NOT_RUN = {
    "README.md": {"versions.yaml ->": "picture", "image           step": "./inv ship"},
    "docs/architecture.md": {"versions.yaml ->": "picture"},
    "docs/cluster.md": {"what           where": "./inv cluster.check on a broken cluster"},
    "docs/inventory.md": {"base pytorch-2.13": "./inv lock, when AWS moves a tag"},
    "docs/slurm.md": {
        "$ ./inv slurm.status": "./inv slurm.status of a failed job",
        "n2: /fsx/images/x.sqsh": "a job's script on a cluster",
        "launch: {...": "a launcher whose node was lost",
        "job: every node starts": "a job's script on a cluster",
    },
    "docs/storage.md": {"./inv storage.status": "commands with sudo"},
}
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Snippet:
    """A fenced block. `at` is its line."""

    path: Path
    at: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.at}"


def snippets(*languages: str) -> list[Snippet]:
    found = []
    for path in DOCUMENTS:
        text = path.read_text()
        for match in _FENCE.finditer(text):
            if match[1] in languages:
                at = text.count("\n", 0, match.start()) + 1
                found.append(Snippet(path, at, match[1], match[2]))
    return found


def test_every_block_is_of_a_language_that_is_run_or_parsed_or_is_named_here() -> None:
    languages = {
        language
        for path in DOCUMENTS
        for opened in re.findall(r"^```.*\n(?:.*\n)*?```$", path.read_text(), re.MULTILINE)
        for language in [opened.partition("\n")[0].removeprefix("```")]
    }
    assert languages == {"", "console", "json", "python", "sh", "yaml"}
    known = {(path, begin) for path, blocks in NOT_RUN.items() for begin in blocks}
    for block in snippets(""):
        path = block.path.relative_to(ROOT).as_posix()
        begins = [begin for name, begin in known if name == path
                  and block.text.lstrip().startswith(begin)]  # fmt: skip
        assert len(begins) == 1, str(block)
        known.discard((path, begins[0]))
    assert known == set()


def commands(text: str) -> Iterator[list[str]]:
    """The words of each `./inv` of a block, without what a shell does with its output."""
    for line in text.replace("\\\n", " ").splitlines():
        line = line.removeprefix("$ ").removeprefix("sudo ")
        if line.startswith("./inv "):
            words = shlex.split(line, comments=True)
            cut = next((at for at, word in enumerate(words) if word in "|>&&;"), len(words))
            yield words[1:cut]


def test_every_command_is_run_or_says_why_it_is_not() -> None:
    named = {words[0] for block in snippets("sh", "console", "") for words in commands(block.text)}
    assert sorted(named) == sorted([*RUN, *PARSED])


RUNNABLE = [
    pytest.param(block, words, id=f"{block}-{words[0]}")
    for block in snippets("sh")
    if "labs" not in block.path.parts  # test_labs runs those
    for words in commands(block.text)
    if words[0] in RUN
]


def run(folder: Path, words: list[str]) -> str:
    """What a command prints, for people and for programs."""
    ended = subprocess.run(
        [sys.executable, "-m", "slipway.tasks.cli", "--search-root", str(ROOT), *words],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "SLIPWAY_STATE": str(folder / "state"),
            "PYTHONUNBUFFERED": "1",
        },  # so that its two outputs come in order
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


def prepare(folder: Path, page: Path) -> None:
    """The files that a page's commands speak of: its YAML with a name in the first line, and code
    to train with."""
    for block in snippets("yaml"):
        name = re.match(r"# (\S+\.yaml)\n", block.text)
        if block.path == page and name:
            (folder / name[1]).write_text(block.text)
    for place in ("examples", "images"):
        (folder / place).symlink_to(ROOT / place)
    (folder / "src").mkdir()
    (folder / "src" / "train.py").write_text("print('trained')\n")


@pytest.mark.parametrize(("block", "words"), RUNNABLE)
def test_a_command_that_can_run_here_does(block: Snippet, words: list[str], tmp_path: Path) -> None:
    prepare(tmp_path, block.path)
    cut = words.index("--") if "--" in words else len(words)
    flags, script = [word for word in words[:cut] if word != "--submit"], words[cut:]
    more = RUN[words[0]]
    printed = run(tmp_path, [*flags, *(() if more[:1] and more[0] in flags else more), *script])
    assert printed.strip()


@pytest.mark.parametrize("block", snippets("console"), ids=str)
def test_what_a_console_block_shows_is_what_its_commands_print(
    block: Snippet, tmp_path: Path
) -> None:
    """`...` in a block stands for anything within a line, as a machine's free space."""
    prepare(tmp_path, block.path)
    lines = block.text.splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("$ ")]
    assert starts[:1] == [0]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        (words,) = commands(lines[start])
        printed = [line.rstrip() for line in run(tmp_path, words).splitlines()]
        shown = lines[start + 1 : end]
        assert len(printed) == len(shown), "\n".join(printed)
        for there, here in zip(printed, shown, strict=True):
            rule = ".*".join(map(re.escape, here.split("...")))
            assert re.fullmatch(rule, there), f"{here}\n{there}"


@pytest.mark.parametrize("block", snippets("sh", "console"), ids=str)
def test_shell_is_a_shells(block: Snippet) -> None:
    lines = block.text.splitlines()
    if block.language == "console":
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    done = subprocess.run(["bash", "-n"], input="\n".join(lines), text=True, capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")


class CheckedClient:
    """boto3.client of a snippet: each call is held to botocore's model of it."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._service = ""

    def open(self, service: str, region_name: str) -> CheckedClient:
        assert region_name
        self._service = service
        return self

    def __getattr__(self, name: str) -> Callable[..., None]:
        def call(**parameters: Any) -> None:
            operation = name.title().replace("_", "")
            assert check_request(self._service, operation, parameters) == []
            self.calls.append(operation)

        return call


@pytest.mark.parametrize("block", snippets("python"), ids=str)
def test_python_is_pythons_and_calls_of_boto3_are_ones_that_aws_takes(
    block: Snippet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What needs SageMaker's own SDK is parsed; boto3's calls are checked as AWS would."""
    tree = ast.parse(block.text)
    roots = {
        (node.module or "").partition(".")[0] if isinstance(node, ast.ImportFrom)
        else node.names[0].name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }  # fmt: skip
    assert roots in ({"boto3"}, {"sagemaker"}), str(block)
    if roots == {"boto3"}:
        client = CheckedClient()
        monkeypatch.setattr(boto3, "client", client.open)
        exec(compile(tree, str(block), "exec"), {"role": "arn:aws:iam::123456789012:role/x"})
        assert len(client.calls) > 1


@pytest.mark.parametrize("block", snippets("json"), ids=str)
def test_json_is_jsons(block: Snippet) -> None:
    assert json.loads(block.text)


@pytest.mark.parametrize("block", snippets("yaml"), ids=str)
def test_yaml_is_what_its_reader_takes(block: Snippet, tmp_path: Path) -> None:
    """A cluster's file by its reader, parts of a matrix by the schema, a workflow by what it
    calls."""
    value = YAML(typ="safe").load(block.text)
    schema = json.loads((ROOT / "versions.schema.json").read_text())
    if "groups" in value:
        path = tmp_path / "cluster.yaml"
        path.write_text(block.text)
        assert read_cluster_file(path).name == value["name"]
    elif "jobs" in value:
        (job,) = value["jobs"].values()
        workflow = ROOT / job["uses"].partition("@")[0].split("/", 2)[2]
        called = YAML(typ="rt").load(workflow.read_text())
        inputs = called["on"]["workflow_call"]["inputs"]
        assert set(job["with"]) <= set(inputs)
        required = {name for name, each in inputs.items() if each.get("required")}
        assert required <= set(job["with"])
    else:
        assert set(value) <= set(schema["properties"]), str(block)
