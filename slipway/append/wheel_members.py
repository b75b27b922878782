"""Files of a wheel, the large ones with the deflate form that the wheel has of them.

A wheel is a zip, whose members are deflate streams; so is the inside of a layer's gzip. What the
wheel holds is taken over as it is, which spares compressing it again, and makes the same bytes on
every machine. To stand among other blocks a stream has to lose the mark of its last block, and to
end at the end of a byte (RFC 1951, 3.2.3): an empty stored block behind it sees to that, as after
zlib's Z_FULL_FLUSH. Where the last block begins is known when all is inflated, which the digest of
the tar needs anyway.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from typing import IO, cast

from zlib_ng import zlib_ng

from slipway.core import SlipwayError
from slipway.registry import RAW, BlockInflater, DeflatedPiece, DeflateError

LARGE = 32 << 10
"""Plain bytes from which a member is taken over. Smaller ones are better compressed together."""

_PIECE = 1 << 20
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # APPNOTE.TXT 4.3.7: signature, lengths of name and extra
_ENCRYPTED = 1
_INFLATE_ERROR = cast(type[Exception], zlib_ng.error)  # python-zlib-ng's types call it an instance


def member_pieces(
    wheel: IO[bytes], archive: zipfile.ZipFile, member: zipfile.ZipInfo
) -> Iterator[bytes]:
    """The content of a member of `archive`, which was read from `wheel`.

    Raises SlipwayError where the wheel is damaged.
    """
    if member.compress_type != zipfile.ZIP_DEFLATED or member.flag_bits & _ENCRYPTED:
        with archive.open(member) as stream:
            while piece := stream.read(_PIECE):
                yield piece
    elif member.file_size >= LARGE:
        yield from deflated_pieces(wheel, member)
    else:
        yield _small_content(wheel, member)


def _small_content(wheel: IO[bytes], member: zipfile.ZipInfo) -> bytes:
    """As zipfile reads it, in a fifth of the time: an image has ten thousand of them."""
    inflater = zlib_ng.decompressobj(RAW)
    try:
        content = inflater.decompress(b"".join(_deflated(wheel, member)), member.file_size + 1)
    except _INFLATE_ERROR as error:
        raise _damaged(member, str(error)) from None
    if not inflater.eof or inflater.unused_data:
        raise _damaged(member, "its data end elsewhere than the wheel says")
    _check(member, zlib_ng.crc32(content), len(content))
    return content


def _check(member: zipfile.ZipInfo, checksum: int, size: int) -> None:
    if (checksum, size) != (member.CRC, member.file_size):
        raise _damaged(member, "its size or checksum is another one than the wheel says")


def deflated_pieces(wheel: IO[bytes], member: zipfile.ZipInfo) -> Iterator[DeflatedPiece]:
    """The content of a member with its deflate form, in pieces. Needs memory for one block.

    Raises SlipwayError where the wheel is damaged.
    """
    checksum = size = 0
    blocks = _MovableBlocks()
    try:
        for plain in blocks.plain(_deflated(wheel, member)):
            checksum, size = zlib_ng.crc32(plain, checksum), size + len(plain)
            if size > member.file_size:
                break
            yield DeflatedPiece(plain, blocks.take())
    except DeflateError as error:
        raise _damaged(member, str(error)) from None
    _check(member, checksum, size)


def _damaged(member: zipfile.ZipInfo, why: str) -> SlipwayError:
    return SlipwayError(f"{member.filename} of the wheel is damaged: {why}")


def _deflated(wheel: IO[bytes], member: zipfile.ZipInfo) -> Iterator[bytes]:
    wheel.seek(member.header_offset)
    head = wheel.read(_LOCAL_HEADER.size)
    if len(head) < _LOCAL_HEADER.size or not head.startswith(b"PK\3\4"):
        raise _damaged(member, "it does not begin where the wheel says")
    _, name, extra = _LOCAL_HEADER.unpack(head)
    wheel.seek(name + extra, 1)
    left = member.compress_size
    while left:
        piece = wheel.read(min(left, _PIECE))
        if not piece:
            raise _damaged(member, "the wheel ends in the middle")
        left -= len(piece)
        yield piece


class _MovableBlocks:
    """A deflate stream on its way into another one."""

    def __init__(self) -> None:
        self._given = bytearray()  # compressed bytes that may go, as all before them
        self._held = bytearray()  # those from the last block's first byte on, with its first bit
        self._first_bit = 0

    def take(self) -> bytes:
        """The compressed bytes so far."""
        taken = bytes(self._given)
        self._given.clear()
        return taken

    def plain(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """What the stream holds, in pieces; the last may be empty. Raises DeflateError."""
        with BlockInflater(RAW) as inflater:
            for piece in pieces:
                inflater.give(piece)
                used, goes_on = 0, True
                while goes_on and (inflater.left or inflater.is_full):
                    if inflater.is_full:
                        yield inflater.take()
                    goes_on = inflater.step()
                    at = len(piece) - inflater.left
                    self._held += piece[used:at]
                    used = at
                    if self._is_last_end(inflater):
                        if inflater.left or next(pieces, b""):
                            raise DeflateError("something stands behind its end")
                        yield inflater.take()
                        return
        raise DeflateError("it has no end")

    def _is_last_end(self, inflater: BlockInflater) -> bool:
        """What a step that ended with a block means for what is held; whether it was the last."""
        if inflater.ended:
            raise DeflateError("it ends too early")
        if not inflater.at_end_of_block:
            return False
        if inflater.in_last_block:
            self._close(inflater.unused_bits)
            return True
        self._go_on(inflater.unused_bits)
        return False

    def _go_on(self, unused_bits: int) -> None:
        """A block begins behind what is held; its first bits may lie in the last byte of that."""
        kept = self._held[-1:] if unused_bits else bytearray()
        self._given += self._held[: len(self._held) - len(kept)]
        self._held = kept
        self._first_bit = -unused_bits % 8

    def _close(self, unused_bits: int) -> None:
        """The last block is held: it becomes one of many, and an empty one follows it."""
        self._held[0] &= ~(1 << self._first_bit)
        self._held[-1] &= 0xFF >> unused_bits
        if unused_bits < 3:  # the three bits that a stored block begins with
            self._held.append(0)
        self._given += self._held + b"\0\0\xff\xff"
