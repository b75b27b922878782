"""The checks of an image, run on an image that is right and on images that are wrong."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from slipway.core import Event, OnEvent, SlipwayError, UsageError, silent
from slipway.engine import OWNER_LABEL, Engine
from slipway.matrix import load_matrix
from slipway.records import load_locks
from slipway.verify import VerifyRequest, verify_image
from slipway.verify.image_checks import VerifyReport
from tests.support.verify_images import (
    BASE_PACKAGES,
    GPU,
    NVCC_WITHOUT_HEADERS,
    TRAIN,
    Case,
    make_case,
    make_image,
    make_other_base,
    torch,
)
from tests.support.verify_rootfs import SITE, Package
from tests.system.conftest import CHECKOUT


@pytest.fixture(scope="module")
def case(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(engine, CHECKOUT, tmp_path_factory.mktemp("verify"))


@pytest.fixture(scope="module")
def good(engine: Engine, case: Case) -> str:
    return make_image(engine, case, "good")


def run(
    engine: Engine, case: Case, reference: str, tmp_path: Path, on_event: OnEvent = silent
) -> VerifyReport:
    log = tmp_path / "verify.log"
    return verify_image(
        case.project, engine, request_of(case, reference), on_event=on_event, log=log
    )


def request_of(case: Case, reference: str, only: str = "") -> VerifyRequest:
    matrix, locks = load_matrix(case.project.versions), load_locks(case.project)
    return VerifyRequest(case.image, reference, case.base, locks, matrix.tools, only)


def failed_checks(report: VerifyReport) -> set[str]:
    return {failure.split(": ")[0].rpartition("::")[2] for failure in report.failures}


def containers(engine: Engine) -> list[object]:
    return list(engine.client.api.containers(all=True, filters={"label": OWNER_LABEL}))


def test_an_image_that_is_right_passes_every_check(
    engine: Engine, case: Case, good: str, tmp_path: Path
) -> None:
    events: list[Event] = []
    report = run(engine, case, good, tmp_path, events.append)
    assert report.failures == ()
    assert report.failed == report.deselected_gpu == 0
    steps = [event for event in events if event.kind == "progress"]
    assert len(steps) == report.passed == steps[-1].total > 40
    assert (events[0].kind, events[-1].kind) == ("start", "done")
    assert report.junit.exists()
    assert "passed" in (tmp_path / "verify.log").read_text()
    assert containers(engine) == []


def metadata(version: str) -> bytes:
    return f"Metadata-Version: 2.1\nName: protobuf\nVersion: {version}\n".encode()


WRAPPER = b"#!/opt/venv/bin/python\nprint('v2.3.0-wrapper')\n"
NOISE = TRAIN.replace("sys.exit(1", "print('WARNING: something is odd'); sys.exit(1")


def test_every_fault_of_an_image_at_rest_fails_its_own_check(
    engine: Engine, case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = b"-----BEGIN CERTIFICATE-----\nof a proxy\n"
    (tmp_path / "proxy-ca.pem").write_bytes(bundle)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "proxy-ca.pem"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-a-real-key-of-anybody")

    good_config = case.config()
    labels, env = good_config["Labels"], good_config["Env"]
    assert isinstance(labels, dict)
    assert isinstance(env, list)
    reference = make_image(
        engine,
        case,
        "broken",
        files={
            f"{SITE}/protobuf-6.33.0.dist-info/METADATA": metadata("5.0.0"),
            **torch("2.12.0+cpu").files(),
            **Package("surprise", "1.0").files(),
            **replace(BASE_PACKAGES[2], version="2.0").files(),
            "/opt/venv/bin/ds_report": b"#!/bin/sh\necho no report\n",
            "/opt/venv/bin/train": NOISE.encode(),
            "/usr/local/bin/s5cmd": WRAPPER,
            "/usr/local/bin/launch": None,
            "/etc/os-release": b"ID=debian\nVERSION_ID=11\n",
            "/root/.netrc": b"machine index login me password secret-1",
            "/opt/settings": b"index = https://me:hunter2-secret@index.example/simple\n",
            "/opt/script.sh": b"export KEY=not-a-real-key-of-anybody\n",
            "/opt/proxy.pem": bundle,
            "/usr/local/share/ca-certificates/proxy.crt": b"another\n",
            "/root/.cache/pip/http/0": b"cached",
            "/opt/src/.git/config": b"[core]\n",
            f"{SITE}/__pycache__/addon.cpython-311.pyc": b"compiled by hand",
        },
        config={
            "WorkingDir": "/workspace",
            "Env": [
                *(entry for entry in env if not entry.startswith(("PYTHONUNBUF", "SAGEMAKER_"))),
                "NCCL_DEBUG=INFO",
                "INDEX_TOKEN=abc",
                "PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin:/more",
            ],
            "Labels": {
                **labels,
                "io.slipway.matrix": "{}",
                "io.slipway.build-id": "6" * 64,
                "vendor": "us",
            },
        },
    )
    small = replace(case, image=replace(case.image, size_budget_mb=0))
    report = run(engine, small, reference, tmp_path)
    assert failed_checks(report) == {
        "test_packages_of_the_base_are_unchanged_except_those_that_are_listed",
        "test_requirements_are_met_as_well_as_in_the_base",
        "test_torch_and_its_cuda_are_as_stated",
        "test_nothing_but_what_is_locked_was_added",
        "test_no_package_is_there_twice",
        "test_ds_report_can_be_read_and_agrees_with_the_facts",
        "test_a_job_that_succeeds_ends_with_0_and_leaves_its_model",
        "test_hyperparameters_are_never_executed",
        "test_s5cmd_is_a_binary_and_not_its_python_wrapper",
        "test_every_tool_is_the_locked_file_in_its_place",
        "test_the_launcher_is_there_and_on_path",
        "test_the_launcher_answers_through_the_entrypoint",
        # `launch` is one of the programs.
        "test_programs_are_found_in_a_login_shell[sh -lc]",
        "test_programs_are_found_in_a_login_shell[bash -lc]",
        "test_the_operating_system_is_as_stated",
        "test_no_file_that_usually_holds_a_secret_was_added",
        "test_no_added_file_holds_a_secret",
        "test_no_file_of_the_build_host_got_in",
        "test_trusted_certificates_are_those_of_the_base",
        "test_no_cache_log_or_temporary_file_was_added",
        "test_nothing_of_a_source_tree_was_added",
        "test_no_bytecode_was_added_where_the_image_states_none",
        "test_working_directory_and_user_are_as_stated",
        "test_the_environment_is_as_stated",
        "test_training_output_is_not_buffered",
        "test_the_framework_that_handles_torch_distributed_is_set",
        "test_no_network_tuning_is_baked_in",
        "test_no_variable_label_or_build_step_holds_a_secret",
        "test_the_image_changes_no_variable_of_its_base",
        "test_the_matrix_label_is_the_matrix_cell",
        "test_the_labels_are_those_of_the_matrix",
        "test_the_labels_of_the_base_are_kept",
        "test_the_build_id_is_a_label_and_ends_the_tag",
        "test_what_the_image_adds_to_its_base_is_within_its_budget",
    }
    told = "\n".join(report.failures)
    assert "6.33.0 -> 5.0.0" in told
    assert "WARNING: something is odd" in told
    assert "/opt/settings: a URL with a password" in told
    assert "/opt/script.sh: $AWS_SECRET_ACCESS_KEY of this host" in told
    assert "REQUESTS_CA_BUNDLE of the build host" in told
    assert "not-a-real-key-of-anybody" not in (tmp_path / "verify.log").read_text()


EVALUATING = b"""#!/bin/bash
if [[ ${1-} == train ]]; then exec /opt/entrypoints/launch "$@"; fi
eval "$@"
"""
THROUGH_A_SHELL = TRAIN.replace(
    "subprocess.run([sys.executable, script, *words])",
    'subprocess.run(" ".join([sys.executable, script, *words]), shell=True)',
).replace("1 if done.returncode else 0", "0")


def test_every_fault_of_a_start_and_another_base_fail_their_own_checks(
    engine: Engine, case: Case, tmp_path: Path
) -> None:
    reference = make_image(
        engine,
        case,
        "broken-start",
        files={
            "/opt/entrypoints/entrypoint.sh": EVALUATING,
            "/opt/venv/bin/train": THROUGH_A_SHELL.encode(),
        },
        config={"Cmd": ["sh"]},
    )
    # Nor is it made on the base that the matrix says, though that base holds the same.
    other = replace(case, base=make_other_base(engine, case))
    report = run(engine, other, reference, tmp_path)
    assert failed_checks(report) == {
        "test_the_image_is_made_on_exactly_its_base",
        "test_entrypoint_and_command_are_the_launchers",
        "test_arguments_reach_a_command_word_for_word",
        "test_the_exit_code_of_a_command_is_the_exit_code_of_the_container[1]",
        "test_the_exit_code_of_a_command_is_the_exit_code_of_the_container[42]",
        "test_a_job_that_succeeds_ends_with_0_and_leaves_its_model",
        "test_hyperparameters_are_never_executed",
        "test_a_job_that_fails_does_not_end_with_0_and_says_so",
        "test_an_exception_is_told_in_the_log_and_fails_the_job",
    }


def test_a_gpu_image_for_a_cluster_passes_and_says_how_much_was_not_run(
    engine: Engine, tmp_path: Path
) -> None:
    case = make_case(engine, CHECKOUT, tmp_path, GPU)
    events: list[Event] = []
    report = run(engine, case, make_image(engine, case, "gpu"), tmp_path, events.append)
    assert report.failures == ()
    assert report.deselected_gpu == 2
    assert "2 NOT run: they need a GPU" in events[-1].text


def test_headers_that_a_toolkit_lacks_are_all_named(engine: Engine, tmp_path: Path) -> None:
    case = make_case(engine, CHECKOUT, tmp_path, GPU)
    files = {"/usr/local/cuda/bin/nvcc": NVCC_WITHOUT_HEADERS}
    reference = make_image(engine, case, "headers", files=files)
    request = request_of(case, reference, "fused_adam")
    report = verify_image(case.project, engine, request, log=tmp_path / "verify.log")
    (failure,) = report.failures
    assert "/usr/local/cuda lacks cusparse.h, cublas/v2.h: " in failure


def test_an_image_that_is_not_there_is_said(engine: Engine, case: Case, tmp_path: Path) -> None:
    with pytest.raises(SlipwayError, match=r"no image slipway\.test/absent:1"):
        run(engine, case, "slipway.test/absent:1", tmp_path)


def test_a_pattern_chooses_checks_and_one_that_matches_none_is_wrong_usage(
    engine: Engine, case: Case, good: str, tmp_path: Path
) -> None:
    log = tmp_path / "verify.log"
    report = verify_image(
        case.project, engine, request_of(case, good, "version_of_python"), log=log
    )
    assert (report.passed, report.failed, report.deselected_gpu) == (1, 0, 0)
    for pattern in ("no_such_check", "not ("):
        with pytest.raises(UsageError, match=r"no check of .* matches"):
            verify_image(case.project, engine, request_of(case, good, pattern), log=log)


def test_checks_that_take_too_long_are_ended_and_leave_no_container(
    engine: Engine, case: Case, good: str, tmp_path: Path
) -> None:
    with pytest.raises(SlipwayError, match="did not end within 4 s"):
        verify_image(
            case.project,
            engine,
            request_of(case, good),
            log=tmp_path / "verify.log",
            timeout_s=4,
        )
    assert containers(engine) == []


WORKER = """
import sys
from pathlib import Path
from slipway.core import interrupts
from slipway.core import Project
from slipway.engine import connect
from slipway.matrix import load_matrix
from slipway.records import load_locks
from slipway.verify import VerifyRequest, verify_image
interrupts.handle_signals()  # as `inv` does
root, url, reference, base, log = sys.argv[1:]
project = Project.at(Path(root))
matrix = load_matrix(project.versions)
image = next(i for i in matrix.images if i.name == "local-ds0.19.8")
engine = connect(project, url)
try:
    request = VerifyRequest(image, reference, base, load_locks(project), matrix.tools)
    verify_image(project, engine, request, log=Path(log),
           on_event=lambda event: print(event.kind, event.current, flush=True))
except KeyboardInterrupt:
    sys.exit(130)
finally:
    engine.close()
"""


def test_ctrl_c_leaves_no_container(engine: Engine, case: Case, good: str, tmp_path: Path) -> None:
    log = tmp_path / "verify.log"
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(case.project.root), engine.url, good, case.base, log],
        stdout=subprocess.PIPE,
        text=True,
        cwd=CHECKOUT,
    )
    assert worker.stdout is not None
    with worker.stdout:
        assert "progress 5\n" in iter(worker.stdout.readline, "")
        assert containers(engine) != []
        worker.send_signal(signal.SIGINT)
        worker.stdout.read()
    assert worker.wait(60) == 130
    assert containers(engine) == []
