"""Aliases in a real registry and in ECR: by manifest only, journalled, one promoter at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import boto3
import pytest

from slipway.core import anonymous
from slipway.registry import (
    AliasChange,
    Author,
    Manifest,
    RegistryClient,
    RegistryError,
    Repository,
    Target,
    alias_journal,
    alias_patterns,
    check_alias_can_move,
    credentials_for,
    plan_promotion,
    prepare_repository,
    promote_alias,
    remove_images,
    rollback_alias,
)
from slipway.registry.errors import ImageMissingError, ImmutableTagError
from tests.support.registry.ecr_front_door import REGION, Door
from tests.support.registry.images import QUICK, put_oci_image, unique

pytest_plugins = ["tests.support.registry.fixtures"]

ME = Author("me@here", "2026-01-01T00:00:00+00:00")
ALIAS = "2.13-sagemaker"


@pytest.fixture
def in_ecr(door: Door) -> Iterator[Repository]:
    path = unique()
    prepare_repository(door.target, path, alias_patterns=alias_patterns([ALIAS]))
    with RegistryClient(door.host, credentials_for([door.target]), policy=QUICK) as client:
        yield Repository(client, path)


@pytest.fixture
def in_local(data_registry: str) -> Iterator[Repository]:
    with RegistryClient(data_registry, anonymous, policy=QUICK) as client:
        yield Repository(client, unique())


@pytest.fixture(params=["in_ecr", "in_local"])
def repository(request: pytest.FixtureRequest) -> Repository:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


def put_builds(repository: Repository, count: int) -> list[str]:
    """Digests of so many builds, under the tags b1, b2, ..."""
    return [
        put_oci_image(
            repository.client, repository.path, f"b{n}", seed=f"{repository.path}{n}"
        ).digest
        for n in range(1, count + 1)
    ]


def test_an_alias_moves_and_goes_back_step_by_step_and_all_of_it_is_journalled(
    repository: Repository,
) -> None:
    one, two, three = put_builds(repository, 3)
    head = repository.client.head
    planned = plan_promotion(repository, "b1", ALIAS)
    assert (planned.before, planned.after, planned.moved) == (None, one, True)
    assert head(repository.path, ALIAS) is None
    for tag, digest in (("b1", one), ("b2", two), ("b3", three)):
        assert promote_alias(repository, tag, ALIAS, ME).moved
        assert head(repository.path, ALIAS) == digest
    assert not promote_alias(repository, three, ALIAS, ME).moved
    assert rollback_alias(repository, ALIAS, ME).after == two
    assert rollback_alias(repository, ALIAS, ME).after == one
    assert head(repository.path, ALIAS) == one
    with pytest.raises(RegistryError, match="nothing before"):
        rollback_alias(repository, ALIAS, ME)
    journal = alias_journal(repository, ALIAS)
    assert [(m.number, m.action, m.before, m.after) for m in journal] == [
        (1, "promote", None, one),
        (2, "promote", one, two),
        (3, "promote", two, three),
        (4, "rollback", three, two),
        (5, "rollback", two, one),
    ]
    assert {(m.who, m.when) for m in journal} == {(ME.who, ME.when)}


def test_a_promotion_sends_a_manifest_and_a_line_of_journal(in_ecr: Repository, door: Door) -> None:
    put_builds(in_ecr, 1)
    door.faults.clear()
    promote_alias(in_ecr, "b1", ALIAS, ME)
    assert door.faults.uploaded() < 1000


def test_what_is_not_in_the_repository_is_not_promoted(repository: Repository) -> None:
    put_builds(repository, 1)
    with pytest.raises(ImageMissingError):
        promote_alias(repository, "b2", ALIAS, ME)
    assert alias_journal(repository, ALIAS) == []
    assert repository.client.head(repository.path, ALIAS) is None


@pytest.mark.parametrize("path", [f"/manifests/journal-{ALIAS}-00001", f"/manifests/{ALIAS}$"])
def test_a_lost_answer_is_not_another_promoter(in_ecr: Repository, door: Door, path: str) -> None:
    (one,) = put_builds(in_ecr, 1)
    rule = door.fault("PUT", path, "lose")
    assert promote_alias(in_ecr, "b1", ALIAS, ME).after == one
    assert rule.met == 1
    assert len(alias_journal(in_ecr, ALIAS)) == 1


def test_a_promotion_that_was_killed_before_the_alias_moved_is_undone_or_done_again(
    in_ecr: Repository, door: Door
) -> None:
    one, two = put_builds(in_ecr, 2)
    promote_alias(in_ecr, "b1", ALIAS, ME)
    door.fault("PUT", f"/manifests/{ALIAS}$", "status", status=500, count=99)
    with pytest.raises(RegistryError):
        promote_alias(in_ecr, "b2", ALIAS, ME)
    door.faults.clear()
    assert in_ecr.client.head(in_ecr.path, ALIAS) == one
    assert rollback_alias(in_ecr, ALIAS, ME).after == one
    assert promote_alias(in_ecr, "b2", ALIAS, ME).after == two
    assert in_ecr.client.head(in_ecr.path, ALIAS) == two


def test_a_promotion_that_was_killed_and_done_again_goes_back_to_what_was_before(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, three = put_builds(repository, 3)
    promote_alias(repository, "b1", ALIAS, ME)
    put = repository.client.put_manifest

    def killed(path: str, reference: str, manifest: Manifest) -> str:
        if reference == ALIAS:
            raise KeyboardInterrupt
        return put(path, reference, manifest)

    for tag in ("b2", "b3"):  # journalled, and neither of them named
        with monkeypatch.context() as patch:
            patch.setattr(repository.client, "put_manifest", killed)
            with pytest.raises(KeyboardInterrupt):
                promote_alias(repository, tag, ALIAS, ME)
    assert promote_alias(repository, "b3", ALIAS, ME).before == one
    assert rollback_alias(repository, ALIAS, ME) == AliasChange(ALIAS, three, one, moved=True)
    assert repository.client.head(repository.path, ALIAS) == one
    assert two not in (move.before for move in alias_journal(repository, ALIAS))


def test_of_many_promoters_at_once_one_wins_a_number_and_the_others_are_told(
    in_ecr: Repository,
) -> None:
    digests = put_builds(in_ecr, 6)
    failures: list[Exception] = []
    start = threading.Barrier(len(digests))

    def promote(digest: str) -> None:
        start.wait()
        try:
            promote_alias(in_ecr, digest, ALIAS, Author(digest, "now"))
        except ImmutableTagError as error:
            failures.append(error)

    threads = [threading.Thread(target=promote, args=[digest]) for digest in digests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal = alias_journal(in_ecr, ALIAS)
    assert [move.number for move in journal] == list(range(1, len(journal) + 1))
    assert len(journal) >= len(digests) - len(failures) >= 1
    assert all("another promoter was faster" in str(failure) for failure in failures)
    assert in_ecr.client.head(in_ecr.path, ALIAS) in {move.after for move in journal}


def test_a_repository_that_forbids_moving_is_said_before_anything_is_put(door: Door) -> None:
    path = unique()
    prepare_repository(door.target, path)
    door.faults.clear()
    with pytest.raises(ImmutableTagError, match="an alias moves"):
        check_alias_can_move(door.target, path, ALIAS)
    assert door.faults.seen == []


def test_repositories_of_ours_let_aliases_move_and_hold_builds(door: Door) -> None:
    path = unique()
    prepare_repository(door.target, path, alias_patterns=alias_patterns([ALIAS, "2.13-x-ds0.1.8"]))
    made = boto3.client("ecr", region_name=REGION).describe_repositories(repositoryNames=[path])
    assert made["repositories"][0]["imageTagMutability"] == "IMMUTABLE_WITH_EXCLUSION"
    check_alias_can_move(door.target, path, ALIAS)
    check_alias_can_move(door.target, path, "2.14-x-ds0.2.8")
    with pytest.raises(ImmutableTagError):
        check_alias_can_move(door.target, path, "2.13-sagemaker-ds0.1.8-0123456789ab")


def test_what_is_removed_is_gone_with_its_tags_and_removing_it_again_is_no_failure(
    in_ecr: Repository, in_local: Repository, door: Door
) -> None:
    ecr = boto3.client("ecr", region_name=REGION)
    first, second = put_builds(in_ecr, 2)
    for _ in range(2):
        remove_images(door.target, in_ecr, [first])
        left = ecr.describe_images(repositoryName=in_ecr.path)["imageDetails"]
        assert [image["imageDigest"] for image in left] == [second]
    local = Target("local", "local", in_local.client.host)
    first, second = put_builds(in_local, 2)
    for _ in range(2):
        remove_images(local, in_local, [first])
        assert in_local.client.head(in_local.path, "b1") is None
        assert in_local.client.head(in_local.path, "b2") == second


def test_all_pages_of_the_tags_are_read(in_local: Repository) -> None:
    client, path = in_local.client, in_local.path
    assert client.tags(path) == []
    image = put_oci_image(client, path, "v0")
    names = sorted(f"v{n}" for n in range(30))
    for name in names:
        client.put_manifest(path, name, image)
    assert client.tags(path) == names
