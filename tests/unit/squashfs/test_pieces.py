"""Digests of stretches of a file: cut, kept by a link, and checked."""

from __future__ import annotations

import hashlib
import os
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.core import Piece, PieceHasher, differing_pieces, digests, hash_chunks, pieces_digest
from slipway.squashfs import LayerCache, SqshOptions, compile_layers, link_image
from slipway.squashfs.format.structures import Superblock
from slipway.squashfs.link import data_copier
from tests.unit.squashfs.test_layers import archive, member, source

SIZE = 10_000


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "PIECE_BYTES", SIZE)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@given(st.lists(st.integers(0, 3 * SIZE), max_size=8))
def test_a_stream_is_cut_at_the_same_places_however_it_comes(sizes: list[int]) -> None:
    data = bytes(number % 251 for number in range(sum(sizes)))
    hasher = PieceHasher()
    cuts = [0]
    for size in sizes:
        cuts.append(cuts[-1] + size)
    for start, end in pairwise(cuts):
        hasher.update(data[start:end])
    parts = [data[at : at + SIZE] for at in range(0, len(data), SIZE)]
    assert hasher.finish() == tuple(Piece(len(part), sha256(part)) for part in parts)


@pytest.mark.parametrize("size", [0, 1, SIZE, SIZE + 1, 5 * SIZE])
def test_a_file_has_the_pieces_of_its_stream(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "file").write_bytes(data)
    assert differing_pieces(tmp_path / "file", hash_chunks(data)) is None


@pytest.mark.parametrize(
    ("at", "wanted"), [(0, (0, SIZE)), (2 * SIZE - 1, (SIZE, 2 * SIZE)), (-1, (2 * SIZE, 25_000))]
)
def test_the_first_piece_that_differs_is_named(
    tmp_path: Path, at: int, wanted: tuple[int, int]
) -> None:
    data = bytearray(os.urandom(25_000))
    path = tmp_path / "file"
    path.write_bytes(data)
    whole = hash_chunks(path.read_bytes())
    data[at] ^= 1
    data[-1] ^= 4
    path.write_bytes(data)
    assert differing_pieces(path, whole) == wanted


def test_a_file_that_goes_on_after_its_pieces_differs(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 5)
    whole = hash_chunks(path.read_bytes())
    path.write_bytes(b"x" * 6)
    assert differing_pieces(path, whole) == (5, 5)


def test_the_digest_is_what_coreutils_print_for_the_lines() -> None:
    """printf '3 aa\\n4 bb\\n' | sha256sum"""
    told = "239dd5af67e8626fce9d966de23d634970a6af2e2e48c072aa2b5d954db92084"
    assert pieces_digest([Piece(3, "aa"), Piece(4, "bb")]) == told


def test_a_link_hashes_only_what_is_not_there_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = SqshOptions("none", None, 4096)
    contents = {f"f{number}": os.urandom(8 * 4096) for number in range(8)}
    lower = source(archive([member(name, data=data) for name, data in contents.items()]))
    upper = source(archive([member(".wh.f3"), member("new", data=os.urandom(100))]))
    hashed = []
    made = data_copier._made

    def counted(copies: object, start: int, end: int) -> Piece:
        hashed.append(end - start)
        return made(copies, start, end)  # type: ignore[arg-type]

    monkeypatch.setattr(data_copier, "_made", counted)
    output = tmp_path / "image.sqsh"
    with compile_layers(LayerCache(tmp_path), [lower, upper], options) as layers:
        linked = link_image(layers, output, options)
        known = {piece for layer in layers for part in layer.parts for piece in part.pieces}
    assert differing_pieces(output, linked.pieces) is None
    # The 32 KiB of f3 begin and end within a piece each.
    kept = [piece for piece in linked.pieces if piece in known]
    gone = 5
    assert len(kept) == len(known) - gone
    data = Superblock.unpack(output.read_bytes()).inode_table - Superblock.SIZE
    assert sum(hashed) + sum(piece.size for piece in kept) == data


def test_what_changed_since_it_was_compiled_differs_from_what_is_told_of_the_image(
    tmp_path: Path,
) -> None:
    options = SqshOptions("none", None, 4096)
    data = os.urandom(8 * 4096)
    output = tmp_path / "image.sqsh"
    with compile_layers(
        LayerCache(tmp_path), [source(archive([member("f", data=data)]))], options
    ) as layers:
        part = layers[0].parts[0].source
        assert isinstance(part, Path)
        part.write_bytes(data[:SIZE] + b"?" + data[SIZE + 1 :])
        linked = link_image(layers, output, options)
    wrong = differing_pieces(output, linked.pieces)
    assert wrong is not None
    assert (
        output.read_bytes()[slice(*wrong)]
        == (data[:SIZE] + b"?" + data[SIZE + 1 :])[SIZE : 2 * SIZE]
    )
