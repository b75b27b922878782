"""A fan-out in GitHub's runners: the workflow `fanout.yaml` is started, watched, and told of.

The API is GitHub's REST API, version 2022-11-28 (docs.github.com/rest/actions). A dispatch does
not say which run it made, so the run is known by its title.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from slipway.cluster.fanout.fanout_plan import FanoutPlan, PlannedImage
from slipway.cluster.fanout.image_results import ImageResult, result_of_ship, show_results
from slipway.core import SlipwayError, UsageError, remember_secret, say

WORKFLOW = "fanout.yaml"
MOST_JOBS = 256
"""Of one matrix (GitHub Actions documentation, limits)."""

_REMOTE = re.compile(
    r"(?:git@[^:]+:|\w+://(?:[^@/]+@)?[^/]+/)(?P<name>[\w.-]+/[\w.-]+?)(?:\.git)?/?"
)
_START_S, _POLL_S = 120.0, 15.0
_TIMEOUT_S = 60.0
_PAGE = 100


@dataclass(frozen=True)
class WorkflowOptions:
    """Which repository's workflow, at which branch, with which role of AWS's."""

    repository: str = ""
    ref: str = ""
    role: str = ""
    detach: bool = False
    plan: bool = False


def run_github_fanout(
    root: Path, plan: FanoutPlan, options: WorkflowOptions, *, as_json: bool
) -> None:
    """Start the workflow, wait for its jobs, and print the table.

    Raises SlipwayError where an image failed or was not reached.
    """
    if not options.role:
        raise UsageError(
            "--role is missing", cure="The ARN of a role that GitHub's OIDC may assume."
        )
    if len(plan.images) > MOST_JOBS:
        raise UsageError(
            f"{len(plan.images)} images are more than the {MOST_JOBS} jobs of one matrix",
            cure="Name fewer, in several runs.",
        )
    repository = options.repository or remote_repository(root)
    ref = options.ref or current_branch(root)
    request = dispatch_request(plan, options.role, ref, f"fanout-{uuid.uuid4().hex[:12]}")
    if options.plan:
        print(f"POST /repos/{repository}/actions/workflows/{WORKFLOW}/dispatches")
        for name, value in (("ref", ref), *request["inputs"].items()):
            print(f"{name}: {value}")
        return
    github = GithubActions(repository, github_token())
    github.dispatch(request)
    run = github.find_run(request["inputs"]["title"])
    say(f"{len(plan.images)} jobs, of what GitHub has of {ref}: {run['html_url']}")
    if options.detach:
        return
    while run["status"] != "completed":
        time.sleep(_POLL_S)
        run = github.run(run["id"])
    jobs = {str(job["name"]): job for job in github.jobs(run["id"])}
    # As the job of a called workflow, it has the caller's name before it.
    results = [
        result_of_job(image, job)
        for image in plan.images
        for name, job in jobs.items()
        if name.rpartition(" / ")[2] == image.name
    ]
    show_results(plan.images, results, as_json=as_json)


def dispatch_request(plan: FanoutPlan, role: str, ref: str, title: str) -> dict[str, Any]:
    """The body of the dispatch: the workflow's inputs."""
    words = dict(zip(plan.ship, plan.ship[1:], strict=False))
    flags = [
        word
        for before, word in zip(("", *plan.ship), plan.ship, strict=False)
        if not {before, word} & {"--region", "--target"}
    ]
    return {
        "ref": ref,
        "inputs": {
            "names": " ".join(image.name for image in plan.images),
            "region": words["--region"],
            "role": role,
            "flags": " ".join(flags),
            "title": title,
        },
    }


def result_of_job(image: PlannedImage, job: Any) -> ImageResult:
    """What became of an image by its job's conclusion; its log is behind the job's page."""
    good = job["conclusion"] == "success"
    failure = None if good else f"{job['conclusion'] or job['status']}: {job['html_url']}"
    times = [job.get("started_at"), job.get("completed_at")]
    seconds = 0.0
    if all(times):
        started, ended = (datetime.fromisoformat(text.replace("Z", "+00:00")) for text in times)
        seconds = max(0.0, (ended - started).total_seconds())
    return ImageResult(
        image.name,
        image.base,
        image.build_id,
        failure,
        str(job.get("runner_name") or "github"),
        attempt=int(job.get("run_attempt") or 1),
        seconds=seconds,
        uri=job["html_url"] if good else "",
        made=("job",) if good else (),
    )


