"""A .sqsh beside its image in a real registry, and nodes that fetch it from there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from slipway.core import Project, SlipwayError, UsageError, anonymous, silent
from slipway.registry import (
    Author,
    RegistryClient,
    Repository,
    credentials_for,
    prepare_repository,
    promote_alias,
    rollback_alias,
)
from slipway.sqsh import fetch_program, push_sqsh, run_fetch_program
from tests.support.launcher.sqsh_files import write_sqsh
from tests.support.registry.ecr_front_door import Door
from tests.support.registry.images import QUICK, put_oci_image, unique

pytest_plugins = ["tests.support.registry.fixtures"]

LAUNCHER = Project.at(Path(__file__).parents[3]).launcher
SIZE = 300_000


@pytest.fixture
def repository(plain: RegistryClient) -> Repository:
    """With an image under the tag `t`."""
    path = unique()
    put_oci_image(plain, path, "t")
    return Repository(plain, path)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one file that nodes get."""
    path = tmp_path_factory.mktemp("program") / "fetch.pyz"
    path.write_bytes(fetch_program(LAUNCHER))
    return path


def fetch(program: Path, *words: str) -> dict[str, Any]:
    """As a node does: nothing but the file and the standard library."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(program), *words, "--json"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_of_a_next_build_only_what_changed_is_sent_and_fetched(
    repository: Repository, program: Path, tmp_path: Path
) -> None:
    pieces = [os.urandom(SIZE) for _ in range(10)]
    changed = [*pieces[:4], os.urandom(SIZE), *pieces[5:], b"tables"]
    uri = f"registry://{repository.name('t')}"
    for build, content, delta in (("a", pieces, 10 * SIZE), ("b", changed, SIZE + 6)):
        path = tmp_path / "export" / f"{build}.sqsh"
        write_sqsh(path, content)
        pushed = push_sqsh(path, repository, "t", silent)
        assert delta < pushed.sent < delta + 10_000  # and the sidecar
        result = fetch(program, uri, "--to", str(tmp_path / "node"))
        assert result["from_origin"] == delta
        assert Path(result["path"]).name == f"{build}.sqsh"
        assert Path(result["path"]).read_bytes() == b"".join(content)
        again = push_sqsh(path, repository, "t", silent)
        assert (again.already, again.sent, again.digest) == (True, 0, pushed.digest)
    # The one before is still there by its own digest.
    first = repository.client.referrers(
        repository.path, repository.client.manifest(repository.path, "t").digest
    )
    assert len(first) == 2
    old = f"registry://{repository.client.host}/{repository.path}@{first[0]}"
    result = fetch(program, old, "--to", str(tmp_path / "other"))
    assert Path(result["path"]).read_bytes() == b"".join(pieces)


def test_an_alias_takes_along_the_file_of_the_image_that_it_names(
    repository: Repository, program: Path, tmp_path: Path
) -> None:
    alias, me = "2.13-hyperpod", Author("me", "now")
    contents = {}
    for build in ("b1", "b2"):
        put_oci_image(repository.client, repository.path, build, seed=build)
        contents[build] = write_sqsh(tmp_path / f"{build}.sqsh", [os.urandom(SIZE)])
        push_sqsh(tmp_path / f"{build}.sqsh", repository, build, silent)

    def fetched(place: str) -> bytes:
        uri = f"registry://{repository.name(alias)}"
        return Path(fetch(program, uri, "--to", str(tmp_path / place))["path"]).read_bytes()

    for build in contents:
        promote_alias(repository, build, alias, me)
        assert fetched(build) == contents[build]
    rollback_alias(repository, alias, me)
    assert fetched("back") == contents["b1"]


def test_a_damaged_file_is_not_pushed(repository: Repository, tmp_path: Path) -> None:
    path = tmp_path / "x.sqsh"
    write_sqsh(path, [b"a" * 1000, b"b" * 1000])
    path.write_bytes(b"a" * 1500 + b"b" * 500)
    with pytest.raises(SlipwayError, match="digest"):
        push_sqsh(path, repository, "t", silent)
    digest = repository.client.manifest(repository.path, "t").digest
    assert repository.client.referrers(repository.path, digest) == []


def test_what_cannot_be_pushed_is_told(repository: Repository, tmp_path: Path) -> None:
    path = tmp_path / "x.sqsh"
    path.write_bytes(b"a")
    with pytest.raises(UsageError, match="no sidecar"):
        push_sqsh(path, repository, "t", silent)
    write_sqsh(path, [b"a"])
    with pytest.raises(SlipwayError, match="nothing-here"):
        push_sqsh(path, repository, "nothing-here", silent)


def test_logins_of_slipway_are_those_of_the_fetch(door: Door, tmp_path: Path) -> None:
    path = unique()
    prepare_repository(door.target, path)
    credentials = credentials_for([door.target])
    content = write_sqsh(tmp_path / "x.sqsh", [os.urandom(SIZE)])
    uri = f"registry://{door.host}/{path}:t"
    with RegistryClient(door.host, credentials, policy=QUICK) as client:
        put_oci_image(client, path, "t")
        push_sqsh(tmp_path / "x.sqsh", Repository(client, path), "t", silent)
    words = [uri, "--to", str(tmp_path / "node"), "--alone"]
    with pytest.raises(SlipwayError, match="refuses this login"):
        run_fetch_program(LAUNCHER, words, anonymous)
    told = run_fetch_program(LAUNCHER, words, credentials)
    assert told.splitlines()[0] == str(tmp_path / "node" / "x.sqsh")
    assert (tmp_path / "node" / "x.sqsh").read_bytes() == content


def test_tokens_are_asked_for_where_a_registry_wants_them(
    public: Door, repository: Repository, program: Path, tmp_path: Path
) -> None:
    content = write_sqsh(tmp_path / "x.sqsh", [os.urandom(SIZE), b"tables"])
    push_sqsh(tmp_path / "x.sqsh", repository, "t", silent)
    uri = f"registry://{public.host}/{repository.path}:t"
    result = fetch(program, uri, "--to", str(tmp_path / "node"))
    assert Path(result["path"]).read_bytes() == content


def test_usage_errors_of_the_program_are_ours() -> None:
    with pytest.raises(UsageError, match="nothing to fetch"):
        run_fetch_program(LAUNCHER, ["x", "--to", "y"], anonymous)
