"""The labs: at most six commands a page, each tried here as far as it needs no cluster and no AWS.

What cannot be run here is run by a test of its task.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LABS = sorted((ROOT / "docs" / "labs").glob("*.md"))
OTHERS = "\n".join(
    path.read_text() for path in (ROOT / "tests").rglob("test_*.py") if path.parent.name != "docs"
)
MOST_COMMANDS = 6
URI = "111122223333.dkr.ecr.us-west-2.amazonaws.com/sagemaker-slipway/x@sha256:" + "a" * 64

#: The tasks that are run here; a submission is written to a file in place of being submitted.
RUN = ("slurm.script", "slurm.submit", "sagemaker.job")


def commands(page: Path) -> list[list[str]]:
    """The words of each command of a page, in order."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    text = "".join(blocks).replace("\\\n", " ")
    return [shlex.split(line, comments=True) for line in text.splitlines() if line.strip()]


CASES = [(page, words) for page in LABS for words in commands(page) if words[0] == "./inv"]


def test_a_lab_is_at_most_six_commands() -> None:
    assert [page.stem for page in LABS] == ["hyperpod", "recipes", "sagemaker", "smp"]
    for page in LABS:
        assert 3 <= len(commands(page)) <= MOST_COMMANDS, page


def inv(folder: Path, words: list[str]) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "slipway.tasks.cli", "--search-root", str(ROOT), *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "SLIPWAY_STATE": str(folder / "state")},
        check=False,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.parametrize(
    ("page", "words"),
    [
        pytest.param(page, words, id=f"{page.stem}-{words[1]}")
        for page, words in CASES
        if words[1] in RUN
    ],
)
def test_what_needs_no_cluster_and_no_aws_is_run(
    page: Path, words: list[str], tmp_path: Path
) -> None:
    task, *rest = words[1:]
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    cut = rest.index("--") if "--" in rest else len(rest)
    flags, script = rest[:cut], rest[cut:]
    if task == "sagemaker.job":
        flags.remove("--submit")
        request = inv(tmp_path, [task, *flags, "--image-uri", URI, *script])
        assert '"TrainingJobName"' in request
        assert all(word in request for word in script[1:])
    else:
        if "--folder" in flags:  # where it is submitted, which is nowhere here
            at = flags.index("--folder")
            flags[at : at + 2] = []
        output = tmp_path / "script.sh"
        places = ["--sqsh", "/fsx/images/x.sqsh", "--output", str(output)]
        inv(tmp_path, ["slurm.script", *flags, *places, *script])
        assert all(word.partition("=")[0] in output.read_text() for word in script[1:])
        shellcheck = Path(sys.executable).with_name("shellcheck")
        subprocess.run([shellcheck, output], check=True)


def test_the_labs_cluster_is_one_that_documents_are_made_of(tmp_path: Path) -> None:
    page = ROOT / "docs/labs/hyperpod.md"
    (text,) = re.findall(r"^```yaml\n# (\S+)\n(.*?)^```", page.read_text(), re.M | re.S)
    (tmp_path / text[0]).write_text(text[1])
    inv(tmp_path, ["cluster.documents", text[0], "--output", "documents"])
    assert (tmp_path / "documents" / "create-cluster.json").exists()


@pytest.mark.parametrize("task", sorted({words[1] for _, words in CASES} - {*RUN}))
def test_what_does_is_run_by_another_test(task: str) -> None:
    """By its name, or by the function behind it."""
    function = {
        "cluster.check": "cluster_check.",
        "cluster.shell": "open_shell(",
        "cluster.up": "bring_up_cluster(",
        "deploy.delete": "delete_endpoint(",
        "deploy.lmi": "deploy_model(",
        "sagemaker.logs": "follow_logs(",
        "sagemaker.status": "show_training_job(",
        "sagemaker.stop": "stop_training_job(",
    }.get(task, f'"{task}"')
    assert function in OTHERS
