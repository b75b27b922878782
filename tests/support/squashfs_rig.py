"""Random layer stacks, and what the kernel makes of them.

A stack is built twice: as overlayfs layer directories and as OCI layer archives. The oracle is the
kernel's overlay mount of the directories. What Slipway links from either must be the same, read
through the kernel's own squashfs mount, through unsquashfs, and through Slipway's reader.
"""

# ruff: noqa: PTH101, PTH102, PTH114, PTH115, PTH118, PTH123, PTH208, PTH211
# Names here are bytes, which pathlib does not have.
from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import socket
import stat
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest.mock import patch

from hypothesis import strategies as st

from slipway.core import differing_pieces, digests
from slipway.squashfs import (
    REG,
    ArchiveHeaders,
    DirectorySource,
    LayerCache,
    Source,
    SqshOptions,
    TarSource,
    compile_layers,
    link_image,
    open_image,
)
from slipway.squashfs.format.structures import KIND_MODE, device_parts
from slipway.squashfs.link.linker import LinkResult

BLOCK = 4096


@dataclass(frozen=True)
class Item:
    """One name of a layer. `links` are further names (in the same layer) of the same file."""

    kind: str  # file, dir, symlink, fifo, char, block, whiteout
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 1
    content: bytes = field(default=b"", repr=False)
    target: bytes = b""
    device: int = 0
    xattrs: tuple[tuple[str, bytes], ...] = ()
    opaque: bool = False
    children: tuple[tuple[bytes, Item], ...] = ()
    link_to: tuple[bytes, ...] = ()  # path of the file that this is another name of
    made_up: str = ""  # the engine that made this folder up, where the archive leaves it out


NAMES = st.sampled_from(
    [b"a", b"b", b"c", b"d", b"\xff\xfe\x80", b"n" * 255, b"new\nline", "ü".encode(), b" "]
)
SHAPES = {
    "small": b"same small content",
    "a block": b"x" * BLOCK,
    "a block and a byte": b"y" * (BLOCK + 1),
    "a hole": bytes(BLOCK),
    "three holes": bytes(3 * BLOCK),
    "a hole and a tail": bytes(BLOCK) + b"end",
    "a hole in the middle": b"begin" + bytes(3 * BLOCK) + b"end" * 2000,
    "noise": hashlib.shake_256(b"noise").digest(3 * BLOCK + 17),
    "nearly a block": hashlib.shake_256(b"tail").digest(BLOCK - 1),
}


def _shape(name: str) -> bytes:
    return SHAPES[name]


CONTENTS = st.one_of(
    st.just(b""), st.binary(max_size=40), st.sampled_from(sorted(SHAPES)).map(_shape)
)
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw+ep
XATTRS = st.sampled_from(
    [
        (),
        (),
        (("user.note", b"hello"),),
        (("user.empty", b""), ("user.note", b"\0binary\xff")),
        (("security.capability", CAPABILITY),),
    ]
)
META = {
    "mode": st.sampled_from([0o644, 0o755, 0o4755, 0o2711, 0o1777, 0o600, 0o000, 0o7777]),
    "uid": st.sampled_from([0, 1, 1000, 65534, 4_000_000_000]),
    "gid": st.sampled_from([0, 5, 1000, 70_000]),
    "mtime": st.sampled_from([0, 1, 1_700_000_000, (1 << 31) + 5, (1 << 32) - 1]),
}


def _leaf() -> st.SearchStrategy[Item]:
    return st.one_of(
        st.builds(Item, st.just("file"), content=CONTENTS, xattrs=XATTRS, **META),
        st.builds(Item, st.just("file"), content=CONTENTS, xattrs=XATTRS, **META),
        st.builds(
            Item,
            st.just("symlink"),
            target=st.sampled_from([b"a", b"../b", b"/c/d", b"\xff", b"t" * 300]),
            mode=st.just(0o777),
            uid=META["uid"],
            gid=META["gid"],
            mtime=META["mtime"],
        ),
        st.builds(Item, st.just("whiteout")),
        st.builds(Item, st.just("fifo"), **META),
        st.builds(
            Item,
            st.sampled_from(["char", "block"]),
            device=st.sampled_from([os.makedev(1, 3), os.makedev(259, 70_000)]),
            **META,
        ),
    )


