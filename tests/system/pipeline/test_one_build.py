"""One build id, one digest: builders that have an engine each, one that has none, one registry."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from slipway.append import NeedsEngineError
from slipway.core import Event, Project, UsageError, anonymous
from slipway.engine import (
    Engine,
    connect,
    find_image_id,
    import_rootfs,
    run_once,
    start_daemon,
    stop_daemon,
)
from slipway.inventory import open_layered_image
from slipway.pipeline import Checkout
from slipway.pipeline.appended import BaseSources, EngineBase, load_appended
from slipway.pipeline.base_images import base_reference
from slipway.pipeline.targets import shared_base_place, take_shared_base
from slipway.pipeline.targets.shared_bases import RECIPE_LABEL
from slipway.registry import RegistryClient
from tests.support.one_build import BASE, TAG, Builder, OneBuild, make_build, put_base
from tests.support.registry.images import unique
from tests.support.tiny import rootfs_tar

pytest_plugins = ["tests.support.registry.fixtures"]


@pytest.fixture(scope="module")
def second_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine of another machine: nothing that the first one has is in it."""
    folder = tmp_path_factory.mktemp("second")
    project = Project(folder, folder / "state")
    start_daemon(project)
    connected = connect(project, "embedded")
    yield connected
    connected.close()
    stop_daemon(project)


@pytest.fixture
def build(plain: RegistryClient, tmp_path: Path) -> OneBuild:
    return make_build(plain.host, put_base(plain), tmp_path / "wheels")


def test_two_engines_and_none_make_the_same_image_and_the_same_sqsh(
    engine: Engine, second_engine: Engine, plain: RegistryClient, build: OneBuild, tmp_path: Path
) -> None:
    path = unique()
    builders = [
        Builder(tmp_path / "one", plain.host, engine),
        Builder(tmp_path / "two", plain.host, second_engine),
        Builder(tmp_path / "none", plain.host),
    ]
    # Each into a repository of its own: none is helped by what another has put.
    results = [builder.ship(build, f"{path}-{number}") for number, builder in enumerate(builders)]
    assert [result.already for result in results] == [False, False, False]
    assert len({(result.image_id, result.digest, result.sqsh) for result in results}) == 1
    first, *_ = results
    for one in (engine, second_engine):
        assert find_image_id(one, build.request.tags[0]) == first.image_id
        launch = ["/usr/local/bin/launch", "/bin/sh", "-c", "echo it runs"]
        done = run_once(one, first.image_id, launch, timeout_s=60)
        assert done.stdout == b"it runs\n", done.stderr
    # In a row, one registry: who comes second sends nothing.
    again = builders[1].ship(build, f"{path}-0")
    assert (again.already, again.digest, again.sqsh) == (True, first.digest, first.sqsh)


def test_two_builders_at_once_are_of_one_mind(
    engine: Engine, second_engine: Engine, plain: RegistryClient, build: OneBuild, tmp_path: Path
) -> None:
    path = unique()
    builders = [
        Builder(tmp_path / str(number), plain.host, one)
        for number, one in enumerate((engine, second_engine))
    ]
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda builder: builder.ship(build, path), builders)
    assert (first.digest, first.sqsh) == (second.digest, second.sqsh)
    assert plain.head(path, TAG) == first.digest


def test_a_step_that_runs_in_the_base_is_run_once_for_all(
    engine: Engine, second_engine: Engine, plain: RegistryClient, build: OneBuild, tmp_path: Path
) -> None:
    build, path = build.with_steps(), unique()
    none = Builder(tmp_path / "none", plain.host)
    with pytest.raises(NeedsEngineError, match="runs a command in the base"):
        none.ship(build, path)
    # What the steps leave is another thing each time.
    first = Builder(tmp_path / "one", plain.host, engine).ship(build, path)
    results = [
        builder.ship(build, f"{path}-{number}")
        for number, builder in enumerate(
            [Builder(tmp_path / "two", plain.host, second_engine), none]
        )
    ]
    assert {(r.image_id, r.digest, r.sqsh) for r in results} == {
        (first.image_id, first.digest, first.sqsh)
    }
    shown = run_once(engine, first.image_id, ["/bin/cat", "/opt/x/id", "/etc/id"], timeout_s=60)
    assert len(shown.stdout.split()) == 2