def show_collected_results(images: Sequence[PlannedImage], folder: Path, *, as_json: bool) -> None:
    """The table of what `inv ship --json` printed elsewhere: NAME.json, its messages in NAME.log.

    Raises SlipwayError where an image failed or has no files.
    """
    results = []
    for image in images:
        output = folder / f"{image.name}.json"
        log = folder / f"{image.name}.log"
        if output.exists():
            errors = log.read_text(errors="replace") if log.exists() else ""
            results.append(
                result_of_ship(image, 0, output.read_text(errors="replace"), errors, worker="")
            )
    show_results(images, results, as_json=as_json)


def remote_repository(root: Path) -> str:
    """OWNER/NAME of the checkout's remote `origin`."""
    url = _git(root, "remote", "get-url", "origin")
    match = _REMOTE.fullmatch(url)
    if match is None:
        raise UsageError(
            "the checkout's origin is not in GitHub" if url else "the checkout has no origin",
            cure="Give --repository OWNER/NAME.",
        )
    return match["name"]


def current_branch(root: Path) -> str:
    """The branch that is checked out: what GitHub has of it is what is built."""
    branch = _git(root, "branch", "--show-current")
    if not branch:
        raise UsageError("no branch is checked out", cure="Give --ref BRANCH.")
    return branch


def _git(root: Path, *words: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *words], check=False, capture_output=True, text=True
        )
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def github_token() -> str:
    """From GH_TOKEN or GITHUB_TOKEN, as GitHub's own program takes it."""
    token = os.environ.get("GH_TOKEN") or os.environ.get("GITHUB_TOKEN")
    if not token:
        raise UsageError(
            "there is no token for GitHub",
            cure="Set GH_TOKEN to one that may write the repository's actions.",
        )
    remember_secret(token)
    return token


class GithubActions:
    """The runs of one repository's workflow."""

    def __init__(self, repository: str, token: str) -> None:
        import requests
        from requests.adapters import HTTPAdapter
        from urllib3.util.retry import Retry

        api = os.environ.get("GITHUB_API_URL", "https://api.github.com").rstrip("/")
        self._url = f"{api}/repos/{repository}/actions"
        self._session = requests.Session()
        # A run is watched for hours: what is only asked is asked again.
        again = Retry(
            6, backoff_factor=1, status_forcelist=(429, 502, 503, 504), allowed_methods=("GET",)
        )
        self._session.mount(api, HTTPAdapter(max_retries=again))
        self._session.headers.update(
            {
                "Authorization": f"Bearer {token}",
                "Accept": "application/vnd.github+json",
                "X-GitHub-Api-Version": "2022-11-28",
            }
        )

    def dispatch(self, request: dict[str, Any]) -> None:
        """Start a run. Raises SlipwayError with GitHub's own words."""
        self._ask("POST", f"/workflows/{WORKFLOW}/dispatches", request)

    def find_run(self, title: str) -> Any:
        """The run of a title, which appears some seconds after its dispatch."""
        until = time.monotonic() + _START_S
        while time.monotonic() < until:
            path = f"/workflows/{WORKFLOW}/runs?event=workflow_dispatch&per_page={_PAGE}"
            for run in self._list(path, "workflow_runs"):
                if run["display_title"] == title:
                    return run
            time.sleep(2.0)
        raise SlipwayError(
            f"GitHub took the dispatch, and no run {title} has appeared",
            cure="Look at the repository's Actions page.",
        )

    def run(self, number: int) -> Any:
        """A run as it is now."""
        return self._ask("GET", f"/runs/{number}")

    def jobs(self, number: int) -> Iterator[Any]:
        """All jobs of a run's last attempt."""
        page = 1
        while True:
            path = f"/runs/{number}/jobs?filter=latest&per_page={_PAGE}&page={page}"
            jobs = self._list(path, "jobs")
            yield from jobs
            if len(jobs) < _PAGE:
                return
            page += 1

    def _list(self, path: str, key: str) -> list[Any]:
        entries = self._ask("GET", path).get(key)
        if not isinstance(entries, list):
            raise self._silence(f"its answer has no {key}")
        return entries

    def _silence(self, why: object) -> SlipwayError:
        return SlipwayError(
            f"GitHub does not answer: {why}", where=self._url, cure="Run it again later."
        )

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        import requests

        try:
            answer = self._session.request(
                method, self._url + path, json=body, timeout=_TIMEOUT_S, allow_redirects=False
            )
            value = answer.json() if answer.content else {}
        except (requests.RequestException, ValueError) as error:
            raise self._silence(error) from error
        if not isinstance(value, dict):
            raise self._silence("what came is no answer of its API")
        if not answer.ok:
            text = value.get("message", "")
            raise SlipwayError(
                f"GitHub refuses ({answer.status_code}): {text}",
                where=f"{method} {self._url}{path.partition('?')[0]}",
                cure="The token must be of this repository, with the right to write its actions, "
                f"and {WORKFLOW} on its default branch.",
            )
        return value
