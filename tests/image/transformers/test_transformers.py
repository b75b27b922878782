from __future__ import annotations

from slipway.verify.expectations import CheckedImage
from slipway.verify.findings import Distributions
from slipway.verify.plugin import RunPython


def test_transformers_has_the_version_that_is_stated(
    packages: Distributions, subject: CheckedImage
) -> None:
    assert packages.versions["transformers"] == subject.facts["transformers"]


def test_transformers_can_be_imported(run_python: RunPython) -> None:
    run_python("import transformers")
