"""The workflow is started and watched; GitHub is a server here that answers as its API documents
(docs.github.com/rest/actions, version 2022-11-28)."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from slipway.cluster import WorkflowOptions, run_github_fanout, show_collected_results
from slipway.cluster.fanout import github_runs
from slipway.cluster.fanout.fanout_plan import FanoutPlan, PlannedImage
from slipway.core import SlipwayError, UsageError
from tests.support.loopback_files import serve_requests

ROLE = "arn:aws:iam::123456789012:role/ships"
IMAGES = tuple(PlannedImage(f"image{n:03}", "base", "b") for n in range(130))
PLAN = FanoutPlan(IMAGES, ("--region", "us-west-2", "--target", "ecr", "--no-engine"))
OPTIONS = WorkflowOptions("owner/name", "main", ROLE)


class Github:
    """One repository's actions. A run is seen at the second look, and is over at the third."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.dispatched: dict[str, Any] = {}
        self.conclusions = {"image001": "failure", "image002": "timed_out"}
        self.refuses = 0
        self.looks = 0

    def answer(self, method: str, path: str, body: bytes, token: str) -> tuple[int, Any]:
        self.asked.append(f"{method} {urlsplit(path).path}")
        if token != "Bearer secret-token" or self.refuses:
            return self.refuses or 401, {"message": "Bad credentials"}
        query = {key: value[0] for key, value in parse_qs(urlsplit(path).query).items()}
        if method == "POST":
            self.dispatched = json.loads(body)
            return 204, None
        if "/workflows/" in path:
            self.looks += 1
            return 200, {"workflow_runs": [self.run("queued")] if self.looks > 1 else []}
        if path.endswith("/runs/7"):
            self.looks += 1
            return 200, self.run("completed" if self.looks > 3 else "in_progress")
        page = int(query["page"])
        jobs = [{**self.job("matrix"), "name": "matrix"}, *map(self.job, self.names)]
        return 200, {"total_count": len(jobs), "jobs": jobs[(page - 1) * 100 : page * 100]}

    @property
    def names(self) -> list[str]:
        return str(self.dispatched["inputs"]["names"]).split()

    def run(self, status: str) -> dict[str, Any]:
        title = self.dispatched["inputs"]["title"]
        return {"id": 7, "status": status, "display_title": title, "html_url": "https://run/7"}

    def job(self, name: str) -> dict[str, Any]:
        return {
            "name": name,
            "status": "completed",
            "conclusion": self.conclusions.get(name, "success"),
            "html_url": f"https://run/7/{name}",
            "runner_name": "GitHub Actions 3",
            "run_attempt": 1,
            "started_at": "2026-11-28T12:00:00Z",
            "completed_at": "2026-11-28T12:01:30Z",
        }


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch) -> Iterator[Github]:
    state = Github()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            token = self.headers.get("Authorization", "")
            status, value = state.answer(self.command, self.path, body, token)
            data = b"" if value is None else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            return

    with serve_requests(Handler) as host:
        monkeypatch.setenv("GITHUB_API_URL", f"http://{host}")
        monkeypatch.setenv("GH_TOKEN", "secret-token")
        monkeypatch.setattr(github_runs, "_POLL_S", 0.01)
        yield state


def test_a_run_is_started_and_watched_and_each_job_told_of(
    github: Github, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SlipwayError, match="2 images failed, 0 were not reached") as caught:
        run_github_fanout(tmp_path, PLAN, OPTIONS, as_json=True)
    assert "image001: failure: https://run/7/image001" in str(caught.value)
    assert "image002: timed_out: https://run/7/image002" in str(caught.value)
    inputs = github.dispatched["inputs"]
    assert (github.dispatched["ref"], inputs["role"], inputs["region"], inputs["flags"]) == (
        "main",
        ROLE,
        "us-west-2",
        "--no-engine",
    )
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == [image.name for image in IMAGES]
    assert {row["seconds"] for row in rows} == {90.0}


