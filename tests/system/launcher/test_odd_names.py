"""Objects and files as they are: empty, oddly named, hostile, gone; with the real s5cmd."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.causes import FETCH_SHORT, LaunchError
from launcher.data import S3, resume, transfer
from launcher.data.resume import RemoteCheckpoint
from launcher.stop_request import StopRequest
from tests.support.launcher.bucket import Bucket
from tests.support.launcher.cluster import LAUNCH, Cluster, clean_environment, cluster

pytest_plugins = ["tests.support.launcher.storage"]


@pytest.fixture
def one(tmp_path: Path, bucket: Bucket) -> Iterator[Cluster]:
    with cluster(tmp_path, 1) as made:
        for node in made.nodes:
            path = f"{Path(sys.executable).parent}:{bucket.env['PATH']}:{node.env['PATH']}"
            node.env.update(bucket.env, PATH=path, LAUNCH_CHECKPOINT_INTERVAL="1")
        yield made


def s3(bucket: Bucket) -> S3:
    return S3({**clean_environment(), **bucket.env}, StopRequest())


def launch(bucket: Bucket, *argv: str) -> subprocess.CompletedProcess[str]:
    env = {**clean_environment(), **bucket.env}
    return subprocess.run([str(LAUNCH), *argv], env=env, capture_output=True, text=True)


ORDINARY = {
    "m/empty": "", "m//part-1.bin": "p1", "m/a//b///c": "abc", "m/folder/": "", "m/": "",
    "m/sp ace/q'\"$(id)`;\\#": "odd", "m/-dash": "d", "m/~/x": "t", "m/pl+us%20": "p",
    "m/ü*[1]?.bin": "u", f"m/{'n' * 255}": "long", f"m/{'n' * 254}": "long", "m/\u2028": "ls",
    "m/\u202egpj.exe": "rtl", "m/.hidden": "h",
}  # fmt: skip
FILES = {
    "empty": "", "part-1.bin": "p1", "a/b/c": "abc", "sp ace/q'\"$(id)`;\\#": "odd", "-dash": "d",
    "~/x": "t", "pl+us%20": "p", "ü*[1]?.bin": "u", "n" * 255: "long", "n" * 254: "long",
    "\u2028": "ls", "\u202egpj.exe": "rtl", ".hidden": "h",
}  # fmt: skip


def test_every_ordinary_key_arrives_goes_back_and_compares_equal(
    tmp_path: Path, bucket: Bucket
) -> None:
    bucket.put(ORDINARY)
    target = tmp_path / "m"
    moved = transfer.fetch_prefix(s3(bucket), f"{bucket.uri}/m", target)
    assert moved.files == len(FILES)
    sizes = {name: len(text.encode()) for name, text in FILES.items()}
    assert transfer.local_files(target) == sizes
    assert all((target / name).read_text() == text for name, text in FILES.items())
    assert transfer.fetch_prefix(s3(bucket), f"{bucket.uri}/m", target).copied == 0
    assert launch(bucket, "verify", f"{bucket.uri}/m", str(target)).returncode == 0
    assert launch(bucket, "upload", str(target), f"{bucket.uri}/back").returncode == 0
    assert bucket.names("back/") == sorted(f"back/{name}" for name in FILES)
    assert launch(bucket, "verify", str(target), f"{bucket.uri}/back").returncode == 0


@pytest.mark.parametrize(
    "key",
    ["p/../../../etc/cron.d/evil", "p/x/./y", "p/tab\there", "p/bell\x07", "p/.launch-fetched.json",
     f"p/{'x' * 256}", "p/fine/below"],
)  # fmt: skip
def test_a_key_that_can_be_no_file_is_named_before_anything_is_fetched(
    tmp_path: Path, bucket: Bucket, key: str
) -> None:
    bucket.put({"p/fine": "fine", key: "evil"})
    root = tmp_path / "deep" / "down"
    root.mkdir(parents=True)
    done = launch(bucket, "prefetch", f"{bucket.uri}/p", str(root / "target"))
    assert done.returncode == FETCH_SHORT
    (line,) = done.stderr.splitlines()
    name = key[2:].encode().decode()
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in name)
    assert shown[:60] in line.replace("\\u0007", "\\x07")
    assert not (root / "target").exists()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [".launch-target.lock"]


def test_a_link_in_the_target_leads_nothing_out_of_it(tmp_path: Path, bucket: Bucket) -> None:
    bucket.put({"p/a": "a", "p/out/x": "x"})
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "out").symlink_to(tmp_path / "elsewhere")
    done = launch(bucket, "prefetch", f"{bucket.uri}/p", str(tmp_path / "t"))
    assert done.returncode == FETCH_SHORT
    assert "'out/x'" in done.stderr
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert [item.name for item in (tmp_path / "t").iterdir()] == ["out"]


def test_a_note_can_not_lead_a_checkpoint_elsewhere(tmp_path: Path, bucket: Bucket) -> None:
    evil = {"files": {"../../evil": 1}, "pointer": ""}
    other = {"files": {"other/a": 1}, "pointer": ""}
    for name, note in (("evil", evil), ("ck", other)):
        bucket.put({f"j/0/_COMPLETE/{name}.json": json.dumps(note), "j/0/x": "x"})
        source = RemoteCheckpoint(f"{bucket.uri}/j/0", name)
        with pytest.raises(LaunchError) as caught:
            resume.fetch_checkpoint(s3(bucket), source, tmp_path / "a" / "b")
        assert next(iter(note["files"])) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_bucket_and_a_target_with_blanks_are_one_prefetch(one: Cluster, bucket: Bucket) -> None:
    bucket.put({"my model/a b": "x", "other/c": "y"})
    root = one.nodes[0].root
    one.script(f"import os\nprint(os.listdir({str(root / 'my dir')!r}))")
    (run,) = one.train(
        LAUNCH_PREFETCH=f"{bucket.uri}/my model={root}/my dir {bucket.uri}/other={root}/o"
    )
    assert run.end() == 0
    assert (root / "my dir" / "a b").read_text() == "x"
    assert (root / "o" / "c").read_text() == "y"


ODD_OUTPUT = """
import os, pathlib
root = pathlib.Path(os.environ["OUT"])
(root / "ck" / "checkpoint-1").mkdir(parents=True)
for place in (root, root / "ck" / "checkpoint-1"):
    (place / "empty").touch()
    (place / "weights").write_text("w")
    (place / "broken").symlink_to("nothing")
    (place / "self").symlink_to("self")
    os.mkfifo(place / "pipe")
    open(os.fsencode(place) + b"/\\xff", "w").close()