MOMENTS: dict[str, Callable[[Event], bool]] = {
    "between two layers": lambda event: event.step.startswith("pkg: pkg"),
    "before the engine has it": lambda event: event.step == "load",
    "in the push": lambda event: event.task.startswith("push") and event.kind == "progress",
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_builder_that_was_killed_gets_to_the_same_digest(
    engine: Engine, plain: RegistryClient, build: OneBuild, tmp_path: Path, moment: str
) -> None:
    builder, path = Builder(tmp_path / "state", plain.host, engine), unique()
    child = os.fork()
    if child == 0:

        def die(event: Event) -> None:
            if MOMENTS[moment](event):
                os.kill(os.getpid(), signal.SIGKILL)

        own = connect(builder.project, engine.url)  # a connection is not shared
        Builder(builder.state, plain.host, own).ship(build, path, die)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert plain.head(path, TAG) is None
    elsewhere = Builder(tmp_path / "elsewhere", plain.host)
    assert builder.ship(build, path).digest == elsewhere.ship(build, unique()).digest


def test_a_base_that_slipway_makes_is_made_once_for_all_who_have_a_target(
    engine: Engine, second_engine: Engine, plain: RegistryClient, build: OneBuild, tmp_path: Path
) -> None:
    recipe = f"sha256:{os.urandom(32).hex()}"
    build = build.on_own_base(recipe)
    one = Builder(tmp_path / "one", plain.host, engine)
    two = Builder(tmp_path / "two", plain.host, second_engine)
    context = two.context(build)
    base = build.image.base
    path, tag = shared_base_place(context.matrix, base, recipe)
    local = base_reference(context, base)
    theirs = find_image_id(engine, local)  # of other tests
    take_shared_base(context, base, recipe)
    assert find_image_id(second_engine, local) is None  # nobody has made it
    labels = [f"LABEL {RECIPE_LABEL}={recipe}"]
    made = import_rootfs(engine, io.BytesIO(rootfs_tar(whole=True)), local, labels)
    try:
        first = one.ship(build, path)
    finally:
        engine.client.api.remove_image(local, force=True)
        if theirs:
            repository, _, name = local.rpartition(":")
            engine.client.api.tag(theirs, repository, name, force=True)
    assert plain.head(path, tag) is not None
    second = two.ship(build, path)
    assert find_image_id(second_engine, local) == made
    assert (second.already, second.digest, second.sqsh) == (True, first.digest, first.sqsh)
    assert list(two.project.packed.glob("*")) == []  # nothing of the base is compressed again
    # Nor does a builder without an engine need to be told where it is.
    checkout = Checkout(one.project, context.matrix, context.locks)
    with BaseSources(checkout, None, "", anonymous, context.target) as sources:
        assert sources.base(base, recipe).where == f"{plain.host}/{path}@{plain.head(path, tag)}"
    with BaseSources(checkout, None, "", anonymous) as sources, pytest.raises(UsageError) as error:
        sources.base(base, recipe)
    assert "no target is asked" in str(error.value)
    # A base of another recipe is not taken for it.
    other = f"{recipe[:19]}{'0' * 52}"
    assert shared_base_place(context.matrix, base, other) == (path, tag)
    second_engine.client.api.remove_image(local, force=True)
    take_shared_base(context, base, other)
    assert find_image_id(second_engine, local) is None


def test_a_link_of_the_base_is_not_hidden_by_a_layer(
    engine: Engine, build: OneBuild, plain: RegistryClient, tmp_path: Path
) -> None:
    builder = Builder(tmp_path, plain.host, engine)
    build = build.on_own_base("sha256:" + "1" * 64)
    reference = f"slipway.test/linked:{unique().rpartition('/')[2]}"
    tar = rootfs_tar(links={"usr/local/bin": "/bin"})
    import_rootfs(engine, io.BytesIO(tar), reference)
    base = EngineBase(build.image.base, reference, reference, {})
    with pytest.raises(NeedsEngineError, match="/usr/local/bin is a link"):
        load_appended(builder.context(build), build.image, base, build.request, {})


def test_the_documents_of_a_base_are_asked_for_once(
    plain: RegistryClient, build: OneBuild, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    with open_layered_image(f"{plain.host}/{BASE}@{build.digest}", anonymous, kept=kept) as image:
        pass
    elsewhere = f"127.0.0.1:9/{BASE}@{build.digest}"  # nothing listens there
    with open_layered_image(elsewhere, anonymous, kept=kept) as again:
        assert (again.manifest, again.config) == (image.manifest, image.config)
    (note,) = kept.iterdir()
    note.write_text(note.read_text()[:-20])
    with open_layered_image(f"{plain.host}/{BASE}@{build.digest}", anonymous, kept=kept) as anew:
        assert anew.manifest == image.manifest