def test_jobs_that_never_were_are_told_of(github: Github, tmp_path: Path) -> None:
    github.job = lambda name: {**Github.job(github, name), "name": f"other / {name[:7]}x"}  # type: ignore[method-assign]
    with pytest.raises(SlipwayError, match="0 images failed, 130 were not reached"):
        run_github_fanout(tmp_path, PLAN, OPTIONS, as_json=True)


@pytest.mark.parametrize(
    ("plan", "options", "told"),
    [
        (PLAN, WorkflowOptions("owner/name", "main"), "--role is missing"),
        (PLAN, WorkflowOptions("", "main", ROLE), "the checkout has no origin"),
        (FanoutPlan(IMAGES * 2, PLAN.ship), OPTIONS, "260 images are more than the 256"),
    ],
)
def test_what_cannot_be_started_is_said(
    plan: FanoutPlan, options: WorkflowOptions, told: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=told):
        run_github_fanout(tmp_path, plan, options, as_json=False)


def test_without_a_token_nothing_is_asked(
    github: Github, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GH_TOKEN")
    monkeypatch.delenv("GITHUB_TOKEN", raising=False)
    with pytest.raises(UsageError, match="no token for GitHub"):
        run_github_fanout(tmp_path, PLAN, OPTIONS, as_json=False)
    assert github.asked == []


@pytest.mark.parametrize("status", [401, 404, 422])
def test_githubs_own_words_are_told(github: Github, status: int, tmp_path: Path) -> None:
    github.refuses = status
    with pytest.raises(SlipwayError, match=rf"GitHub refuses \({status}\): Bad credentials"):
        run_github_fanout(tmp_path, PLAN, OPTIONS, as_json=False)


@pytest.mark.parametrize("value", [[], "x", {}, {"workflow_runs": 7}, {"workflow_runs": None}])
def test_an_answer_that_is_none_of_githubs_is_a_paragraph(
    github: Github, value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy's, with the code of a good one."""
    monkeypatch.setattr(
        github, "answer", lambda method, *_: (204, None) if method == "POST" else (200, value)
    )
    with pytest.raises(SlipwayError, match="GitHub does not answer: ") as caught:
        run_github_fanout(tmp_path, PLAN, OPTIONS, as_json=False)
    assert "Run it again later" in str(caught.value)


def test_a_plan_asks_nobody(
    github: Github, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = WorkflowOptions("owner/name", "main", ROLE, plan=True)
    run_github_fanout(tmp_path, PLAN, options, as_json=False)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "POST /repos/owner/name/actions/workflows/fanout.yaml/dispatches"
    assert f"role: {ROLE}" in printed
    assert github.asked == []


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://github.com/owner/name.git", "owner/name"),
        ("https://user@github.example/owner/na.me", "owner/na.me"),
        ("git@github.com:owner/name.git", "owner/name"),
        ("ssh://git@github.com/owner/name", "owner/name"),
    ],
)
def test_the_repository_is_the_checkouts_origin(url: str, name: str, tmp_path: Path) -> None:
    for words in (["init", "--quiet", "-b", "topic"], ["remote", "add", "origin", url]):
        subprocess.run(["git", "-C", tmp_path, *words], check=True)
    assert github_runs.remote_repository(tmp_path) == name
    assert github_runs.current_branch(tmp_path) == "topic"


def test_results_of_jobs_are_put_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run: dict[str, object] = {
        "failure": None,
        "steps": [],
        "record": {"pushed": {"ecr": {"uri": "h/r:t", "digest": "sha256:1"}}, "exported": None},
    }
    (tmp_path / "image000.json").write_text(json.dumps([run]))
    (tmp_path / "image001.json").write_text("")
    (tmp_path / "image001.log").write_text("...\ninv ship: no such region\n")
    with pytest.raises(SlipwayError, match="1 images failed, 1 were not reached") as caught:
        show_collected_results(IMAGES[:3], tmp_path, as_json=False)
    assert "image001: exit code 1: no such region" in str(caught.value)
    assert "done before: h/r:t@sha256:1" in capsys.readouterr().out