(root / "ck" / "checkpoint-1" / "trainer_state.json").write_text('{"global_step": 7}')
"""


def test_odd_output_is_uploaded_as_far_as_it_can_be_and_the_rest_is_said(
    one: Cluster, bucket: Bucket
) -> None:
    node = one.nodes[0]
    one.script(ODD_OUTPUT)
    out = node.root / "out dir"
    (run,) = one.train(
        *("--upload", f"{out}={bucket.uri}/final"),
        *("--checkpoint-dir", f"{out}/ck", "--checkpoint-uri", f"{bucket.uri}/ck"),
        OUT=str(out),
    )
    assert run.end() == 0
    assert node.failure == ""
    job = node.env["TRAINING_JOB_NAME"]
    prefix = f"ck/{job}/0"
    assert bucket.names(f"{prefix}/checkpoint-1/") == [
        f"{prefix}/checkpoint-1/{name}" for name in ("empty", "trainer_state.json", "weights")
    ]
    note = json.loads(bucket.text(f"{prefix}/_COMPLETE/checkpoint-1.json"))
    assert (note["step"], note["step_source"]) == (7, "trainer_state.json")
    assert note["files"]["checkpoint-1/empty"] == 0
    assert len(note["skipped"]) == 4
    (event,) = run.events("uploaded")
    said = "\n".join(event["skipped"])
    for text in (
        "broken: a broken link",
        "pipe: neither",
        "self: a broken",
        r"\xff: it is not UTF",
    ):
        assert text in said
    assert f"final/{job}/0/empty" in bucket.names("final")


def test_the_newest_by_its_own_step_is_resumed_wherever_and_whatever_it_is_called(
    one: Cluster, bucket: Bucket
) -> None:
    node = one.nodes[0]
    one.script(
        "import os, pathlib\nroot = pathlib.Path(os.environ['OUT'])\n"
        "print('from', os.environ.get('LAUNCH_RESUME_FROM'))\n"
        "if 'LAUNCH_RESUME_FROM' not in os.environ:\n"
        "    steps = {'checkpoint-500': 500, 'checkpoint-best': 200, 'last': 200}\n"
        "    for name, step in steps.items():\n"
        "        (root / name).mkdir(parents=True)\n"
        "        (root / name / 'empty').touch()\n"
        "        (root / name / 'trainer_state.json').write_text('{\"global_step\": %d}' % step)\n"
    )
    out = node.root / "ck"
    options = ["--checkpoint-dir", str(out), "--checkpoint-uri", f"{bucket.uri}/ck"]
    (first,) = one.train(*options, OUT=str(out))
    assert first.end() == 0
    for path in sorted(out.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (second,) = one.train(*options, "--resume", "auto", OUT=str(out))
    assert second.end() == 0
    second.wait_for_line(f"from {out}/checkpoint-500")
    (choice,) = second.events("resume-choice")
    assert (choice["name"], choice["step"]) == ("checkpoint-500", 500)
    assert "checkpoint-best: step 200 by trainer_state.json" in choice["of"]


def test_a_file_that_vanishes_while_it_is_uploaded_is_said_and_no_failure(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("stays", "goes"):
        (tmp_path / name).write_text(name)
    store = s3(bucket)
    real = store.copy

    def copy(pairs: object) -> None:
        (tmp_path / "goes").unlink(missing_ok=True)
        real(pairs)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "copy", copy)
    sent = transfer.send_directory(store, tmp_path, f"{bucket.uri}/v")
    assert sent.files == {"stays": 5}
    assert sent.skipped == {"goes": "it vanished while it was uploaded"}