def _children(items: st.SearchStrategy[Item]) -> st.SearchStrategy[tuple[tuple[bytes, Item], ...]]:
    return st.dictionaries(NAMES, items, max_size=5).map(lambda found: tuple(found.items()))


def _directory(items: st.SearchStrategy[Item]) -> st.SearchStrategy[Item]:
    user = st.sampled_from([(), (), (("user.note", b"of a directory"),)])
    return st.builds(
        Item,
        st.just("dir"),
        children=_children(items),
        opaque=st.sampled_from([False, False, False, True]),
        xattrs=user,
        made_up=st.sampled_from(["", "", "docker", "containerd"]),
        **META,
    ).map(_named_if_empty)


def _named_if_empty(item: Item) -> Item:
    """Nothing would tell of an empty folder that the archive leaves out."""
    return item if item.children or item.opaque else replace(item, made_up="")


TREES = _children(st.recursive(_leaf(), _directory, max_leaves=8))


def _files(
    children: tuple[tuple[bytes, Item], ...], path: tuple[bytes, ...] = ()
) -> list[tuple[bytes, ...]]:
    found = []
    for name, item in children:
        if item.kind == "dir":
            found += _files(item.children, (*path, name))
        elif item.kind != "whiteout":
            found.append((*path, name))
    return found


LINK_HEADERS = st.builds(Item, st.just("link"), **META)
"""What an archive says of a file at a further name of it; engines take that for the file's own."""


@st.composite
def layers(draw: st.DrawFn) -> tuple[tuple[bytes, Item], ...]:
    """A layer: a tree, and now and then further names for files of it."""
    children = draw(TREES)
    names = {name for name, _ in children}
    candidates = _files(children)
    for name in draw(
        st.lists(st.sampled_from([b"l1", b"l2", b"a", b"l3"]), max_size=2, unique=True)
    ):
        if candidates and name not in names:
            target = draw(st.sampled_from(candidates))
            header = draw(LINK_HEADERS)
            children = (*children, (name, replace(header, link_to=target)))
    return children


Stack = list[tuple[tuple[bytes, Item], ...]]
STACKS: st.SearchStrategy[Stack] = st.lists(layers(), min_size=1, max_size=4)


def settled(stack: Stack) -> Stack:
    """The same stack with every folder that an archive leaves out as the layers below have it.

    As overlayfs cannot tell what an engine made up, its oracle is built of this.
    """
    there: dict[tuple[bytes, ...], Item | None] = {}  # folders of the merged tree; None: others
    return [tuple(_settled(layer, (), there)) for layer in stack]


def _settled(
    children: tuple[tuple[bytes, Item], ...],
    above: tuple[bytes, ...],
    there: dict[tuple[bytes, ...], Item | None],
) -> Iterator[tuple[bytes, Item]]:
    for name, item in children:
        path = (*above, name)
        below = there.get(path)
        if item.kind != "dir" or item.opaque or below is None:
            for other in [other for other in there if other[: len(path)] == path]:
                del there[other]
            below = None
        if item.kind != "dir":
            if item.kind != "whiteout":
                there[path] = None
            yield name, item
            continue
        if item.made_up:
            source = below or Item("dir", 0o755, mtime=0)
            item = replace(source, opaque=item.opaque, children=item.children, made_up="")
        there[path] = item
        yield name, replace(item, children=tuple(_settled(item.children, path, there)))


# --- the two forms of a layer


def make_directory(folder: Path, children: tuple[tuple[bytes, Item], ...]) -> None:
    """A layer as overlayfs keeps it."""
    folder.mkdir()
    base = os.fsencode(folder)
    later: list[Callable[[], None]] = []
    _make(base, base, children, later)
    for step in reversed(later):  # directories' times last, the deepest first
        step()


