"""Scripts of `inv slurm.script` on a real Slurm, from submission to the last state of the job.

The containers are entered by stand-ins for pyxis and enroot (slurm_node/), which the tests that
rest on them say in their names.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from slipway.core import Piece, Project
from slipway.engine import Engine
from slipway.sqsh import sidecar
from slipway.sqsh.sidecar import Sidecar
from tests.support.clones import Clone
from tests.support.container_rules import RULES
from tests.support.launcher.sqsh_files import write_sqsh
from tests.support.slurm_cluster import (
    NODES,
    THIRD,
    SlurmCluster,
    Submitted,
    node_image,
    running,
    submit,
    submit_by_ssh,
    wait,
)
from tests.support.slurm_programs import USER, start_sshd, write_programs
from tests.support.slurm_scripts import FAILS, SAVES, SUM, TERMINATE

ODD = ("two words", "$(id)", "", "it's", 'a"b', "ü€", "a\nb", "*", "--flag=x y")


@pytest.fixture(scope="module")
def cluster(
    engine: Engine, shared_project: Project, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SlurmCluster]:
    root = tmp_path_factory.mktemp("slurm")
    clone = Clone.make(root / "clone", shared_project.state)
    images = root / "fsx" / "images"
    images.mkdir(parents=True)
    clone.inv("sqsh", "--output", str(images))  # of the default image
    (sqsh,) = images.glob("*.sqsh")
    image = node_image(engine, shared_project.state, root / "recipe")
    try:
        with running(engine, image, root, clone, sqsh) as made:
            yield made
    finally:
        sqsh.unlink()  # pytest keeps the rest


@pytest.fixture
def slurm(cluster: SlurmCluster) -> Iterator[SlurmCluster]:
    """The cluster with nothing running, before and after."""
    before = len(cluster.jobs)
    yield cluster
    # What is printed is shown where the test has failed.
    for job in cluster.jobs[before:]:
        print(job.told)
    print(cluster.run("tail", "--lines=40", "/var/log/slurm/slurmctld.log"))
    cluster.run("scancel", "--user=root")
    for name in NODES:
        cluster.members[name].start()  # one that a test has killed
    cluster.wait_for_nodes()


def folder(slurm: SlurmCluster, name: str, text: str) -> Path:
    place = slurm.fsx / name
    place.mkdir()
    (place / "train.py").write_text(text.replace("WHERE", name))
    return place


def checkpoints(name: str) -> list[str]:
    options = [f"checkpoint-dir=/fsx/{name}/ck", "resume=auto", "checkpoint-complete=marker:whole"]
    return [word for option in options for word in ("--launch", option)]


def reports(job: Submitted) -> list[dict[str, object]]:
    return [json.loads(line.partition("] sum ")[2]) for line in job.lines if "] sum " in line]


def containers_left(slurm: SlurmCluster) -> str:
    """Names of containers that the enroot stand-in still has on any node."""
    command = ("find", "/var/lib/enroot", "-type", "f")
    return "".join(slurm.run(*command, node=node) for node in NODES)


def sums_up(slurm: SlurmCluster, name: str, runtime: str) -> Submitted:
    place = folder(slurm, name, SUM)
    (place / "data").mkdir()
    (place / "data" / "words").write_text("abc")
    (place / "data" / "probes").write_text(json.dumps([rule.probe for rule in RULES]))
    (place / "profile.sh").write_text("export FROM_A_PROFILE=yes\n")
    job = submit(
        slurm,
        name,
        *("--runtime", runtime, "--env", "PYTHONUNBUFFERED=yes", "--env", "SECRET"),
        *("--mount", f"/fsx/{name}/data:/data:ro", "--mount", "/local/made/deep:/made"),
        *("--mount", f"/fsx/{name}/profile.sh:/etc/profile.d/aa.sh:ro"),
        *("--", "train.py", *ODD),
        environment={"SECRET": "from the shell", "PYTHONPATH": "/nowhere"},
    )
    facts = job.end()
    assert (facts["JobState"], facts["ExitCode"]) == ("COMPLETED", "0:0")
    wanted = {
        "sum": [2.0, 2.0],
        "argv": list(ODD),
        "cpus": int(slurm.run("nproc", node="n1")),  # not one
        "unbuffered": "yes",  # the image says 1
        "secret": "from the shell",
        # Not the submitting shell's: the folder by which ranks tell where they stand.
        "path": "/opt/entrypoints/launcher/user_python/site",
        "data": "abc",
        "rules": [rule.shows for rule in RULES],
        "scratch": "/var/tmp",  # of the node: /tmp is memory
    }
    assert reports(job) == [wanted, wanted]
    assert sum("read-only: Read-only file system" in line for line in job.lines) == 2
    for rank, node in enumerate(NODES):
        # A mount's source is made on each node's own disk.
        assert (slurm.local(node) / "made" / "deep" / f"rank{rank}").exists()
        (own,) = (place / "logs" / f"{job.id}-0" / f"node{rank}").rglob("0/stdout.log")
        assert own.read_text().startswith("sum ")
    assert slurm.run("cat", f"/fsx/images/{slurm.sqsh.name}.checked")
    assert containers_left(slurm) == ""
    return job


def test_two_nodes_train_together_to_the_end_under_a_pyxis_stand_in(slurm: SlurmCluster) -> None:
    sums_up(slurm, "pyxis", "pyxis")


def test_two_nodes_train_together_to_the_end_under_an_enroot_stand_in(slurm: SlurmCluster) -> None:
    """One of them starts from the file, the other has no squashfuse and unpacks it: what a job that
    was killed has left there is removed before."""
    left = "mkdir -p /var/lib/enroot; echo /fsx/images/a.sqsh >/var/lib/enroot/slurm-999-0"
    slurm.run("bash", "-c", left, node="n2")
    lacks = slurm.local("n2") / "no-squashfuse"
    lacks.touch()
    try:
        job = sums_up(slurm, "enroot", "enroot")
    finally:
        lacks.unlink()
    why = "enroot start: [ERROR] Command not found: squashfuse"
    assert [line for line in job.lines if "unpacks" in line] == [f"n2: unpacks the image ({why})"]


@pytest.mark.parametrize("runtime", ["pyxis", "enroot"])
def test_scancel_lets_all_ranks_save_under_a_stand_in(slurm: SlurmCluster, runtime: str) -> None:
    name = f"cancel-{runtime}"
    folder(slurm, name, SAVES)
    job = submit(slurm, name, "--runtime", runtime, "--requeue", "2", "--", "train.py", "2", "0")
    job.wait_for_line("] up", 2)
    slurm.run("scancel", job.id)
    assert job.end()["JobState"] == "CANCELLED"
    assert sum("] saved" in line for line in job.lines) == 2
    assert (slurm.fsx / name / "ck" / "step-7" / "whole").exists()
    assert containers_left(slurm) == ""


def status(slurm: SlurmCluster, job: Submitted) -> tuple[str | None, dict[str, str]]:
    """Its cause, and its phases, by `inv slurm.status`."""
    told = json.loads(slurm.by_ssh("slurm.status", job.id, "--json").stdout)
    return told["cause"], {row["phase"]: row["text"] for row in told["phases"]}


def test_a_job_told_to_save_ends_and_does_not_begin_again_under_stand_ins_of_enroot_and_ssh(
    slurm: SlurmCluster,
) -> None:
    """`slurm.stop`: data loaders go on while ranks save; no time limit is near."""
    folder(slurm, "stop", SAVES)
    words = ("--runtime", "enroot", "--requeue", "2", "--time", "1:00:00", *checkpoints("stop"))
    job = submit_by_ssh(slurm, "stop", *words, "--", "train.py", "2", "1")
    job.wait_for_line("] up", 2)
    cause, phases = status(slurm, job)
    assert (cause, phases["gate"], phases["ranks"]) == (None, "2 nodes have met", "2 started")
    assert phases["training"].startswith(("[r0] up (", "[r1] up ("))
    slurm.by_ssh("slurm.stop", job.id)
    facts = job.end()
    cause, phases = status(slurm, job)
    assert (cause, "saved and stopped" in phases["stop"]) == (
        "it was told to stop, and has saved",
        True,
    )
    assert (facts["JobState"], facts["Restarts"]) == ("FAILED", "0")
    assert sum("] saved" in line for line in job.lines) == 2
    assert sum('"event": "stopped", "code": 143' in line for line in job.lines) == 2
    assert containers_left(slurm) == ""
    # The same story as a page: Slurm's own times, and the log behind ssh.
    told = slurm.by_ssh("report", "local", "--job", f"slurm:{job.id}", "--json")
    (page,) = json.loads(told.stdout)["jobs"]
    stages = {stage["stage"]: stage["slowest"] for stage in page["stages"]}
    assert (page["nodes"], page["world"], page["whole"]) == (2, 2, True)
    moments = {word: datetime.fromisoformat(facts[f"{word}Time"]) for word in ("Submit", "Start")}
    assert page["queue"] == (moments["Start"] - moments["Submit"]).total_seconds()
    assert stages["container"] > 0
    assert {tuple(end[:2]) for end in page["ends"]} == {("stopped", 143)}


def test_at_the_time_limit_it_saves_longer_than_torchrun_waits_and_resumes_under_a_pyxis_stand_in(
    slurm: SlurmCluster,
) -> None:
    """torchrun kills its ranks 30 s after a SIGTERM of its own."""
    folder(slurm, "limit", SAVES)
    words = ("--requeue", "1", "--time", "1:00:00", "--signal", "200", *checkpoints("limit"))
    job = submit(slurm, "limit", *words, "--", "train.py", "33", "1")
    job.wait_for_line("] up", 2)
    # However long a start takes here, the signal is due now; Slurm looks every 30 s.
    job.limit(left=140)
    job.wait_for_line("job: the time limit is near; the job begins again")
    job.limit(left=3600)
    facts = job.end()
    assert (facts["JobState"], facts["Restarts"]) == ("COMPLETED", "1")
    assert sum("] saved" in line for line in job.lines) == 2
    resumed = "] resumed from /fsx/limit/ck/step-7 attempt 1"
    assert sum(resumed in line for line in job.lines) == 2


def test_after_a_node_was_lost_it_begins_again_and_resumes_under_a_pyxis_stand_in(
    slurm: SlurmCluster,
) -> None:
    place = folder(slurm, "lost", SAVES)
    # The other node's ranks have a second, which is not enough to save here. Resumed ranks train on
    # for longer than Slurm waits until it tells the lost node once more that its step is over.
    words = ("--requeue", "1", *checkpoints("lost"), "--", "train.py", "5", "1", "75")
    job = submit(slurm, "lost", *words)
    job.wait_for_line("] up", 2)
    (place / "ck" / "step-3").mkdir(parents=True)
    (place / "ck" / "step-3" / "whole").touch()
    slurm.members["n2"].kill()
    job.wait_for_line("a node does not answer; the job begins again")
    assert any('"cause": "NodeLost' in line and "n2" in line for line in job.lines)
    slurm.members["n2"].start()
    facts = job.end()
    assert (facts["JobState"], facts["Restarts"]) == ("COMPLETED", "1")
    resumed = "] resumed from /fsx/lost/ck/step-3 attempt 1"
    assert sum(resumed in line for line in job.lines) == 2


def test_a_spare_takes_a_lost_nodes_place_in_the_same_allocation_under_a_pyxis_stand_in(
    slurm: SlurmCluster,
) -> None:
    """Every node killed in turn, the first one too: `python -m bench.spares`."""
    place = folder(slurm, "spare", SAVES)
    words = ("--spares", "1", "--sbatch", "partition=three", *checkpoints("spare"))
    # The ranks that are left have a second, which is not enough to save here.
    job = submit(slurm, "spare", *words, "--", "train.py", "5", "0", nodes="3")
    job.wait_for_line("] up", 2)
    (place / "ck" / "step-3").mkdir(parents=True)
    (place / "ck" / "step-3" / "whole").touch()
    slurm.members["n2"].kill()
    job.wait_for_line("] resumed from /fsx/spare/ck/step-3 attempt 0", 2)
    job.wait_for_line('"event": "over"', 2)
    slurm.members["n2"].start()
    facts = job.end()
    assert (facts["JobState"], facts["Restarts"]) == ("COMPLETED", "0")
    told = "n2: the connection to its launcher was lost; n3 takes its place; n1, n3 train"
    for node in ("n1", "n3"):
        log = place / "logs" / f"{job.id}-0-nodes" / f"{node}.log"
        assert log.read_text().count(told) == 1


def test_a_termination_that_reaches_one_node_only_begins_the_job_again_under_a_pyxis_stand_in(
    slurm: SlurmCluster,
) -> None:
    """As of an attempt whose node was lost, told to the node once it is back."""
    place = folder(slurm, "late", SAVES)
    words = ("--requeue", "1", *checkpoints("late"), "--", "train.py", "0", "0")
    job = submit(slurm, "late", *words)
    job.wait_for_line("] up", 2)
    slurm.run("bash", "-c", TERMINATE, node="n2")
    job.wait_for_line("a node was told to stop, and this job was not; the job begins again")
    facts = job.end()
    assert (facts["JobState"], facts["Restarts"]) == ("COMPLETED", "1")
    assert (place / "ck" / "step-7" / "whole").exists()
    resumed = "] resumed from /fsx/late/ck/step-7 attempt 1"
    assert sum(resumed in line for line in job.lines) == 2


def test_a_failing_rank_fails_the_job_once_with_its_cause_under_stand_ins_of_pyxis_and_ssh(
    slurm: SlurmCluster,
) -> None:
    folder(slurm, "fails", FAILS)
    job = submit_by_ssh(slurm, "fails", "--requeue", "2", "--", "train.py")
    log = slurm.by_ssh("slurm.logs", job.id, "--follow").stdout
    facts = job.end()
    assert log.splitlines() == job.lines
    cause, phases = status(slurm, job)
    assert cause is not None
    assert cause.splitlines()[0] == "TrainingError: ValueError: bad batch on rank 1 [host n2]"
    assert 'raise ValueError("bad batch")' in cause
    assert phases["gate"] == "2 nodes have met"
    assert (facts["JobState"], facts["Restarts"]) == ("FAILED", "0")
    assert facts["ExitCode"] != "0:0"
    told = '"cause": "TrainingError: ValueError: bad batch on rank 1 [host n2]"'
    assert sum(told in line for line in job.lines) == 2


@pytest.mark.parametrize(
    ("name", "there", "told"),
    [
        ("missing", None, "is not there, or not readable"),
        ("short", b"short", "has 5 bytes, and its export had 6: copy it again"),
        ("different", b"abcdeX", "differs from its export in the bytes 4 to 6: copy it again"),
    ],
)
def test_a_missing_or_different_sqsh_on_one_node_ends_the_job_before_anything_starts(
    slurm: SlurmCluster, name: str, there: bytes | None, told: str
) -> None:
    """With its sidecar on the cluster only, where the job reads it."""
    good = b"abcdef"
    pieces = tuple(
        Piece(len(part), hashlib.sha256(part).hexdigest()) for part in (good[:4], good[4:])
    )
    made = Sidecar("r", "sha256:1", (), "b", pieces, 1, {}, "1")
    for node, content in (("n1", good), ("n2", there)):
        file = slurm.local(node) / f"{name}.sqsh"
        if content is not None:
            file.write_bytes(content)
        sidecar.write_sidecar(file, made)
    folder(slurm, name, "raise SystemExit('started')")
    path = f"/local/{name}.sqsh"
    job = submit(slurm, name, "--check", "nodes", "--", "train.py", sqsh=path)
    facts = job.end()
    assert (facts["JobState"], facts["ExitCode"]) == ("FAILED", "1:0")
    assert any(line.startswith(f"n2: {path} {told}") for line in job.lines)
    assert not any(line.startswith("n1: ") for line in job.lines)
    assert "job: not every node is ready: see above" in job.lines
    assert not any("started" in line or "stand-in" in line for line in job.lines)


ALL = (*NODES, THIRD)


def sent(slurm: SlurmCluster, sqsh: Path, *words: str, code: int = 0) -> str:
    """`inv sqsh.send` with the head node's own ssh and srun; what it prints."""
    ended = slurm.with_programs("sqsh.send", str(sqsh), *words, code=code)
    return ended.stdout if code == 0 else ended.stderr


