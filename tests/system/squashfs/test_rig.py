"""Random layer stacks link to what the kernel's overlayfs shows of them."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from slipway.squashfs import SqshOptions
from tests.support.squashfs_rig import BLOCK, STACKS, Stack, check_stack

_NUMBERS = itertools.count()


@pytest.mark.timeout(600)
@given(stack=STACKS)
@settings(
    max_examples=120,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    print_blob=True,
)
def test_a_random_stack_links_to_what_overlayfs_shows(stack: Stack, tmp_path: Path) -> None:
    options = SqshOptions("zstd", 1, BLOCK)
    check_stack(stack, tmp_path / str(next(_NUMBERS)), options)
