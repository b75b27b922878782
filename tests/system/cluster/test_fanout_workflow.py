"""The jobs of .github/workflows/fanout.yaml, step by step as GitHub's runner would take them."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.support.clones import Clone
from tests.support.fanout_samples import put_bases, write_matrix
from tests.support.host_nodes import write_host_venv
from tests.support.registry.ecr_front_door import REGION, Door
from tests.support.workflow_steps import WorkflowRun

pytest_plugins = ["tests.support.registry.fixtures"]

WORKFLOW = Path(__file__).parents[3] / ".github" / "workflows" / "fanout.yaml"


def test_its_jobs_ship_each_image_and_tell_of_the_one_that_failed(
    door: Door, data_registry: str, tmp_path: Path
) -> None:
    put_bases(data_registry, "workflow/b", 1, 100_000, tmp_path)
    clone = Clone.make(tmp_path / "clone", tmp_path / "unused")
    names = write_matrix(clone, data_registry, "workflow/b", 1, 3)
    artifacts = tmp_path / "artifacts"
    artifacts.mkdir()
    run = WorkflowRun(
        WORKFLOW,
        clone.root,
        # As the defaults, but for the lock that bases of a test have not.
        {
            "names": "g[0-1]-* g2-b0",
            "region": REGION,
            "role": "arn:aws:iam::123456789012:role/x",
            "flags": f"{default_flags(WORKFLOW)} --unlocked",
        },
        {
            **os.environ,
            "SLIPWAY_VENV": str(
                write_host_venv(tmp_path / "venv", clone.root / "requirements.lock")
            ),
        },
        artifacts,
    )
    matrix = run.job("matrix")
    assert matrix.failed == "", matrix.printed
    jobs = json.loads(matrix.outputs["jobs"])["include"]
    assert [job["image"] for job in jobs] == names

    door.fault("PUT", "/manifests/.*", "status", count=1, status=403, code="DENIED")
    failed = []
    for job in jobs:
        shipped = run.job("ship", {f"matrix.{key}": value for key, value in job.items()})
        if shipped.failed:
            failed.append(job["image"])
    assert failed == names[:1]
    # The second found the layer that the first has made, among what the cache keeps.
    parts = clone.root / ".slipway" / "shared" / "layers"
    assert len([*parts.iterdir()]) == 2 + len(names)

    table = run.job("table")
    assert table.failed != ""
    assert f"{names[0]}: " in table.printed
    rows = [line.split() for line in table.summary.splitlines()]
    assert [row[0] for row in rows[1:]] == names
    assert "FAILED:" in rows[1]
    assert all("FAILED:" not in row for row in rows[2:])


def default_flags(workflow: Path) -> str:
    """Of both ways to start it, which must agree."""
    text = workflow.read_text()
    line = "default: --no-engine --no-sqsh"
    assert text.count(line) == 2
    return line.removeprefix("default: ")
