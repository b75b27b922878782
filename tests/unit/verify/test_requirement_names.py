"""Names of requirements without the whole grammar of packaging, which takes long to import."""

from __future__ import annotations

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from slipway.verify.expectations import requirement_names

FORMS = (
    "{}",
    " {} ",
    "{}==1.0",
    "{} >= 1, < 2",
    "{}[all,s3]~=2.1",
    "{} [all] == 1",
    "{}; python_version < '3.12'",
    "{}@ https://host.invalid/a-1.0-py3-none-any.whl",
    "{} (>=1.0)",
)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["a", "deepspeed", "Jinja2", "ruamel.yaml", "A_b-C.d", "x1-_.y2"])
def test_the_name_is_what_packaging_finds(form: str, name: str) -> None:
    text = form.format(name)
    assert requirement_names((text,)) == [canonicalize_name(Requirement(text).name)]