def _make(
    base: bytes,
    here: bytes,
    children: tuple[tuple[bytes, Item], ...],
    later: list[Callable[[], None]],
) -> None:
    # Names of other files last: what they name must be there.
    for name, item in sorted(children, key=lambda pair: pair[1].kind == "link"):
        path = here + b"/" + name
        if item.kind == "link":
            os.link(os.path.join(base, *item.link_to), path, follow_symlinks=False)
            if not os.path.islink(path):  # docker leaves the time of these, containerd sets it
                _describe(path, item)
            continue
        if item.kind == "whiteout":
            os.mknod(path, stat.S_IFCHR | 0o600, 0)
            continue
        if item.kind == "dir":
            os.mkdir(path)
            if item.opaque:
                os.setxattr(path, "trusted.overlay.opaque", b"y")
            made = replace(item, mode=0o755, uid=0, gid=0, xattrs=())
            made = made if item.made_up == "docker" else item  # containerd copies what is below
            later.append(lambda p=path, i=made: _describe(p, i))  # type: ignore[misc]
            _make(base, path, item.children, later)
            continue
        if item.kind == "file":
            with open(path, "wb") as stream:
                stream.write(item.content)
        elif item.kind == "symlink":
            os.symlink(item.target, path)
        else:
            kinds = {"fifo": stat.S_IFIFO, "char": stat.S_IFCHR, "block": stat.S_IFBLK}
            os.mknod(path, kinds[item.kind] | 0o600, item.device)
        _describe(path, item)


def _describe(path: bytes, item: Item) -> None:
    os.chown(path, item.uid, item.gid, follow_symlinks=False)
    if item.kind != "symlink":
        os.chmod(path, item.mode)
    for name, value in item.xattrs:
        os.setxattr(path, name, value)
    if not item.made_up:
        os.utime(path, (item.mtime, item.mtime), follow_symlinks=False)


def make_archive(children: tuple[tuple[bytes, Item], ...]) -> bytes:
    """The same layer as an OCI archive."""
    out = io.BytesIO()
    with tarfile.open(
        fileobj=out, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape"
    ) as tar:
        links: list[tarfile.TarInfo] = []
        _archive(tar, b"", children, links, children)
        for info in links:
            tar.addfile(info)
    return out.getvalue()


def _archive(
    tar: tarfile.TarFile,
    here: bytes,
    children: tuple[tuple[bytes, Item], ...],
    links: list[tarfile.TarInfo],
    top: tuple[tuple[bytes, Item], ...],
) -> None:
    types = {
        "file": tarfile.REGTYPE,
        "dir": tarfile.DIRTYPE,
        "symlink": tarfile.SYMTYPE,
        "fifo": tarfile.FIFOTYPE,
        "char": tarfile.CHRTYPE,
        "block": tarfile.BLKTYPE,
    }
    for name, item in children:
        path = here + name
        if item.kind == "whiteout":
            tar.addfile(tarfile.TarInfo(os.fsdecode(here + b".wh." + name)))
            continue
        info = tarfile.TarInfo(os.fsdecode(path))
        if item.kind == "link":
            info.type, info.linkname = tarfile.LNKTYPE, os.fsdecode(b"/".join(item.link_to))
            described = _found(top, item.link_to)
            described = described if described.kind == "symlink" else item
            info.mode, info.uid, info.gid = described.mode, described.uid, described.gid
            info.mtime = described.mtime
            links.append(info)
            continue
        info.type = types[item.kind]
        info.mode, info.uid, info.gid, info.mtime = item.mode, item.uid, item.gid, item.mtime
        info.linkname = os.fsdecode(item.target)
        info.devmajor, info.devminor = os.major(item.device), os.minor(item.device)
        info.pax_headers = {
            f"SCHILY.xattr.{key}": value.decode("utf-8", "surrogateescape")
            for key, value in item.xattrs
        }
        info.size = len(item.content)
        if not item.made_up:
            tar.addfile(info, io.BytesIO(item.content))
        if item.kind == "dir":
            if item.opaque:
                tar.addfile(tarfile.TarInfo(os.fsdecode(path + b"/.wh..wh..opq")))
            _archive(tar, path + b"/", item.children, links, top)


