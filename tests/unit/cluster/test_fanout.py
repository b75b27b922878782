"""Many workers, one run: who makes what, what is told of it, and what a second try does.

A worker's checkout is a folder whose `inv` is a script here; on a real Slurm with the real one:
tests/system/cluster/test_fanout.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from slipway.cluster import (
    ArrayOptions,
    ShipFlags,
    plan_fanout,
    run_slurm_fanout,
    show_fanout_run,
)
from slipway.cluster.fanout.fanout_plan import FanoutPlan, PlannedImage
from slipway.cluster.fanout.image_results import show_results
from slipway.cluster.fanout.run_folder import begin_run, open_run
from slipway.cluster.fanout.slurm_array import render_worker_script, sbatch_command
from slipway.cluster.fanout.worker import FanoutWorker, end_group
from slipway.core import LeaseFolder, SlipwayError, UsageError, wait_until
from tests.support.cluster_samples import image

FLAGS = ShipFlags(region="us-west-2", no_engine=True)
PATIENCE = 1.0

#: Notes each call, and does as the file BEHAVIOUR/NAME says.
INV = """\
#!/bin/bash
echo "$2" >>"$0.calls"
behaviour=$(cat "$0.$2" 2>/dev/null || true)
case $behaviour in
fails) failure='"no such base"' code=1 ;;
usage) echo "inv ship: bad $2" >&2; exit 3 ;;
silent) exit 0 ;;
dies) kill -KILL $$ ;;
told) kill -TERM $$ ;;
sleeps) sleep 60 & wait; exit 9 ;;
*) failure=null code=0 ;;
esac
cat <<END
[{"image": "$2", "failure": $failure,
  "steps": [{"name": "build", "fresh": true}, {"name": "verify", "fresh": false}],
  "record": {"exported": null, "pushed": {"ecr": {"uri": "host/repo:tag", "digest": "sha256:1"}}}}]
