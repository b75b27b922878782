"""What an alias is, which wildcards let it move, and what a journal says was named before."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.core import UsageError
from slipway.matrix import image_tag, load_matrix, repository_name
from slipway.registry import AliasMove, alias_patterns
from slipway.registry.promotion import check_alias, promoted_digests

MATRIX = load_matrix(Path(__file__).parents[3] / "versions.yaml")
REPOSITORIES = sorted({repository_name(i, MATRIX.repository_prefix) for i in MATRIX.images})


@pytest.mark.parametrize("repository", REPOSITORIES)
def test_every_declared_alias_may_move_in_its_repository_and_no_build_or_journal_may(
    repository: str,
) -> None:
    images = [
        i for i in MATRIX.images if repository_name(i, MATRIX.repository_prefix) == repository
    ]
    aliases = [alias for image in images for alias in image.aliases]
    patterns = alias_patterns(aliases)
    assert len(patterns) <= 5
    for alias in aliases:
        check_alias(alias)
        assert any(fnmatchcase(alias, pattern) for pattern in patterns), alias
        for number in (1, 99999):
            journal = f"journal-{alias}-{number:05}"
            assert not any(fnmatchcase(journal, pattern) for pattern in patterns)
    for image in images:
        for build_id in ("0" * 64, "a" * 64, "0123456789abcdef" * 4, "dead8" * 20):
            tag = image_tag(image, build_id)
            assert not any(fnmatchcase(tag, pattern) for pattern in patterns)
            with pytest.raises(UsageError):
                check_alias(tag)


@pytest.mark.parametrize(
    "alias",
    ["", "-x", ".x", "a/b", "a:b", "a b", "x" * 101, "journal-x-00001", "slipway-staging-x",
     "sha256:" + "0" * 64, "x-0123456789ab", "x-0123456789ab-soci", "ztoc-x", "é"],
)  # fmt: skip
def test_what_cannot_be_an_alias_is_refused(alias: str) -> None:
    with pytest.raises(UsageError, match="cannot be an alias"):
        check_alias(alias)


@given(st.lists(st.sampled_from(["promote", "rollback"]), max_size=30), st.data())
def test_a_rollback_undoes_the_last_promotion_and_the_next_one_goes_further_back(
    actions: list[str], data: st.DataObject
) -> None:
    named: list[str] = []
    moves: list[AliasMove] = []
    for number, action in enumerate(actions, 1):
        before = named[-1] if named else None
        if action == "promote":
            after = data.draw(st.sampled_from("abcdef"))
            if after == before:
                continue
            named.append(after)
            moves.append(AliasMove(number, "promote", before, after, "me", "now"))
        elif len(named) > 1:
            named.pop()
            moves.append(AliasMove(number, "rollback", before, named[-1], "me", "now"))
        assert promoted_digests(moves) == named


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), max_size=30))
def test_a_promotion_that_was_ended_before_the_alias_moved_is_no_step_back(
    promotions: list[tuple[str, bool]],
) -> None:
    named: list[str] = []  # what the alias has named in truth
    moves: list[AliasMove] = []
    for number, (after, ended) in enumerate(promotions, 1):
        before = named[-1] if named else None
        if after != before:
            moves.append(AliasMove(number, "promote", before, after, "me", "now"))
            named += [] if ended else [after]
    # Of the last entry nobody knows; an alias that never was has no entry that tells of it.
    if named and moves[-1].after == named[-1]:
        assert promoted_digests(moves)[-len(named) :] == named
