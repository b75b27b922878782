"""Pushing with a real engine into a real registry, and into ECR as the front door plays it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest

from slipway.core import Credentials, Event, SlipwayError, anonymous, silent
from slipway.engine import Engine, EngineError, find_content_image, find_image_id, import_rootfs
from slipway.registry import (
    ImagePacker,
    Manifest,
    NoCredentialsError,
    NotAuthorisedError,
    RegistryClient,
    RegistryUnavailableError,
    RepositoryMissingError,
    Target,
    ThrottledError,
    WrongAccountError,
    credentials_for,
    find_ecr_target,
    prepare_repository,
    push_image,
)
from slipway.registry.errors import ImmutableTagError, ManifestError
from slipway.registry.manifests import SCHEMA2
from slipway.registry.push import PushResult
from tests.support.registry.ecr_front_door import ACCOUNT, REGION, Door
from tests.support.registry.images import GZIP_LAYER, QUICK, put_oci_image, small_image, unique

pytest_plugins = ["tests.support.registry.fixtures"]

LOCAL, HOLED = "slipway.test/push:one", "slipway.test/push:holed"


@pytest.fixture
def image(engine: Engine) -> Iterator[str]:
    yield small_image(engine, LOCAL, "one")
    engine.client.api.remove_image(LOCAL, force=True)


@pytest.fixture
def repository() -> str:
    return unique()


@pytest.fixture(params=["by dockerd", "by our client"])
def send(
    request: pytest.FixtureRequest,
    engine: Engine,
    image: str,
    door: Door,
    repository: str,
    tmp_path: Path,
) -> Callable[[], PushResult]:
    """Push the image into a repository that `prepare` has made."""
    prepare_repository(door.target, repository)
    credentials = credentials_for([door.target])
    packer = ImagePacker(tmp_path, dict) if request.param == "by our client" else None

    def push() -> PushResult:
        return push_image(
            engine, LOCAL, door.target, repository, "v1",
            credentials=credentials, on_event=silent, policy=QUICK, packer=packer,
        )  # fmt: skip

    return push


def config_digest(engine: Engine, image: str) -> str:
    """An engine with containerd's store calls an image by its manifest, others by this."""
    content = find_content_image(engine, image)
    return f"sha256:{hashlib.sha256(content.config).hexdigest()}" if content else image


def test_an_image_arrives_in_the_local_registry_as_schema_2_and_no_tag_stays_behind(
    engine: Engine, image: str, data_registry: str, plain: RegistryClient
) -> None:
    target = Target("local", "local", data_registry)
    result = push_image(
        engine, LOCAL, target, "local/image", "v1", credentials=anonymous, on_event=silent
    )
    manifest = plain.manifest("local/image", "v1")
    assert (result.uri, result.digest) == (f"{data_registry}/local/image:v1", manifest.digest)
    assert manifest.media_type == result.media_type == SCHEMA2
    assert manifest.json()["config"]["digest"] == config_digest(engine, image)
    assert result.size_bytes == sum(
        p["size"] for p in [manifest.json()["config"], *manifest.json()["layers"]]
    )
    assert find_image_id(engine, f"{data_registry}/local/image:v1") is None
    assert find_image_id(engine, LOCAL) == image


def test_ecr_gets_a_repository_and_the_api_knows_the_digest(
    engine: Engine, send: Callable[[], PushResult], door: Door, repository: str
) -> None:
    result = send()
    api = boto3.client("ecr", region_name=REGION)
    made = api.describe_repositories(repositoryNames=[repository])["repositories"][0]
    assert made["imageTagMutability"] == "IMMUTABLE"
    assert made["imageScanningConfiguration"]["scanOnPush"] is True
    details = api.describe_images(repositoryName=repository, imageIds=[{"imageTag": "v1"}])
    detail = details["imageDetails"][0]
    assert (detail["imageDigest"], detail["imageTags"]) == (result.digest, ["v1"])
    assert not result.already
    assert result.rewritten == engine.containerd_store  # which has no schema 2


