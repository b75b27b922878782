"""The checks of an image, run on an image that is right and on images that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from slipway.engine.client import Engine
from slipway.verify.run import VerifyReport, verify
from tests.system.conftest import CHECKOUT
from tests.system.verify_images import Case, make_case, make_image


@pytest.fixture(scope="module")
def case(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(engine, CHECKOUT, tmp_path_factory.mktemp("verify"))


def run(engine: Engine, case: Case, reference: str, tmp_path: Path) -> VerifyReport:
    log = tmp_path / "verify.log"
    return verify(case.project, engine, case.image, reference, case.base, log=log)


def test_an_image_that_is_right_passes_every_check(
    engine: Engine, case: Case, tmp_path: Path
) -> None:
    report = run(engine, case, make_image(engine, case, "good"), tmp_path)
    assert report.failures == ()
    assert report.passed > 40