def _found(children: tuple[tuple[bytes, Item], ...], path: tuple[bytes, ...]) -> Item:
    """The item at a path of a layer."""
    item = dict(children)[path[0]]
    return _found(item.children, path[1:]) if path[1:] else item


def archive_headers(data: bytes) -> ArchiveHeaders:
    """An archive without contents, as docker keeps it beside a layer's folder."""
    pieces: list[bytes | int] = []
    names, at = [], 0
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as archive:
        for info in archive:
            names.append(os.fsencode(info.name))
            pieces += [data[at : info.offset_data], info.size]
            at = info.offset_data + info.size
    pieces.append(data[at:])
    return ArchiveHeaders(lambda: iter(names), lambda: iter(pieces))


# --- what a tree is, however it is read


@dataclass(frozen=True)
class Fact:
    """All that can be told of one name."""

    mode: int  # type and permissions
    uid: int
    gid: int
    mtime: int
    size: int
    sha256: str
    target: bytes
    device: int
    xattrs: tuple[tuple[bytes, bytes], ...]
    names: tuple[bytes, ...]  # all names of the file, for files with several
    nlink: int = field(compare=False, default=0)


def facts_of_folder(folder: Path) -> dict[bytes, Fact]:
    """Walk a mounted or unpacked tree."""
    base = os.fsencode(folder)
    raw: dict[bytes, tuple[os.stat_result, tuple[int, int]]] = {}
    stack = [b""]
    while stack:
        here = stack.pop()
        for name in os.listdir(base + b"/" + here):
            path = here + b"/" + name if here else name
            try:
                info = os.lstat(base + b"/" + path)
            except FileNotFoundError:
                # overlayfs lists a whiteout in a directory that is not merged, and denies it then.
                continue
            raw[path] = info, (info.st_dev, info.st_ino)
            if stat.S_ISDIR(info.st_mode):
                stack.append(path)
    same: dict[tuple[int, int], list[bytes]] = {}
    for path, (info, key) in raw.items():
        if not stat.S_ISDIR(info.st_mode):
            same.setdefault(key, []).append(path)
    found = {}
    for path, (info, key) in raw.items():
        full = base + b"/" + path
        kind = stat.S_IFMT(info.st_mode)
        content = b""
        if kind == stat.S_IFREG:
            with open(full, "rb") as stream:
                content = stream.read()
        xattrs = _xattrs(full) if kind in (stat.S_IFREG, stat.S_IFDIR) else ()
        names = tuple(sorted(same.get(key, [path])))
        found[path] = Fact(
            info.st_mode,
            info.st_uid,
            info.st_gid,
            int(info.st_mtime),
            len(content),
            hashlib.sha256(content).hexdigest(),
            os.readlink(full) if kind == stat.S_IFLNK else b"",
            info.st_rdev if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0,
            xattrs,
            names if len(names) > 1 else (),
            info.st_nlink,
        )
    return found


def _xattrs(path: bytes) -> tuple[tuple[bytes, bytes], ...]:
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:  # as of a squashfs without any
            raise
        return ()
    return tuple(
        sorted(
            (name.encode(), os.getxattr(path, name))
            for name in names
            if not name.startswith("trusted.overlay.")
        )
    )


def facts_of_image(path: Path) -> dict[bytes, Fact]:
    """Read with Slipway's reader."""
    found = {}
    with open_image(path) as image:
        entries = [entry for entry in image.walk() if entry.path]
        same: dict[int, list[bytes]] = {}
        for entry in entries:
            same.setdefault(entry.inode.number, []).append(entry.path)
        for entry in entries:
            inode = entry.inode
            content = b"".join(image.content(inode)) if inode.kind == REG else b""
            names = tuple(sorted(same[inode.number]))
            found[entry.path] = Fact(
                KIND_MODE[inode.kind] | inode.mode,
                inode.uid,
                inode.gid,
                inode.mtime,
                len(content),
                hashlib.sha256(content).hexdigest(),
                inode.target,
                os.makedev(*device_parts(inode.device)),
                tuple(sorted(image.xattrs(inode).items())),
                names if len(names) > 1 else (),
                inode.nlink,
            )
    return found


