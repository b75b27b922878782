"""`inv diff` of two images in folders."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from ruamel.yaml import YAML

from slipway.core import FAILED, UsageError
from slipway.pipeline import Settings, compare_images
from slipway.pipeline.targets.image_differences import DowngradeError
from tests.support.oci_bases import base_tar, write_base

ROOT = Path(__file__).parents[3]
SETTINGS = Settings.of(
    SimpleNamespace(slipway=YAML(typ="safe").load(ROOT / "invoke.yaml")["slipway"])
)
SITE = "opt/venv/lib/python3.12/site-packages"


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPWAY_STATE", str(tmp_path / "state"))


def layout(folder: Path, torch: str) -> str:
    metadata = f"Name: torch\nVersion: {torch}\n".encode()
    files = {"opt/venv/bin/python": b"", f"{SITE}/torch-{torch}.dist-info/METADATA": metadata}
    write_base(folder, [base_tar({"shared": b""}), base_tar(files)])
    return f"oci:{folder}"


def test_a_downgrade_fails_and_the_report_tells_both_ways(tmp_path: Path) -> None:
    old, new = layout(tmp_path / "old", "2.8.0"), layout(tmp_path / "new", "2.9.0")
    osv = tmp_path / "osv"
    osv.mkdir()
    ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.9.0"}]}]
    affected = [{"package": {"ecosystem": "PyPI", "name": "torch"}, "ranges": ranges}]
    (osv / "x.json").write_text(json.dumps({"id": "X-1", "affected": affected}))

    up = compare_images(ROOT, SETTINGS, old, new, str(osv))
    up.require_no_downgrade()
    assert [str(change) for change in up.difference.packages] == [
        "python torch 2.8.0 -> 2.9.0 (up)"
    ]
    assert up.difference.layers_shared == 1
    layers = [line for line in up.lines() if line.startswith("layer ")]
    assert [line.partition(" (")[2] for line in layers] == ["removed) the base", "added) the base"]
    assert list(up.advisory_lines()) == ["gone: python torch 2.8.0: X-1 (fixed in 2.9.0)"]
    assert json.loads(json.dumps(up.as_json()))["difference"]["packages"][0]["direction"] == "up"

    down = compare_images(ROOT, SETTINGS, new, old, str(osv))
    assert list(down.advisory_lines()) == ["new: python torch 2.8.0: X-1 (fixed in 2.9.0)"]
    with pytest.raises(DowngradeError, match=r"torch 2\.9\.0 -> 2\.8\.0") as error:
        down.require_no_downgrade()
    assert error.value.exit_code == FAILED


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("base:local-ds0.19.8", "made by Slipway, and lies in no registry"),
        ("base:nothing", "nothing"),
        ("http:///x", "not an image that can be read"),
        ("oci:/nowhere", "not an OCI layout"),
    ],
)
def test_what_names_no_image_is_said(tmp_path: Path, reference: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        compare_images(ROOT, SETTINGS, reference, reference)
