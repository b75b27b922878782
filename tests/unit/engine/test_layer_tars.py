"""Layers off an engine's disk, as overlay2 keeps them; the system tests have a real engine's."""

from __future__ import annotations

import gzip
import io
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from slipway.engine import EngineError, find_layer_tars
from slipway.registry import digest_of
from tests.support.overlay_images import engine_at, overlay_layer, put_overlay_image


def test_layers_are_the_tars_of_their_digests(tmp_path: Path) -> None:
    tars = [overlay_layer(b"one"), overlay_layer(b"two"), overlay_layer(b"3")]
    image = put_overlay_image(tmp_path, tars)
    stored = find_layer_tars(engine_at(tmp_path), image)
    assert stored
    assert digest_of(stored.config) == image
    assert [b"".join(one.pieces()) for one in stored.layers] == tars
    assert [one.size for one in stored.layers] == [len(tar) for tar in tars]


def test_names_and_headers_are_there_without_the_files(tmp_path: Path) -> None:
    tar = overlay_layer(b"one")
    image = put_overlay_image(tmp_path, [tar])
    stored = find_layer_tars(engine_at(tmp_path), image)
    assert stored
    (layer,) = stored.layers
    shutil.rmtree(layer.files)
    assert list(layer.names()) == [b"opt/a", b"opt/\xff", b"opt/empty"]
    filled = b"".join(
        piece if isinstance(piece, bytes) else b"one" * (piece // 3) for piece in layer.headers()
    )
    assert filled == tar
    layer.records.write_bytes(gzip.compress(b'{"type":1}\n'))
    for read in (layer.names, layer.headers):
        with pytest.raises(EngineError, match="cannot be read"):
            list(read())
        layer.records.write_bytes(gzip.compress(b'{"type":2,"payload":7}\n')[:-3])


def test_a_layer_is_described_by_the_files_that_are_asked_for(tmp_path: Path) -> None:
    tar = overlay_layer(b"one")
    image = put_overlay_image(tmp_path, [tar])
    stored = find_layer_tars(engine_at(tmp_path), image)
    assert stored
    (layer,) = stored.layers
    assert b"".join(layer.described(lambda name: True)) == tar
    hollow = b"".join(layer.described(lambda name: name == b"opt/a"))
    assert len(hollow) == len(tar)
    with (
        tarfile.open(fileobj=io.BytesIO(hollow)) as read,
        tarfile.open(fileobj=io.BytesIO(tar)) as whole,
    ):
        for member, wanted in zip(read, whole, strict=True):
            assert member.get_info() == wanted.get_info()
            if member.isreg():
                content = read.extractfile(member).read()  # type: ignore[union-attr]
                kept = whole.extractfile(wanted).read()  # type: ignore[union-attr]
                assert content == (kept if member.name == "opt/a" else bytes(len(kept)))
    (layer.files / "opt" / "a").write_bytes(b"x")
    assert len(b"".join(layer.described(lambda name: False))) == len(tar)  # nobody reads it
    with pytest.raises(EngineError, match="of another size"):
        list(layer.described(lambda name: True))


def test_files_that_changed_are_noticed(tmp_path: Path) -> None:
    image = put_overlay_image(tmp_path, [overlay_layer(b"one")])
    (tmp_path / "overlay2" / "cache0" / "diff" / "opt" / "a").write_bytes(b"x" * 2100)
    stored = find_layer_tars(engine_at(tmp_path), image)
    assert stored
    with pytest.raises(EngineError, match="not those of its digest"):
        list(stored.layers[0].pieces())
    (tmp_path / "overlay2" / "cache0" / "diff" / "opt" / "a").unlink()
    with pytest.raises(EngineError, match="cannot be read"):
        list(stored.layers[0].pieces())


@pytest.mark.parametrize(
    "more",
    [{"containerd_store": True}, {"url": "tcp://there:2376"}, {"data_root": "/nowhere"}],
    ids=["containerd's store", "another machine", "a disk that is not here"],
)
def test_an_engine_whose_disk_cannot_be_read_gives_none(
    tmp_path: Path, more: dict[str, Any]
) -> None:
    image = put_overlay_image(tmp_path, [overlay_layer(b"one")])
    assert find_layer_tars(engine_at(tmp_path, **more), image) is None
    assert find_layer_tars(engine_at(tmp_path), digest_of(b"another")) is None
