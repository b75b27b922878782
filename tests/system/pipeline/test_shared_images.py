"""One build id, one content: what another builder has put under the tag is taken.

The other builder is played by a manifest of the same layers with another configuration: that is how
two builds of one Dockerfile differ, and it needs no second engine.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from slipway.core import CredentialsFor, Project, silent
from slipway.engine import Engine, find_image_id
from slipway.records import load_record
from slipway.registry import (
    ImagePacker,
    Manifest,
    RegistryClient,
    Target,
    credentials_for,
    digest_of,
    prepare_repository,
    push_image,
    start_local_registry,
    stop_local_registry,
)
from slipway.registry.distribution.blob_upload import upload_blob
from tests.support.clones import Clone
from tests.support.registry.ecr_front_door import REGION, Door

pytest_plugins = ["tests.support.registry.fixtures"]


@dataclass(frozen=True)
class Team:
    """A clone, a target, and what the clone's `inv` must be told to use it."""

    clone: Clone
    engine: Engine
    target: Target
    credentials: CredentialsFor
    flags: tuple[str, ...]

    @property
    def packer(self) -> ImagePacker:
        """Compresses what the clone's own pushes have not."""
        return ImagePacker(Project(self.clone.root, self.clone.state).packed, dict)

    def ship(self) -> dict[str, Any]:
        (made,) = self.clone.json("ship", "local", *self.flags)
        return made  # type: ignore[no-any-return]

    def build(self) -> str:
        """Build the image and give its reference in the engine."""
        self.clone.inv("build", "local")
        built = load_record(Project(self.clone.root, self.clone.state), "local").built
        assert built is not None
        return built.reference

    def prepare(self) -> tuple[str, str, Manifest]:
        """Repository and tag of the build to come, and another builder's image for it."""
        self.clone.change_launcher("a team")
        reference = self.build()
        repository, _, tag = reference.rpartition(":")
        prepare_repository(self.target, repository)
        push_image(
            self.engine, reference, self.target, repository, f"seed-{tag[-12:]}",
            credentials=self.credentials, on_event=silent, packer=self.packer,
        )  # fmt: skip
        with RegistryClient(self.target.host, self.credentials) as registry:
            mine = registry.manifest(repository, f"seed-{tag[-12:]}")
            config = registry.config(repository, mine)
            raw = json.dumps({**config, "created": "2020-01-01T00:00:00Z"}).encode()
            upload_blob(registry, repository, digest_of(raw), io.BytesIO(raw), len(raw))
            part = {**mine.json()["config"], "digest": digest_of(raw), "size": len(raw)}
            content = json.dumps({**mine.json(), "config": part}).encode()
        return repository, tag, Manifest(mine.media_type, digest_of(content), content)

    def other_pushes(self, repository: str, tag: str, image: Manifest) -> None:
        with RegistryClient(self.target.host, self.credentials) as registry:
            registry.put_manifest(repository, tag, image)

    def check(self, made: dict[str, Any], image: Manifest) -> None:
        """Everything that the run leaves speaks of the other builder's image."""
        config = image.json()["config"]["digest"]
        record = made["record"]
        assert record["built"]["image_id"] == config
        assert record["verified"]["image_id"] == config
        assert record["pushed"][self.target.name]["digest"] == image.digest
        sidecar = json.loads(Path(record["exported"]["path"] + ".json").read_text())
        assert sidecar["image_id"] == config
        assert find_image_id(self.engine, record["built"]["reference"]) == config


@pytest.fixture(scope="module")
def clone(shared_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    made = Clone.make(tmp_path_factory.mktemp("team") / "clone", shared_project.state)
    yield made
    stop_local_registry(shared_project)


@pytest.fixture
def local_team(clone: Clone, engine: Engine, shared_project: Project) -> Team:
    target = start_local_registry(shared_project)
    return Team(clone, engine, target, credentials_for(project=shared_project), ())


@pytest.fixture
def ecr_team(clone: Clone, engine: Engine, door: Door) -> Team:
    target = Target(f"ecr-{door.target.account}-{REGION}", "ecr", door.host, REGION)
    flags = ("--target", "ecr", "--region", REGION)
    return Team(clone, engine, target, credentials_for([door.target]), flags)


def test_what_is_in_the_registry_is_planned_taken_and_gone_on_from(
    local_team: Team, shared_project: Project
) -> None:
    team = local_team
    repository, tag, image = team.prepare()
    team.other_pushes(repository, tag, image)
    (shared_project.records / "local.json").unlink()
    (planned,) = team.clone.json("plan", "local", *team.flags)["include"]
    assert planned["action"] == "in the registry"
    assert image.digest in planned["because"][0]
    made = team.ship()
    team.check(made, image)
    fresh = {step["name"]: step["fresh"] for step in made["steps"]}
    assert fresh == {"build": True, "verify": True, "sqsh": True, "push": False, "bill": True}
    assert "taken from" in made["steps"][0]["detail"]
    again = team.ship()
    assert not any(step["fresh"] for step in again["steps"])


def test_who_comes_second_at_once_takes_the_image_of_the_first_and_says_so(
    ecr_team: Team,
) -> None:
    team = ecr_team
    repository, tag, image = team.prepare()
    with team.clone.start("ship", "local", *team.flags, "--json") as process:
        assert process.stderr is not None
        assert process.stdout is not None
        told = ""
        for line in process.stderr:
            told += line
            if line.startswith("verify local ..."):
                team.other_pushes(repository, tag, image)
                break
        told += process.stderr.read()
        (made,) = json.loads(process.stdout.read())
    assert process.returncode == 0, told
    assert "was built of the same inputs: taken from there" in told
    team.check(made, image)
    names = [step["name"] for step in made["steps"]]
    assert names == ["build", "verify", "sqsh", "push", "bill"]


def test_an_image_of_other_inputs_under_the_tag_is_not_taken(local_team: Team) -> None:
    team = local_team
    repository, _, other = team.prepare()
    team.clone.change_launcher("other inputs")
    tag = team.build().rpartition(":")[2]
    team.other_pushes(repository, tag, other)
    done = team.clone.inv("ship", "local", code=1)
    assert "says that its build id is" in done.stderr
