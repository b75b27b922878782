"""What the preflight makes of what it finds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from launcher.causes import PREFLIGHT, LaunchError
from launcher.checks import FAIL, WARN, Check, node_check, preflight, probe
from launcher.checks.preflight import NodeFacts
from launcher.instances import INSTANCES
from launcher.platforms import local_topology, named
from launcher.ranks import layout_ranks

HEALTHY = NodeFacts(
    instance_type="ml.p5.48xlarge",
    nodes=2,
    platform="sagemaker",
    gpus=8,
    capability=9.0,
    ecc_errors=0,
    efa_devices=32,
    efa_provider=True,
    shm_bytes=1 << 38,
    checkpoint_dir="/ck",
    checkpoint_uri="s3://b/ck",
    s3_errors={"s3://b/ck": ""},
    clock_skew=1.0,
)


def of_level(facts: NodeFacts, level: str) -> dict[str, str]:
    return {c.name: c.text for c in preflight.judge_facts(facts) if c.level == level}


def test_a_healthy_node_passes() -> None:
    preflight.require_fit(preflight.judge_facts(HEALTHY))
    assert of_level(HEALTHY, FAIL) == of_level(HEALTHY, WARN) == {}


@pytest.mark.parametrize(
    ("change", "name", "said"),
    [
        ({"gpus": 7}, "gpus", "7 GPUs, but ml.p5.48xlarge has 8"),
        ({"ecc_errors": 2}, "gpu memory", "2 uncorrected memory errors"),
        ({"efa_devices": 31}, "efa", "31 EFA devices, but ml.p5.48xlarge has 32"),
        ({"efa_devices": None}, "efa", "0 EFA devices"),
        ({"efa_provider": False}, "fi_info", "no efa provider"),
        ({"memlock_unlimited": False}, "memlock", "ulimit -l"),
        ({"s3_errors": {"s3://b/ck": "AccessDenied"}}, "s3 write", "s3://b/ck: AccessDenied"),
        ({"clock_skew": -400.0}, "clock", "-400 s off"),
        ({"checkpoint_mounted": False, "checkpoint_uri": ""}, "checkpoints", "lost with"),
        ({"args": ("--fp8", "1"), "capability": 8.6}, "fp8", "these GPUs have 8.6"),
    ],
)
def test_what_would_fail_the_job_later_fails_the_preflight(
    change: dict[str, object], name: str, said: str
) -> None:
    failed = of_level(replace(HEALTHY, **change), FAIL)  # type: ignore[arg-type]
    assert list(failed) == [name]
    assert said in failed[name]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"shm_bytes": 64 << 20}, "shm"),
        ({"sagemaker_sync": "/ck"}, "checkpoint sync"),
        ({"checkpoint_mounted": False}, "checkpoints"),
        ({"args": ("--load_best_model_at_end", "True")}, "load_best_model_at_end"),
    ],
)
def test_what_is_only_unwise_is_a_warning(change: dict[str, object], name: str) -> None:
    facts = replace(HEALTHY, **change)  # type: ignore[arg-type]
    assert list(of_level(facts, WARN)) == [name]
    assert of_level(facts, FAIL) == {}


@pytest.mark.parametrize(
    "change",
    [
        {"gpus": 4, "gpus_restricted": True},
        {"nodes": 1, "efa_devices": None, "memlock_unlimited": False},
        {"instance_type": "ml.unheard-of", "gpus": 1},
        {"instance_type": "", "gpus": 0, "shm_bytes": 1},
        {"args": ("--fp8=0",), "capability": 8.0},
        {"args": ("--fp8", "1"), "capability": 8.9},
        {"nodes": 1, "args": ("--load_best_model_at_end",)},
    ],
)
def test_what_is_meant_that_way_is_no_problem(change: dict[str, object]) -> None:
    facts = replace(HEALTHY, **change)  # type: ignore[arg-type]
    assert of_level(facts, FAIL) == of_level(facts, WARN) == {}


def test_all_failed_checks_are_told_at_once() -> None:
    with pytest.raises(LaunchError) as caught:
        preflight.require_fit(preflight.judge_facts(replace(HEALTHY, gpus=7, clock_skew=999.0)))
    assert caught.value.code == PREFLIGHT
    assert "gpus: 7 GPUs" in str(caught.value)
    assert "clock: " in str(caught.value)


def figures(rank: int, **change: object) -> dict[str, object]:
    return {
        "rank": rank, "device": "NVIDIA H100", "teraflops": 700.0, "finite": True,
        "sum_right": True, "busbw_gbs": 340.0, **change,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"finite": False}, "holds NaN"),
        ({"sum_right": False}, "wrong sum"),
        ({"teraflops": 300.0}, "far slower than its neighbours"),
        ({"teraflops": 520.0}, "a healthy p5.48xlarge passes 540 TFLOP/s"),
        ({"busbw_gbs": 45.0}, "a healthy p5.48xlarge passes 260 GB/s"),
    ],
)
def test_a_sick_gpu_is_told_by_its_figures(change: dict[str, object], said: str) -> None:
    results = [figures(0), figures(1), figures(2, **change)]
    checks = node_check.judge_node(results, "p5.48xlarge", nodes=1)
    assert [check.name for check in checks if check.level == FAIL] == ["rank 2"]
    assert said in checks[2].text


@pytest.mark.parametrize("ranks", [2, 4, 8])
@pytest.mark.parametrize("kind", ["", "p5.48xlarge"])
def test_a_gpu_held_to_three_fifths_of_its_neighbours_is_named(ranks: int, kind: str) -> None:
    results = [*(figures(r) for r in range(ranks - 1)), figures(ranks - 1, teraflops=420.0)]
    checks = node_check.judge_node(results, kind, nodes=1)
    assert [check.name for check in checks if check.level == FAIL] == [f"rank {ranks - 1}"]
    assert "far slower than its neighbours" in checks[-1].text


@pytest.mark.parametrize("speeds", [(804.0, 622.0), (741.0, 641.0, 700.0, 622.0)])
def test_what_healthy_cards_have_sustained_passes(speeds: tuple[float, ...]) -> None:
    results = [figures(rank, teraflops=speed) for rank, speed in enumerate(speeds)]
    assert {c.level for c in node_check.judge_node(results, "p5.48xlarge", 1)} == {preflight.OK}


def test_power_clock_and_what_holds_the_clock_back_are_shown() -> None:
    state = {
        "watts": "698.1", "watts_limit": "700.00", "sm_mhz": "1410", "sm_mhz_most": "1980",
        "held_back": "0x0000000000000004", "celsius": "61",
    }  # fmt: skip
    (check,) = node_check.judge_node([figures(0, **state)], "", nodes=1)
    words = "698.1 of 700.00 W, 1410 of 1980 MHz, 61 C, held back by: power limit"
    assert words in check.text
    (check,) = node_check.judge_node([figures(0, **{**state, "held_back": "[N/A]"})], "", nodes=1)
    assert "61 C)" in check.text


@pytest.mark.parametrize("kind", ["p5.48xlarge", "ml.p5e.48xlarge", "p5en.48xlarge"])
def test_gpus_that_are_all_slow_alike_fail(kind: str) -> None:
    results = [figures(rank, teraflops=520.0) for rank in range(8)]
    assert {check.level for check in node_check.judge_node(results, kind, nodes=1)} == {FAIL}


@pytest.mark.parametrize("kind", ["", "g5.48xlarge", "unheard-of"])
def test_a_type_without_floors_fails_nobody(kind: str) -> None:
    results = [figures(rank, teraflops=30.0, busbw_gbs=5.0) for rank in range(2)]
    assert {check.level for check in node_check.judge_node(results, kind, nodes=1)} == {
        preflight.OK
    }


def test_between_nodes_the_floor_of_nvlink_does_not_apply() -> None:
    results = [figures(rank, busbw_gbs=90.0) for rank in range(2)]
    assert {check.level for check in node_check.judge_node(results, "p5.48xlarge", nodes=2)} == {
        preflight.OK
    }


def test_one_rank_alone_needs_no_bandwidth() -> None:
    checks = node_check.judge_node([figures(0, busbw_gbs=0.0)], "p5.48xlarge", nodes=1)
    assert [check.level for check in checks] == [preflight.OK]


def test_the_floors_of_nvlink_lie_a_fifth_below_the_measured_share_of_its_line_rate() -> None:
    # GB/s of a GPU's NVLinks in one direction: NVLink 3, 4 and 5. docs/lab/gpu.md: 326 of 450.
    line_rates = {"p4d": 300, "p4de": 300, "p5": 450, "p5e": 450, "p5en": 450, "p6-b200": 900}
    floors = {name: row.nvlink_floor for name, row in INSTANCES.items() if row.nvlink_floor}
    assert {name.partition(".")[0] for name in floors} == set(line_rates)
    for name, floor in floors.items():
        healthy = 326 / 450 * line_rates[name.partition(".")[0]]
        assert 0.78 < floor / healthy <= 0.8


def test_a_rank_that_does_not_come_is_named_by_its_own_node_only(tmp_path: Path) -> None:
    nodes = local_topology(hosts=["a", "b"], node_rank=1, job="j")
    ranks = layout_ranks(nodes, [2, 2], port=1, attempt=0)
    (tmp_path / "arrived.2").touch()
    cause = node_check.blame(ranks, tmp_path, 30).cause
    assert (cause.rank, cause.secondary, cause.code) == (3, False, PREFLIGHT)
    assert cause.message == "did not come to the first all-reduce within 30 s"
    (tmp_path / "arrived.3").touch()
    assert node_check.blame(ranks, tmp_path, 30).cause.secondary


def test_the_table_lines_up() -> None:
    text = preflight.checks_table([Check("a", "ok", "x"), Check("long name", FAIL, "y")])
    assert text == "ok    a          x\nfail  long name  y"


def test_arguments_are_read_in_both_spellings() -> None:
    args = ["--fp8=1", "--output-dir", "/x", "--flag", "--last"]
    assert named(args) == {
        "fp8": "1", "output_dir": "/x", "flag": "true", "last": "true",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("9.0, 0\n9.0, 3\n", (9.0, 3)),
        ("8.6, [N/A]\n7.5, [N/A]\n", (7.5, None)),
        ("", (None, None)),
        ("[Not Supported], [N/A]\n", (None, None)),
    ],
)
def test_nvidia_smis_health_columns_are_read(
    text: str, found: tuple[float | None, int | None]
) -> None:
    assert probe.parse_health(text) == found


def test_the_instance_table_holds_the_types_that_the_documents_name() -> None:
    counts = {name: (row.gpus, row.efa) for name, row in INSTANCES.items()}
    # aws/sagemaker-hyperpod-recipes:launcher/efa.py
    expected = {
        "p4d.24xlarge": (8, 4), "p4de.24xlarge": (8, 4), "p5.48xlarge": (8, 32),
        "p5e.48xlarge": (8, 32), "p5en.48xlarge": (8, 16), "g5.48xlarge": (8, 1),
        "g6e.24xlarge": (4, 2), "g6e.48xlarge": (8, 4), "g5.2xlarge": (1, 0),
    }  # fmt: skip
    assert expected.items() <= counts.items()