def test_a_second_push_finds_the_image_and_sends_nothing(
    send: Callable[[], PushResult], door: Door
) -> None:
    first = send()
    door.faults.clear()
    second = send()
    assert second.already
    assert second.digest == first.digest
    assert {r.method for r in door.faults.seen} <= {"GET", "HEAD"}


def test_an_immutable_tag_is_not_taken_from_another_image(
    engine: Engine, send: Callable[[], PushResult], door: Door, repository: str
) -> None:
    first = send()
    small_image(engine, LOCAL, "two")
    with pytest.raises(ImmutableTagError, match="do not move"):
        send()
    with RegistryClient(door.host, credentials_for([door.target])) as registry:
        assert registry.head(repository, "v1") == first.digest


def test_an_answer_that_was_lost_after_the_tag_was_taken_is_not_a_failure(
    send: Callable[[], PushResult], door: Door
) -> None:
    fault = door.fault("PUT", "/manifests/v1", "lose")
    result = send()
    assert fault.met == 1
    assert result.digest.startswith("sha256:")


def test_a_repository_that_does_not_exist_is_told_as_that(
    engine: Engine, image: str, door: Door
) -> None:
    with pytest.raises(RepositoryMissingError, match="does not exist"):
        push_image(
            engine, LOCAL, door.target, "no/such", "v1",
            credentials=credentials_for([door.target]), on_event=silent, policy=QUICK,
        )  # fmt: skip


def test_credentials_that_ecr_does_not_accept_end_the_push(
    engine: Engine, image: str, door: Door, repository: str
) -> None:
    prepare_repository(door.target, repository)
    with pytest.raises(NoCredentialsError, match="does not accept the credentials of user AWS"):
        push_image(
            engine, LOCAL, door.target, repository, "v1",
            credentials=lambda host: Credentials("AWS", "wrong"), on_event=silent, policy=QUICK,
        )  # fmt: skip


def test_no_credentials_at_all_end_the_push_with_another_message(
    engine: Engine, image: str, door: Door, repository: str
) -> None:
    prepare_repository(door.target, repository)
    with pytest.raises(NoCredentialsError, match="asks for a login"):
        push_image(
            engine, LOCAL, door.target, repository, "v1",
            credentials=anonymous, on_event=silent, policy=QUICK,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("caller", "expected"), [(ACCOUNT, NotAuthorisedError), ("999988887777", WrongAccountError)]
)
def test_a_denial_names_the_account_where_that_is_the_reason_and_is_not_tried_again(
    send: Callable[[], PushResult],
    door: Door,
    caller: str,
    expected: type[SlipwayError],
    repository: str,
) -> None:
    text = (
        f"User: arn:aws:sts::{caller}:assumed-role/Builder/me is not authorized to perform: "
        f"ecr:InitiateLayerUpload on resource: arn:aws:ecr:{REGION}:{ACCOUNT}:repository/x"
    )
    fault = door.fault(
        "POST", "/blobs/uploads/", "status", count=99, status=403, code="DENIED", message=text
    )
    with pytest.raises(expected, match="ecr:InitiateLayerUpload"):
        send()
    assert fault.met <= 2  # our client sends both blobs at once


def test_throttling_without_end_ends_as_throttling(
    send: Callable[[], PushResult], door: Door
) -> None:
    door.fault(
        "PUT", "/manifests/", "status", count=99, status=429, code="TOOMANYREQUESTS",
        message="Rate exceeded",
    )  # fmt: skip
    with pytest.raises(ThrottledError, match="Rate exceeded"):
        send()


def test_a_registry_that_is_down_is_told_as_that(engine: Engine, image: str) -> None:
    target = Target("local", "local", "127.0.0.1:9")
    with pytest.raises(RegistryUnavailableError, match="refused"):
        push_image(
            engine, LOCAL, target, "local/image", "v1",
            credentials=anonymous, on_event=silent, policy=QUICK,
        )  # fmt: skip


