"""File systems served by this process, through /dev/fuse and without a library.

The kernel's protocol (include/uapi/linux/fuse.h, version 7.31): a request is a header and what its
operation takes, a reply a header and what it gives. Only what a read-only file system needs is
spoken; all else is answered with ENOSYS, which the kernel takes for "not supported".

Who opens /dev/fuse must mount in the same user namespace, so an ordinary user can do both in a
namespace of its own (`unshare --user --map-root-user --mount`), with no setuid helper.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

ROOT_NODE = 1
REQUEST_BYTES = 128 << 10
_CLOSE_SECONDS = 10.0  # that an end waits for those who still hold a file
"""Most that one read asks for, and how far the kernel reads ahead."""

_HEADER = struct.Struct("<IIQQIIII")
_REPLY = struct.Struct("<IiQ")
_INIT_IN = struct.Struct("<IIII")
_INIT_OUT = struct.Struct("<IIIIHHIIHHI28x")
_ATTR = struct.Struct("<QQQQQQIIIIIIIIII")
_ENTRY = struct.Struct("<QQQQII")
_ATTR_HEAD = struct.Struct("<QII")
_OPEN_OUT = struct.Struct("<QII")
_READ_IN = struct.Struct("<QQI")
_DIRENT = struct.Struct("<QQII")
_STATFS = struct.Struct("<QQQQQIIII24x")

_MAJOR, _MINOR = 7, 31
_ASYNC_READ, _MAX_PAGES = 1, 1 << 22
_KEEP_CACHE = 2
_FOREVER = 1 << 30  # seconds: nothing here changes
_LARGEST_REQUEST = (1 << 20) + 4096

_LOOKUP, _FORGET, _GETATTR, _READLINK, _OPEN, _READ, _STATFS_OP = 1, 2, 3, 5, 14, 15, 17
_RELEASE, _FLUSH, _INIT, _OPENDIR, _READDIR, _RELEASEDIR = 18, 25, 26, 27, 28, 29
_INTERRUPT, _DESTROY, _BATCH_FORGET = 36, 38, 42
_NO_REPLY = {_FORGET, _BATCH_FORGET, _INTERRUPT}

_MS_RDONLY, _MS_NOSUID, _MS_NODEV = 1, 2, 4


@dataclass(frozen=True)
class NodeAttributes:
    """What stat(2) says of a node. `mode` has the type in it."""

    node: int
    mode: int
    size: int = 0
    mtime: int = 0
    nlink: int = 1
    uid: int = 0
    gid: int = 0
    device: int = 0


class ReadOnlyFiles(Protocol):
    """What is served. A node is a number; the root is ROOT_NODE. Methods raise OSError."""

    def attributes(self, node: int) -> NodeAttributes:
        """Of a node."""

    def find(self, folder: int, name: bytes) -> NodeAttributes:
        """What a folder has under a name."""

    def names(self, folder: int) -> Iterable[tuple[bytes, NodeAttributes]]:
        """All that a folder has, in the same order each time."""

    def target(self, node: int) -> bytes:
        """Of a symbolic link."""

    def read(self, node: int, start: int, size: int) -> bytes:
        """Up to `size` bytes of a file; less at its end only."""


class FuseConnection:
    """A mounted file system; `threads` answer the kernel until it is unmounted."""

    def __init__(self, files: ReadOnlyFiles, folder: Path, *, threads: int = 1) -> None:
        """Mount `files` at `folder`. Raises OSError: no /dev/fuse, or no right to mount."""
        self._files = files
        self._folder = folder
        self._device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        self._libc = ctypes.CDLL(None, use_errno=True)
        options = (
            f"fd={self._device},rootmode=40000,user_id={os.geteuid()},group_id={os.getegid()},"
            f"allow_other,max_read={REQUEST_BYTES}"
        )
        flags = _MS_RDONLY | _MS_NOSUID | _MS_NODEV
        if self._libc.mount(b"slipway", bytes(folder), b"fuse", flags, options.encode()):
            os.close(self._device)
            raise OSError(ctypes.get_errno(), "cannot mount", str(folder))
        self._threads = [
            threading.Thread(target=self._serve, daemon=True) for _ in range(max(1, threads))
        ]
        self._serving = len(self._threads)
        self._lock = threading.Lock()
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Unmount. Whoever still holds a file is served until he lets go of it."""
        self._libc.umount2(bytes(self._folder), 2)  # MNT_DETACH
        end = time.monotonic() + _CLOSE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def __enter__(self) -> FuseConnection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve(self) -> None:
        try:
            self._reply_all()
        finally:
            with self._lock:
                self._serving -= 1
                last = not self._serving
            if (
                last
            ):  # sooner, its number could be another file's, which replies would be written to
                os.close(self._device)

    def _reply_all(self) -> None:
        while True:
            try:
                request = os.read(self._device, _LARGEST_REQUEST)
            except OSError as error:
                if error.errno in (errno.EINTR, errno.ENOENT, errno.EAGAIN):
                    continue  # ENOENT: interrupted before it was read
                return  # ENODEV: unmounted
            _, operation, unique, node, *_ = _HEADER.unpack_from(request)
            if operation in _NO_REPLY:
                continue
            try:
                code, body = 0, self._answer(operation, node, request[_HEADER.size :])
            except (OSError, ValueError, struct.error) as error:  # the latter: a damaged image
                code, body = -(getattr(error, "errno", None) or errno.EIO), b""
            try:
                os.write(self._device, _REPLY.pack(_REPLY.size + len(body), code, unique) + body)
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return
                if error.errno != errno.ENOENT:  # the reader was interrupted meanwhile
                    raise

    def _answer(self, operation: int, node: int, body: bytes) -> bytes:
        files = self._files
        if operation == _INIT:
            _, _, ahead, flags = _INIT_IN.unpack_from(body)
            ahead = min(ahead, REQUEST_BYTES)
            flags &= _ASYNC_READ | _MAX_PAGES
            pages = REQUEST_BYTES // 4096
            return _INIT_OUT.pack(_MAJOR, _MINOR, ahead, flags, 0, 0, REQUEST_BYTES, 1, pages, 0, 0)
        if operation == _LOOKUP:
            entry = files.find(node, body.rstrip(b"\0"))
            return _ENTRY.pack(entry.node, 0, _FOREVER, _FOREVER, 0, 0) + _packed(entry)
        if operation == _GETATTR:
            return _ATTR_HEAD.pack(_FOREVER, 0, 0) + _packed(files.attributes(node))
        if operation == _READLINK:
            return files.target(node)
        if operation in (_OPEN, _OPENDIR):
            return _OPEN_OUT.pack(0, _KEEP_CACHE, 0)
        if operation == _READ:
            _, start, size = _READ_IN.unpack_from(body)
            return files.read(node, start, size)
        if operation == _READDIR:
            _, start, size = _READ_IN.unpack_from(body)
            return self._listing(node, start, size)
        if operation == _STATFS_OP:
            return _STATFS.pack(0, 0, 0, 0, 0, 4096, 255, 4096, 0)
        if operation in (_RELEASE, _RELEASEDIR, _FLUSH, _DESTROY):
            return b""
        raise OSError(errno.ENOSYS, "not supported")

    def _listing(self, node: int, start: int, size: int) -> bytes:
        out = bytearray()
        for at, (name, entry) in enumerate(self._files.names(node)):
            if at < start:
                continue
            record = _DIRENT.pack(entry.node, at + 1, len(name), stat.S_IFMT(entry.mode) >> 12)
            record += name
            record += bytes(-len(record) % 8)
            if len(out) + len(record) > size:
                break
            out += record
        return bytes(out)


def _packed(entry: NodeAttributes) -> bytes:
    times = (entry.mtime,) * 3
    return _ATTR.pack(
        entry.node,
        entry.size,
        -(-entry.size // 512),
        *times,
        0,
        0,
        0,
        entry.mode,
        entry.nlink,
        entry.uid,
        entry.gid,
        entry.device,
        4096,
        0,
    )
