from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath

from slipway.engine import Engine
from slipway.verify.check_containers import probe_container
from slipway.verify.expectations import CheckedImage


def test_modules_of_addons_have_their_bytecode_where_the_image_states_it(
    engine: Engine, container: str, subject: CheckedImage
) -> None:
    names = (subject.may_come or ()) if subject.bytecode else ()
    assert probe_container(engine, container, subject.python, "bytecode", *names) == {}


def test_no_bytecode_was_added_where_the_image_states_none(
    added: Mapping[str, bool], subject: CheckedImage
) -> None:
    prefix = PurePosixPath(subject.python).parent.parent
    ours = re.compile(rf"{re.escape(str(prefix))}/lib/python[^/]+/site-packages/.*\.pyc")
    assert subject.bytecode or [path for path in sorted(added) if ours.fullmatch(path)] == []
