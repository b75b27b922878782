"""Layer archives to trees, trees to columns and back, and the layer cache."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest
import zstandard

from slipway.squashfs import (
    DIR,
    REG,
    SYMLINK,
    CompiledLayer,
    LayerCache,
    LayerWriter,
    SqshOptions,
    TarSource,
    TreeNode,
    compile_layers,
    dump_layer,
    kind_at,
    new_root,
    put_node,
    resolve_path,
)
from slipway.squashfs.compile.compiled_layer import read_layer
from slipway.squashfs.compile.layer_tree import WHITEOUT, find_node
from slipway.squashfs.format.errors import LayerError
from slipway.squashfs.link.merged_tree import MergedTree
from slipway.squashfs.link.path_lookup import look_up_path

OPTIONS = SqshOptions("zstd", 1, 4096)


Member = tuple[tarfile.TarInfo, bytes]


def member(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **more: object) -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.size = kind, 0o755 if kind == tarfile.DIRTYPE else 0o644, len(data)
    for key, value in more.items():
        setattr(info, key, value)
    return info, data


def archive(members: Iterable[Member]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def source(data: bytes, blob: bytes | None = None) -> TarSource:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return TarSource(digest, lambda: iter([blob or data]))


def compile_all(folder: Path, *archives: bytes) -> list[CompiledLayer]:
    with compile_layers(
        LayerCache(folder / "cache"), [source(data) for data in archives], OPTIONS
    ) as layers:
        return layers


def paths(layers: list[CompiledLayer]) -> dict[bytes, tuple[int, int]]:
    """All paths of the merged tree: layer and row."""
    found = {}
    for here in MergedTree(layers).dirs:
        prefix = here.path + b"/" if here.parent is not None else b""
        if here.span is not None:
            layer, first, end = here.span
            for row in range(first, end):
                found[prefix + layers[layer].names[row]] = (layer, row)
        for name, layer, row in here.items or ():
            found[prefix + name] = (layer, row)
    return found


@pytest.mark.parametrize("pack", [lambda data: data, gzip.compress, zstandard.compress])
def test_plain_gzip_and_zstd_archives_are_read(tmp_path: Path, pack: object) -> None:
    data = archive([member("a", data=b"x" * 9000)])
    blob = pack(data)  # type: ignore[operator]
    with compile_layers(LayerCache(tmp_path), [source(data, blob)], OPTIONS) as layers:
        assert layers[0].names == [b"", b"a"]
        assert layers[0].columns["size"][1] == 9000


def test_a_gzip_of_several_members_is_one_archive(tmp_path: Path) -> None:
    data = archive([member("a", data=b"x" * 9000)])
    blob = gzip.compress(data[:700]) + gzip.compress(data[700:])
    with compile_layers(LayerCache(tmp_path), [source(data, blob)], OPTIONS) as layers:
        assert layers[0].names == [b"", b"a"]


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_a_blob_that_ends_in_the_middle_is_an_error_and_leaves_nothing(
    tmp_path: Path, pack: object
) -> None:
    data = archive([member("a", data=os.urandom(90_000))])
    blob = pack(data)[:-5000]  # type: ignore[operator]
    with (
        pytest.raises(LayerError, match=r"ends in the middle|damaged"),
        compile_layers(LayerCache(tmp_path), [source(data, blob)], OPTIONS),
    ):
        raise AssertionError("not reached")
    assert list((tmp_path / "layers").iterdir()) == []


def test_content_with_another_digest_is_refused(tmp_path: Path) -> None:
    wanted, other = archive([member("a")]), archive([member("b")])
    with (
        pytest.raises(LayerError, match="digest"),
        compile_layers(LayerCache(tmp_path), [source(wanted, other)], OPTIONS),
    ):
        raise AssertionError("not reached")
    assert list((tmp_path / "layers").iterdir()) == []


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (member("../etc/passwd"), "leads out of the root"),
        (member("a/../../b"), "leads out of the root"),
        (member("x" * 256), "256 bytes"),
        (member("link", tarfile.LNKTYPE, linkname="../x"), "leads out of the root"),
        (member("folder-link", tarfile.LNKTYPE, linkname="folder"), "hard link to a directory"),
        (member(".wh."), "whiteout of nothing"),
        (member("sparse", b"S"), "type 'S'"),
        (member("symlink", tarfile.SYMTYPE), "without a target"),
    ],
)
def test_a_member_that_has_no_place_is_named(tmp_path: Path, bad: Member, message: str) -> None:
    data = archive([member("folder", tarfile.DIRTYPE), bad])
    with pytest.raises(LayerError, match=message):
        compile_all(tmp_path, data)


def test_garbage_is_no_archive(tmp_path: Path) -> None:
    with pytest.raises(LayerError, match="archive"):
        compile_all(tmp_path, b"not a tar" * 200)


def test_a_hard_link_to_a_lower_layers_file_is_that_file(tmp_path: Path) -> None:
    lower = archive([member("d/target", data=b"content"), member("other", data=b"o")])
    upper = archive([member("d/link", tarfile.LNKTYPE, linkname="d/target"), member(".wh.other")])
    layers = compile_all(tmp_path, lower, upper)
    found = paths(layers)
    assert found[b"d/link"] == found[b"d/target"]
    assert b"other" not in found


def test_a_hard_link_outlives_the_lower_name_and_goes_through_a_chain(tmp_path: Path) -> None:
    lower = archive([member("a", data=b"content")])
    middle = archive([member("b", tarfile.LNKTYPE, linkname="a"), member(".wh.a")])
    upper = archive([member("c", tarfile.LNKTYPE, linkname="b")])
    found = paths(compile_all(tmp_path, lower, middle, upper))
    assert found.keys() == {b"b", b"c"}
    assert found[b"b"] == found[b"c"] == (0, 1)


def test_a_hard_link_to_nothing_is_an_error_with_both_names(tmp_path: Path) -> None:
    lower = archive([member("a", data=b"content")])
    middle = archive([member(".wh.a")])
    upper = archive([member("link", tarfile.LNKTYPE, linkname="a")])
    with pytest.raises(LayerError, match=r"'/?link' is a hard link to 'a'"):
        MergedTree(compile_all(tmp_path, lower, middle, upper))


@pytest.mark.parametrize("whiteout_first", [True, False])
def test_a_whiteout_speaks_of_lower_layers_wherever_it_stands(
    tmp_path: Path, whiteout_first: bool
) -> None:
    lower = archive([member("d/old"), member("f", data=b"old")])
    members = [member(".wh.d"), member(".wh.f")], [member("d/new"), member("f", data=b"new!")]
    upper = archive([*members[0], *members[1]] if whiteout_first else [*members[1], *members[0]])
    layers = compile_all(tmp_path, lower, upper)
    found = paths(layers)
    assert found.keys() == {b"d", b"d/new", b"f"}
    layer, row = found[b"f"]
    assert layers[layer].columns["size"][row] == 4


def test_an_opaque_mark_hides_all_of_a_lower_directory(tmp_path: Path) -> None:
    lower = archive([member("d/a"), member("d/b/c"), member("e")])
    upper = archive([member("d/.wh..wh..opq"), member("d/new"), member("d/.wh..wh.plnk")])
    assert paths(compile_all(tmp_path, lower, upper)).keys() == {b"d", b"d/new", b"e"}


def test_a_parent_that_no_member_names_keeps_the_lower_layers_mode(tmp_path: Path) -> None:
    lower = archive([member("d", tarfile.DIRTYPE, mode=0o700, uid=7)])
    layers = compile_all(tmp_path, lower, archive([member("d/new/x")]))
    layer, row = paths(layers)[b"d"]
    assert (layers[layer].columns["mode"][row], layers[layer].columns["uid"][row]) == (0o700, 7)
    layer, row = paths(layers)[b"d/new"]
    assert layers[layer].columns["mode"][row] == 0o755


def test_the_last_of_two_members_with_one_name_counts(tmp_path: Path) -> None:
    data = archive(
        [
            member("a", data=b"first"),
            member("a", data=b"second!"),
            member("d/x"),
            member("d", tarfile.SYMTYPE, linkname="a"),
            member("e", tarfile.SYMTYPE, linkname="a"),
            member("e", tarfile.DIRTYPE),
            member("e/y"),
        ]
    )
    layers = compile_all(tmp_path, data)
    found = paths(layers)
    kinds = {path: layers[0].columns["kind"][row] for path, (_, row) in found.items()}
    assert kinds == {b"a": REG, b"d": SYMLINK, b"e": DIR, b"e/y": REG}
    assert layers[0].columns["size"][found[b"a"][1]] == 7


def test_members_below_a_symlink_of_the_layer_go_where_it_leads(tmp_path: Path) -> None:
    data = archive(
        [
            member("usr/lib", tarfile.DIRTYPE),
            member("lib", tarfile.SYMTYPE, linkname="usr/lib"),
            member("lib/x.so", data=b"elf"),
        ]
    )
    assert b"usr/lib/x.so" in paths(compile_all(tmp_path, data))


def test_a_circle_of_symlinks_is_an_error(tmp_path: Path) -> None:
    data = archive(
        [
            member("a", tarfile.SYMTYPE, linkname="b"),
            member("b", tarfile.SYMTYPE, linkname="a"),
            member("a/x"),
        ]
    )
    with pytest.raises(LayerError, match="too many symbolic links"):
        compile_all(tmp_path, data)


def test_an_index_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    layer = compile_all(tmp_path, archive([member("a/b", data=b"x" * 9000), member("c")]))[0]
    again = read_layer(dump_layer(layer), tmp_path)
    assert (again.names, again.columns, again.texts) == (layer.names, layer.columns, layer.texts)
    assert [part.pieces for part in again.parts] == [part.pieces for part in layer.parts]


@pytest.mark.parametrize("at", [0, 20, 60, -1])
def test_a_changed_byte_of_an_index_is_found(tmp_path: Path, at: int) -> None:
    layer = compile_all(tmp_path, archive([member("a", data=b"x" * 9000)]))[0]
    data = bytearray(dump_layer(layer))
    data[at] ^= 1
    with pytest.raises(ValueError, match="damaged"):
        read_layer(bytes(data), tmp_path)


def test_paths_are_found_through_layers_and_symlinks(tmp_path: Path) -> None:
    lower = archive([member("usr/bin/sh"), member("bin", tarfile.SYMTYPE, linkname="/usr/bin")])
    upper = archive([member("usr/.wh.bin"), member("opt/x")])
    layers = compile_all(tmp_path, lower, upper)
    assert resolve_path(layers[:1], b"/bin/sh") == b"usr/bin/sh"
    assert resolve_path(layers[:1], b"/bin/../x/./y") == b"usr/x/y"
    assert kind_at(layers[:1], b"usr/bin/sh") == REG
    assert kind_at(layers, b"usr/bin") is None
    assert kind_at(layers, b"") == DIR
    assert look_up_path(layers, 2, [b"opt", b"x", b"y"]) == []


def test_a_written_layer_empties_removes_and_adds(tmp_path: Path) -> None:
    lower = archive([member("dev/null"), member("etc/rc", data=b"old"), member("gone")])
    layers = compile_all(tmp_path, lower)
    writer = LayerWriter(OPTIONS, 5)
    writer.empty(b"dev")
    writer.remove(b"gone")
    writer.file(b"etc/rc", b"new content")
    writer.symlink(b"etc/mtab", b"/proc/mounts")
    writer.directory(b"a/b")
    layers.append(writer.finish())
    assert paths(layers).keys() == {b"dev", b"etc", b"etc/rc", b"etc/mtab", b"a", b"a/b"}


def test_put_keeps_what_a_described_directory_says_when_it_is_only_implied_later() -> None:
    root = new_root()
    put_node(root, b"d", TreeNode(DIR, 0o711, uid=3))
    put_node(root, b"d/x", TreeNode(REG))
    put_node(root, b"d", TreeNode(DIR, 0o755, implied=True, opaque=True))
    found = find_node(root, b"d")
    assert found is not None
    assert (found.mode, found.uid, found.opaque, list(found.children)) == (0o711, 3, True, [b"x"])
    put_node(root, b"d", TreeNode(WHITEOUT))
    assert find_node(root, b"d") is found