END
exit $code
"""


class Rig:
    """A run of some images on two bases, and the checkout of its workers."""

    def __init__(self, folder: Path, count: int = 4) -> None:
        self.checkout = folder / "checkout"
        self.checkout.mkdir()
        (self.checkout / "inv").write_text(INV)
        (self.checkout / "inv").chmod(0o755)
        images = tuple(
            PlannedImage(f"image-{n}.x", f"base{n * 2 // count}", "b") for n in range(count)
        )
        self.plan = FanoutPlan(images, ("--no-engine",))
        self.run = begin_run(folder / "run", self.plan, self.checkout, resume=False)

    def behave(self, number: int, how: str) -> str:
        name = self.plan.images[number].name
        (self.checkout / f"inv.{name}").write_text(how)
        return name

    def worker(self, number: int = 0) -> FanoutWorker:
        return FanoutWorker(self.run, self.checkout, f"node#{number}", number, PATIENCE)

    def calls(self) -> Counter[str]:
        return Counter((self.checkout / "inv.calls").read_text().split())

    def failure(self, name: str) -> str:
        (result,) = [result for result in self.run.all_results() if result.name == name]
        return str(result.failure)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_workers_share_the_images_and_make_each_once(tmp_path: Path) -> None:
    rig = Rig(tmp_path, 12)
    with ThreadPoolExecutor(4) as pool:
        failures = list(pool.map(lambda number: rig.worker(number).work(), range(4)))
    assert failures == [0, 0, 0, 0]
    assert rig.calls() == {image.name: 1 for image in rig.plan.images}
    results = list(rig.run.all_results())
    assert [result.uri for result in results] == ["host/repo:tag@sha256:1"] * 12
    assert {result.made for result in results} == {("build",)}
    assert [*rig.run.leases.iterdir()] == []


def test_one_worker_ends_with_a_base_before_it_begins_another(rig: Rig) -> None:
    rig.worker(number=2).work()
    calls = (rig.checkout / "inv.calls").read_text().split()
    assert calls == [rig.plan.images[number].name for number in (2, 3, 0, 1)]


def test_a_second_worker_begins_with_a_base_that_nobody_works_on(rig: Rig) -> None:
    with LeaseFolder(rig.run.leases).take(rig.plan.images[0].name) or pytest.fail("free"):
        order = [image.name for image in rig.worker()._order(rig.plan.images)]
    assert order == [rig.plan.images[number].name for number in (2, 3, 1, 0)]


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("fails", "no such base"),
        ("usage", "exit code 3: bad image-1.x"),
        ("silent", "exit code 1: "),
        ("dies", "exit code -9: "),
        ("told", "exit code -15: "),
    ],
)
def test_a_failure_is_told_with_its_words_and_stops_nothing(rig: Rig, how: str, told: str) -> None:
    """A ship that is told to stop is tried again: its worker may be ending as well."""
    name = rig.behave(1, how)
    assert rig.worker().work() == 1
    assert rig.failure(name).startswith(told)
    assert rig.calls()[name] == (3 if how == "told" else 1)
    assert sum(result.ok for result in rig.run.all_results()) == 3


def test_an_image_whose_workers_die_is_given_up_at_last(rig: Rig) -> None:
    name = rig.plan.images[0].name
    for number in (1, 2, 3):  # of holders that touch them no more
        (rig.run.leases / f"{name}.{number:05}").write_text("gone")
    assert rig.worker().work() == 1
    assert rig.failure(name).startswith("3 workers died while they made it")
    assert name not in rig.calls()


def test_the_result_of_a_worker_that_lost_its_lease_is_dropped(rig: Rig) -> None:
    """As one that slept, and whose image another one has made meanwhile."""
    name = rig.behave(0, "sleeps")
    with ThreadPoolExecutor(1) as pool:
        slept = pool.submit(rig.worker().work)
        calls = rig.checkout / "inv.calls"
        assert wait_until(lambda: calls.exists() and name in calls.read_text(), 60)
        rig.behave(0, "")
        (rig.run.leases / f"{name}.00002").write_text("another")
        assert slept.result(60) == 0
    assert rig.calls()[name] == 2  # taken over in the end from `another`, who is dead
    assert next(rig.run.all_results()).attempt == 3


def test_what_a_ship_has_started_ends_with_it() -> None:
    with subprocess.Popen(
        ["bash", "-c", "sleep 600 & echo up; wait"],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        end_group(process)
        assert process.stdout.read() == ""  # nobody has it open any more


def test_a_resumed_run_keeps_what_is_good_and_of_the_same_inputs(rig: Rig) -> None:
    fails = rig.behave(0, "fails")
    rig.worker().work()
    with pytest.raises(UsageError, match="has a run already"):
        begin_run(rig.run.path, rig.plan, rig.checkout, resume=False)
    changed = PlannedImage(rig.plan.images[1].name, "base0", "another build")
    plan = FanoutPlan((rig.plan.images[0], changed, *rig.plan.images[2:]), rig.plan.ship)
    begin_run(rig.run.path, plan, rig.checkout, resume=True)
    again = open_run(rig.run.path)
    assert [image.name for image in again.images_left()] == [fails, changed.name]
    kept = sorted(path.stem for path in (rig.run.path / "failed" / "1").iterdir())
    assert kept == [fails, changed.name]


def test_the_table_names_what_failed_and_what_was_not_reached(
    rig: Rig, capsys: pytest.CaptureFixture[str]
) -> None:
    rig.behave(0, "fails")
    (rig.checkout / "inv.calls").touch()
    for number in (0, 1):
        image = rig.plan.images[number]
        with LeaseFolder(rig.run.leases).take(image.name) or pytest.fail("free") as lease:
            rig.worker()._ship(image, lease)
    with pytest.raises(SlipwayError, match="1 images failed, 2 were not reached") as caught:
        show_fanout_run(str(rig.run.path), as_json=False)
    assert "image-0.x: no such base" in str(caught.value)
    lines = capsys.readouterr().out.splitlines()
    assert "FAILED: no such base" in lines[1]
    assert "host/repo:tag@sha256:1" in lines[2]
    assert lines[3].split()[-2:] == ["not", "reached"]
    with pytest.raises(SlipwayError):
        show_fanout_run(str(rig.run.path), as_json=True)
    rows = json.loads(capsys.readouterr().out)
    assert [row["failure"] for row in rows] == ["no such base", None, *["not reached"] * 2]


def test_a_checkout_is_packed_without_what_is_not_its_own(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for path in (
        ".git/x",
        ".venv/x",
        ".slipway/x",
        "a/__pycache__/x",
        "a/b.sqsh",
        "a/b",
        ".ci/run",
    ):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("x")
    run = begin_run(tmp_path / "run", FanoutPlan((), ()), root, resume=False)
    with tarfile.open(run.checkout) as tar:
        assert [name for name in tar.getnames() if not tar.getmember(name).isdir()] == [
            ".ci/run",
            "a/b",
        ]


def test_a_checkout_that_is_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slipway.cluster.fanout.run_folder.MOST_BYTES", 1000)
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "large").write_bytes(bytes(2000))
    with pytest.raises(UsageError, match="every worker unpacks it"):
        begin_run(tmp_path / "run", FanoutPlan((), ()), tmp_path / "root", resume=False)


def test_all_workers_get_the_same_words() -> None:
    flags = ShipFlags("us-west-2", "ecr", "lz4", True, True, True, "oci:x")
    plan = plan_fanout([image("local-ds0.19.8")], flags, lambda _: "b")
    words = "--region us-west-2 --target ecr --compression lz4 --base-from oci:x --unlocked"
    assert plan.ship == (*words.split(), "--no-engine", "--no-sqsh")
    assert FanoutPlan.of_json(json.loads(json.dumps(plan.as_json()))) == plan


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (ShipFlags(region="us-west-2", target="local"), "of no use to others"),
        (ShipFlags(), "--region is missing"),
        (ShipFlags(region="us-west-2", base_from="oci:x"), "--base-from is one base"),
    ],
)
def test_what_no_worker_can_do_is_refused_before_anything_starts(
    flags: ShipFlags, told: str
) -> None:
    images = [image("local-ds0.19.8"), image("pytorch-2.13-sagemaker-ds0.19.8")]
    with pytest.raises(UsageError, match=told):
        plan_fanout(images, flags, lambda _: "b")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (ArrayOptions(), "--dir is missing"),
        (ArrayOptions("/x", workers="0"), "--workers '0'"),
        (ArrayOptions("/x", workers="all"), "--workers 'all'"),
        (ArrayOptions("/a,b"), "no comma"),
        (ArrayOptions("/x", sbatch=("array=0-9",)), "sets --array itself"),
        (ArrayOptions("/x", sbatch=("partition=a b",)), "no blanks"),
        (ArrayOptions("/dev/null/run"), "the run cannot be kept there"),
    ],
)
def test_what_cannot_be_submitted_is_said(rig: Rig, options: ArrayOptions, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        run_slurm_fanout(rig.checkout, rig.plan, options, as_json=False)


def test_without_slurm_it_is_said(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    options = ArrayOptions(str(tmp_path / "second"))
    with pytest.raises(SlipwayError, match="sbatch is not here"):
        run_slurm_fanout(rig.checkout, rig.plan, options, as_json=False)


def test_slurms_own_words_are_told(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sbatch = tmp_path / "sbatch"
    sbatch.write_text("#!/bin/sh\necho 'invalid partition specified: nope' >&2; exit 1\n")
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    options = ArrayOptions(str(tmp_path / "second"), sbatch=("partition=nope",))
    with pytest.raises(SlipwayError, match="invalid partition specified: nope"):
        run_slurm_fanout(rig.checkout, rig.plan, options, as_json=False)


def test_a_plan_submits_nothing(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    folder = rig.checkout / "none"
    options = ArrayOptions(str(folder), workers="9", sbatch=("partition=cpu",), plan=True)
    run_slurm_fanout(rig.checkout, rig.plan, options, as_json=False)
    printed = capsys.readouterr().out
    assert "image-0.x  on base0  b\n" in printed
    assert "sbatch --parsable --array=0-3 " in printed
    assert not folder.exists()


@pytest.mark.parametrize("ship", [(), ("--no-engine",)])
def test_the_script_is_sound_whatever_folders_are_called(
    tmp_path: Path, ship: tuple[str, ...]
) -> None:
    folder = tmp_path / "it's a run"
    options = ArrayOptions(str(folder), scratch="/s p")
    text = render_worker_script(folder, folder / "c.tar", FanoutPlan((), ship), options)
    script = tmp_path / "script.sh"
    script.write_text(text)
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([shellcheck, script], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
    assert ("engine.stop" in text) == (not ship)
    assert sbatch_command(folder, 4, options)[-1] == str(folder / "script.sh")


def test_a_folder_that_is_no_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no run"):
        open_run(tmp_path)
    (tmp_path / "plan.json").write_text('{"format": 2, "checkout": "x"}')
    with pytest.raises(SlipwayError, match="this version of Slipway"):
        open_run(tmp_path)
    (tmp_path / "plan.json").write_text("[")
    with pytest.raises(SlipwayError, match="not one of ours"):
        open_run(tmp_path)


@pytest.mark.parametrize("content", [b"{}", b"[", b"", b"\xff", b'{"name": 1, "made": []}', None])
def test_a_result_that_cannot_be_read_is_its_image_s_failure_and_done_again(
    rig: Rig, content: bytes | None
) -> None:
    assert rig.worker().work() == 0
    damaged = rig.run.results / f"{rig.plan.images[1].name}.json"
    damaged.unlink()
    damaged.write_bytes(content) if content is not None else damaged.mkdir()
    results = {result.name: result for result in rig.run.all_results()}
    assert [result.ok for result in results.values()] == [True, False, True, True]
    assert f"{damaged}: this version of Slipway cannot read" in rig.failure(damaged.stem)
    with pytest.raises(SlipwayError, match="1 images failed"):
        show_results(rig.plan.images, results.values(), as_json=False)
    again = begin_run(rig.run.path, rig.plan, rig.checkout, resume=True)
    assert [image.name for image in again.images_left()] == [damaged.stem]