def moved(told: str) -> tuple[int, int]:
    """Bytes of all nodes: from the sender, and from each other."""
    rows = json.loads(told)
    return sum(row["from_origin"] for row in rows), sum(row["from_peers"] for row in rows)


def test_a_sqsh_is_sent_over_real_ssh_to_an_ordinary_users_nodes(slurm: SlurmCluster) -> None:
    start_sshd(slurm)
    write_programs(slurm, USER)
    pieces = [random.Random(number).randbytes(1 << 20) for number in range(12)]
    sqsh = slurm.root / "sent.sqsh"
    content = write_sqsh(sqsh, pieces)
    assert moved(sent(slurm, sqsh, "n[1-3]", "--json")) == (len(content), 2 * len(content))
    for build, seed in ((1, 50), (2, 51)):
        pieces[build] = random.Random(seed).randbytes(1 << 20)
    content = write_sqsh(sqsh, pieces)
    assert moved(sent(slurm, sqsh, "n[1-3]", "--json")) == (2 << 20, 4 << 20)
    wanted = hashlib.sha256(content).hexdigest()
    for node in ALL:
        assert slurm.run("sha256sum", "/var/tmp/slipway-1000/sent.sqsh", node=node)[:64] == wanted
    slurm.run("pkill", "-x", "sshd", node=THIRD)
    slurm.run("sh", "-c", "mkdir -m 777 /small && mount -t tmpfs -o size=4m x /small", node="n1")
    slurm.run("mkdir", "-m", "777", "/small", node="n2")
    said = sent(slurm, sqsh, "n[1-3],n9", "--to", "/small", code=1)
    assert "3 of 4 nodes have not got sent.sqsh" in said
    assert "n1: /small has 4 MiB free, and sent.sqsh takes 12 MiB more: free some space" in said
    assert "n3: ssh: connect to host n3 port 22: Connection refused" in said
    assert "n9: ssh: Could not resolve hostname n9" in said
    assert slurm.run("ls", "/small", node="n2").split() == [
        *("sent.sqsh", "sent.sqsh.checked", "sent.sqsh.json")
    ]