# A layer comes by PATCH from engines with graph drivers, by PUT from those with containerd's store.
FAULTS: dict[str, dict[str, object]] = {
    "429 on the manifest": {"method": "PUT", "path": "/manifests/", "action": "status",
                            "status": 429, "code": "TOOMANYREQUESTS", "message": "Rate exceeded"},
    "429 on an upload": {"method": "PATCH|PUT", "path": "/uploads/", "action": "status",
                         "status": 429, "code": "TOOMANYREQUESTS", "message": "Rate exceeded"},
    "500 on the manifest": {"method": "PUT", "path": "/manifests/", "action": "status",
                            "status": 500, "code": "UNKNOWN"},
    "reset on the manifest": {"method": "PUT", "path": "/manifests/", "action": "reset"},
    "token expired at an upload": {"method": "POST", "path": "/uploads/", "action": "expire"},
    "token expired at the manifest": {"method": "PUT", "path": "/manifests/", "action": "expire"},
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_push_survives(
    name: str, send: Callable[[], PushResult], door: Door, repository: str
) -> None:
    fault = door.fault(**FAULTS[name])  # type: ignore[arg-type]
    result = send()
    assert fault.met == 1
    with RegistryClient(door.host, credentials_for([door.target])) as registry:
        assert registry.head(repository, "v1") == result.digest


def test_a_push_survives_a_cut_in_the_middle_of_a_layer(
    engine: Engine, send: Callable[[], PushResult], door: Door
) -> None:
    small_image(engine, LOCAL, "large", 3_000_000)
    fault = door.fault("PATCH", "/uploads/", "reset", after_bytes=1_000_000)
    send()
    assert fault.met == 1


def test_every_new_try_is_an_event_with_its_reason(
    engine: Engine, image: str, door: Door, repository: str
) -> None:
    prepare_repository(door.target, repository)
    # Twice, since engines with containerd's store try once more by themselves.
    refusal = {"status": 500, "code": "UNKNOWN", "message": "unknown error"}
    door.fault("PUT", "/manifests/", "status", count=2, **refusal)
    events: list[Event] = []
    push_image(
        engine, LOCAL, door.target, repository, "v1",
        credentials=credentials_for([door.target]), on_event=events.append, policy=QUICK,
    )  # fmt: skip
    assert {e.task for e in events} == {f"push {door.host}/{repository}:v1"}
    assert (events[0].kind, events[-1].kind) == ("start", "done")
    assert next(e.text for e in events if e.kind == "notice").startswith("try 2 of 6 in ")


def test_the_target_and_its_login_come_from_the_api_where_the_environment_moves_it(
    door: Door, repository: str
) -> None:
    target = find_ecr_target(REGION)
    assert dataclasses.replace(door.target, name=target.name) == target
    login = credentials_for()(target.host)
    assert login is not None
    with RegistryClient(target.host, credentials_for()) as registry:
        prepare_repository(target, repository)
        assert registry.head(repository, "v1") is None


class TornPacker(ImagePacker):
    """Finds that the engine's files are not those of their digests."""

    def pack(self, *args: object) -> None:
        raise EngineError("torn")


def test_an_image_that_the_engine_cannot_put_together_again_ends_the_push(
    engine: Engine, door: Door, repository: str, tmp_path: Path
) -> None:
    """One that was imported from a tar with a sparse file (moby/moby#37680)."""
    (tmp_path / "hole").touch()
    os.truncate(tmp_path / "hole", 1 << 20)
    made = ["tar", "--format=pax", "--sparse", "-C", str(tmp_path), "-c", "hole"]
    tar = io.BytesIO(subprocess.run(made, capture_output=True, check=True).stdout)
    import_rootfs(engine, tar, HOLED)
    prepare_repository(door.target, repository)
    push = functools.partial(
        push_image, engine, HOLED, door.target, repository, "v1",
        credentials=credentials_for([door.target]), on_event=silent, policy=QUICK,
        packer=ImagePacker(tmp_path / "packed", dict),
    )  # fmt: skip
    try:
        if engine.containerd_store:  # it keeps the layer itself
            assert push().size_bytes
            return
        with pytest.raises(SlipwayError, match="are not those of its digest") as refused:
            push()
    finally:
        engine.client.api.remove_image(HOLED, force=True)
    assert "sparse files" in (refused.value.cure or "")


def test_the_engine_pushes_by_itself_what_cannot_be_read_off_its_disk(
    engine: Engine, image: str, door: Door, repository: str, tmp_path: Path
) -> None:
    prepare_repository(door.target, repository)
    events: list[Event] = []
    result = push_image(
        engine, LOCAL, door.target, repository, "v1", packer=TornPacker(tmp_path, dict),
        credentials=credentials_for([door.target]), on_event=events.append, policy=QUICK,
    )  # fmt: skip
    assert result.media_type == SCHEMA2
    assert any("torn" in event.text for event in events)


@pytest.fixture
def containerd(engine: Engine) -> Engine:
    """The engine taken for one with the containerd store, whose pushes are OCI."""
    return dataclasses.replace(engine, containerd_store=True)


def staged(
    registry: RegistryClient, repository: str, image: str, layer_type: str = GZIP_LAYER
) -> Manifest:
    """What a push of the image from a containerd store leaves before the tag is set."""
    tag = f"slipway-staging-{image.removeprefix('sha256:')[:32]}"
    return put_oci_image(registry, repository, tag, seed="one", layer_type=layer_type)


def test_an_oci_image_gets_a_schema_2_manifest_under_an_immutable_tag(
    containerd: Engine, image: str, door: Door, repository: str
) -> None:
    prepare_repository(door.target, repository)
    credentials = credentials_for([door.target])
    with RegistryClient(door.host, credentials) as registry:
        oci = staged(registry, repository, image)

        def push() -> PushResult:
            return push_image(
                containerd, LOCAL, door.target, repository, "v1",
                credentials=credentials, on_event=silent, policy=QUICK,
            )  # fmt: skip

        result, again = push(), push()
        final = registry.manifest(repository, "v1")
    assert (result.rewritten, result.already) == (True, False)
    assert (again.rewritten, again.already) == (True, True)
    assert final.media_type == SCHEMA2
    assert result.digest == again.digest == final.digest != oci.digest
    assert final.json()["config"]["digest"] == oci.json()["config"]["digest"]
    assert [p["digest"] for p in final.json()["layers"]] == [
        p["digest"] for p in oci.json()["layers"]
    ]
    listed = boto3.client("ecr", region_name=REGION).describe_images(
        repositoryName=repository, imageIds=[{"imageTag": "v1"}]
    )
    assert listed["imageDetails"][0]["imageDigest"] == final.digest


def test_an_image_with_zstd_layers_is_refused_before_its_tag_exists(
    containerd: Engine, image: str, door: Door, repository: str
) -> None:
    prepare_repository(door.target, repository)
    credentials = credentials_for([door.target])
    with RegistryClient(door.host, credentials) as registry:
        staged(
            registry, repository, image, layer_type="application/vnd.oci.image.layer.v1.tar+zstd"
        )
        with pytest.raises(ManifestError, match="gzip layers only"):
            push_image(
                containerd, LOCAL, door.target, repository, "v1",
                credentials=credentials, on_event=silent, policy=QUICK,
            )  # fmt: skip
        assert registry.head(repository, "v1") is None


def test_a_staged_image_that_is_another_one_is_found_out(
    containerd: Engine, engine: Engine, door: Door, repository: str
) -> None:
    prepare_repository(door.target, repository)
    other = small_image(engine, LOCAL, "another")
    credentials = credentials_for([door.target])
    with RegistryClient(door.host, credentials) as registry:
        staged(registry, repository, other)
        with pytest.raises(ManifestError, match="not sha256:"):
            push_image(
                containerd, LOCAL, door.target, repository, "v1",
                credentials=credentials, on_event=silent, policy=QUICK,
            )  # fmt: skip
        assert registry.head(repository, "v1") is None


def test_only_the_local_registry_lets_a_tag_take_another_image(
    engine: Engine, image: str, data_registry: str, plain: RegistryClient, repository: str
) -> None:
    target = Target("local", "local", data_registry)

    def push(movable: bool | None = None) -> PushResult:
        return push_image(
            engine, LOCAL, target, repository, "v1",
            credentials=anonymous, on_event=silent, movable=movable,
        )  # fmt: skip

    push()
    small_image(engine, LOCAL, "two")
    with pytest.raises(ImmutableTagError):
        push(movable=False)
    second = push()
    assert plain.head(repository, "v1") == second.digest