@contextmanager
def mounted(kind: str, source: str, folder: Path, options: str) -> Iterator[Path]:
    """A read-only mount for the block; the source is free again after it."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", kind, "-o", f"ro,{options}", source, str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
        if options == "loop":
            _wait_for_loop_devices(source)


def _wait_for_loop_devices(source: str) -> None:
    """Whoever made a mount namespace meanwhile, as an engine does for each container, holds a copy
    of the mount, and so the file, for a moment longer: the disk below would be busy."""
    end = time.monotonic() + 60
    while held := subprocess.check_output(["losetup", "--associated", source], text=True):
        assert time.monotonic() < end, held
        time.sleep(0.01)


def differences(got: dict[bytes, Fact], wanted: dict[bytes, Fact]) -> list[str]:
    """One line for each name that differs."""
    return [
        f"{path!r}: {got.get(path)} instead of {wanted.get(path)}"
        for path in sorted({*got, *wanted})
        if got.get(path) != wanted.get(path)
    ]


def check_stack(stack: Stack, folder: Path, options: SqshOptions) -> None:
    """Build a stack both ways, link it, and compare with the kernel's overlay of it."""
    folder.mkdir()
    small = patch.object(digests, "PIECE_BYTES", 3 * BLOCK)  # several in a layer
    try:
        lowers = []
        for number, layer in enumerate(settled(stack)):
            make_directory(folder / f"o{number}", layer)
            lowers.append(str(folder / f"o{number}"))
        # overlayfs wants two layers at least; an empty one below all changes nothing.
        (folder / "empty").mkdir()
        stacked = ":".join([*reversed(lowers), str(folder / "empty")])
        with mounted("overlay", "overlay", folder / "merged", f"lowerdir={stacked}") as merged:
            wanted = facts_of_folder(merged)
        directories: list[Source] = []
        archives: list[Source] = []
        for number, layer in enumerate(stack):
            data = make_archive(layer)
            digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
            archive = TarSource(digest, lambda data=data: iter([data]), len(data))  # type: ignore[misc]
            archives.append(archive)
            unpacked = folder / f"l{number}"
            make_directory(unpacked, layer)
            headers = archive_headers(data) if number % 2 else None
            directories.append(DirectorySource(digest, unpacked, archive, headers))
        outputs = []
        for route, sources in (("directories", directories), ("archives", archives)):
            outputs.append(folder / f"{route}.sqsh")
            cache = LayerCache(folder / f"{route}-cache")
            with small, compile_layers(cache, sources, options) as compiled_layers:
                made = link_image(compiled_layers, outputs[-1], options)
            check_image(outputs[-1], made, wanted, folder, route)
        assert outputs[0].read_bytes() == outputs[1].read_bytes()
    finally:
        shutil.rmtree(folder)


def check_image(
    output: Path, made: LinkResult, wanted: dict[bytes, Fact], folder: Path, route: str
) -> None:
    """The image is what was wanted, read in three ways."""
    assert sum(piece.size for piece in made.pieces) == output.stat().st_size
    assert differing_pieces(output, made.pieces) is None, route
    ours = facts_of_image(output)
    assert not differences(ours, wanted), (route, "reader", differences(ours, wanted))
    assert made.entries == len(wanted)
    for path, fact in ours.items():
        if fact.names:
            assert fact.nlink == len(fact.names), (route, "link count", path)
    with mounted("squashfs", str(output), folder / "kernel", "loop") as kernel:
        found = differences(facts_of_folder(kernel), wanted)
        assert not found, (route, "kernel", found)
    shutil.rmtree(folder / "unpacked", ignore_errors=True)
    command = ["unsquashfs", "-d", str(folder / "unpacked"), "-no-progress", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (route, "unsquashfs", done.stderr)
    found = differences(facts_of_folder(folder / "unpacked"), wanted)
    assert not found, (route, "unsquashfs", found)


def make_socket(path: Path) -> None:
    """A socket in the file system."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