def fetched(slurm: SlurmCluster, *words: str) -> list[str]:
    """What a job on all three nodes prints, whose script brings the file; it ends well."""
    words = ("--sbatch", "partition=three", *words, "--", "train.py")
    job = submit(slurm, "fetched", *words, nodes="3")
    assert job.end()["JobState"] == "COMPLETED"
    assert sum("] trained" in line for line in job.lines) == 3
    return job.lines


def test_a_job_starts_from_what_was_sent_to_its_nodes_or_its_script_brings_under_a_pyxis_stand_in(
    slurm: SlurmCluster,
) -> None:
    """Sent to the two nodes of a job; then fetched by the third, from those; then by sbcast."""
    write_programs(slurm)
    folder(slurm, "fetched", "print('trained', flush=True)")
    words = ("--nodes=2", "--parsable", "--wrap=sleep 1000")
    job = slurm.run("sbatch", "--output=/dev/null", *words).strip()
    wait(lambda: slurm.run("squeue", "-h", "-j", job, "-o", "%T").strip() == "RUNNING", lambda: job)
    # A piece that is twice in the file, as where two layers hold the same small one, moves once.
    pieces = json.loads(Path(f"{slurm.sqsh}.json").read_text())["pieces"]
    size = sum(int(piece.partition(" ")[0]) for piece in {*pieces})
    assert slurm.sqsh.stat().st_size - size < 1 << 20
    assert moved(sent(slurm, slurm.sqsh, "--job", job, "--json")) == (size, size)
    slurm.run("scancel", job)
    said = sent(slurm, slurm.sqsh, "--job", job, code=1)
    assert f"job {job} does not run: it is CANCELLED" in said
    lines = fetched(slurm, "--fetch", "shared")
    came = {line[:2]: line.rpartition(": ")[2] for line in lines if " MB in " in line}
    other = f"{size / 1e6:,.1f} MB from other nodes"
    assert came == {"n1": "it was there", "n2": "it was there", "n3": other}
    fetched(slurm, "--fetch", "sbcast", "--fetch-to", "/local/fetched")
    for node in ALL:
        place = slurm.local(node) / "fetched"
        left = sorted(path.name for path in place.iterdir() if path.name[0] != ".")
        name = slurm.sqsh.name
        assert left == [name, f"{name}.checked", f"{name}.json"]
        slurm.run("rm", "-r", "/var/tmp/slipway-0", "/local/fetched", node=node)
