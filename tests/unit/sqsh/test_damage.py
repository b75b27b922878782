"""Whatever is done to the files of an image: it is read, or refused in words."""

from __future__ import annotations

import gzip
import hashlib
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slipway.core import SlipwayError, anonymous
from slipway.engine import find_layer_tars
from slipway.sqsh.stored_images import open_stored_image
from slipway.squashfs import (
    ArchiveHeaders,
    DirectorySource,
    LayerCache,
    SqshOptions,
    TarSource,
    compile_layers,
)
from tests.support.overlay_images import engine_at, overlay_layer, put_overlay_image
from tests.unit.sqsh.test_sources import ARCHIVES, Layout, flat

OPTIONS = SqshOptions("zstd", 1, 4096)
PLACES = st.floats(0, 1, exclude_max=True)  # of the whole
EDITS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), PLACES, st.binary(min_size=1, max_size=4)),
        st.tuples(st.just("insert"), PLACES, st.sampled_from([b"\0", bytes(512), b"7" * 512])),
        st.tuples(st.just("cut out"), PLACES, st.sampled_from([b"1", b"1" * 512, b"1" * 5000])),
        st.tuples(st.just("cut off"), PLACES, st.just(b"")),
    ),
    min_size=1,
    max_size=4,
)
MANY = settings(
    max_examples=80,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def edited(data: bytes, edits: list[tuple[str, float, bytes]]) -> bytes:
    for kind, place, piece in edits:
        at = int(place * len(data))
        rest = {"write": len(piece), "insert": 0, "cut out": len(piece)}.get(kind, len(data))
        data = data[:at] + (piece if kind in ("write", "insert") else b"") + data[at + rest :]
    return data


def read(uri: str, folder: Path) -> None:
    """As an export does; all that comes is a SlipwayError."""
    cache = folder / "cache"
    with (
        suppress(SlipwayError),
        open_stored_image(uri, anonymous, folder) as image,
        compile_layers(LayerCache(cache), image.layers, OPTIONS) as layers,
    ):
        assert len(layers) == len(image.layers)
    shutil.rmtree(cache, ignore_errors=True)


@pytest.mark.parametrize("form", ARCHIVES)
@given(edits=EDITS)
@MANY
def test_an_archive_is_read_or_refused(
    form: str, edits: list[tuple[str, float, bytes]], tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    if not whole.exists():
        whole.write_bytes(ARCHIVES[form](tmp_path / "layout"))
    path = tmp_path / "image.tar"
    path.write_bytes(edited(whole.read_bytes(), edits))
    read(f"docker-archive:{path}", tmp_path)


@given(edits=EDITS)
@MANY
def test_the_manifest_of_a_folder_is_read_or_refused(
    edits: list[tuple[str, float, bytes]], tmp_path: Path
) -> None:
    folder, whole = tmp_path / "flat", tmp_path / "whole"
    if not folder.exists():
        layout = Layout(tmp_path / "layout")
        flat(layout, layout.image(), folder)
        shutil.copy(folder / "manifest.json", whole)
    (folder / "manifest.json").write_bytes(edited(whole.read_bytes(), edits))
    read(f"dir:{folder}", tmp_path)


@given(edits=EDITS)
@MANY
def test_a_layer_in_place_is_read_whatever_happened_to_the_notes_beside_it(
    edits: list[tuple[str, float, bytes]], tmp_path: Path
) -> None:
    """Where the notes say nothing that can be read, the archive is."""
    tar, store = overlay_layer(b"one"), tmp_path / "store"
    if not store.exists():
        put_overlay_image(store, [tar])
    (records,) = store.rglob("tar-split.json.gz")
    whole = tmp_path / "whole"
    if not whole.exists():
        shutil.copy(records, whole)
    records.write_bytes(gzip.compress(edited(gzip.decompress(whole.read_bytes()), edits)))
    (image,) = (store / "image" / "overlay2" / "imagedb" / "content" / "sha256").iterdir()
    stored = find_layer_tars(engine_at(store), f"sha256:{image.name}")
    assert stored is not None
    (layer,) = stored.layers
    digest = f"sha256:{hashlib.sha256(tar).hexdigest()}"
    archive = TarSource(digest, lambda: iter([tar]))
    headers = ArchiveHeaders(layer.names, layer.headers)
    source = DirectorySource(digest, layer.files, archive, headers)
    cache = tmp_path / "cache"
    with compile_layers(LayerCache(cache), [source], OPTIONS) as (compiled,):
        assert set(compiled.names) == {b"", b"opt", b"a", b"\xff", b"empty"}
    shutil.rmtree(cache)
