"""One directory's listing, in runs of names that share an inode block, and its index.

A listing is a list of runs. A run has a head (how many names, the metadata block where their
inodes begin, a base inode number) and up to 256 names, each with its inode's offset in that block
and its number as a signed difference of 16 bits from the base. So a new run begins where the next
name's inode lies in another block, where its number is too far away, and at 256 names.

The kernel finds a name by reading the listing from its start, which for a large directory means
unpacking many metadata blocks of 8 KiB. The index of an extended directory inode spares that: for
each further block that the listing reaches into, it says where in the listing the first run of
that block begins, where on disk the block is, and the run's first name. Names are sorted, so the
kernel takes the last index entry that is not above the name it looks for, and reads from there.
For that a run must not begin in one block and reach far into the next: runs end at 8 KiB, too.
"""

from __future__ import annotations

from slipway.squashfs.format import (
    DIR_ENTRY,
    DIR_HEADER,
    DIR_INDEX,
    DIRECTORY_RUN,
    METADATA_SIZE,
    MetadataWriter,
)


class DirectoryWriter:
    """Collects a directory's names, in order, and writes them at the end."""

    def __init__(self, directories: MetadataWriter) -> None:
        self._out = directories
        self._written: list[bytes] = []  # finished runs
        self._length = 0
        self._run: list[bytes] = []
        self._run_length = 0
        self._block = self._base = 0
        self._firsts: list[tuple[int, bytes]] = []  # where runs begin, and their first names
        self._first = b""

    def add(self, name: bytes, reference: int, number: int, kind: int) -> None:
        """Append a name: its inode's reference and number, its basic type."""
        block, offset = reference >> 16, reference & 0xFFFF
        size = len(name)
        difference = number - self._base
        run = self._run
        if (
            not run
            or block != self._block
            or len(run) == DIRECTORY_RUN
            or not -32768 < difference < 32768
            or self._run_length + 8 + size > METADATA_SIZE
        ):
            self._close()
            run = self._run
            self._block, self._base, self._first = block, number, name
            difference = 0
        run.append(DIR_ENTRY.pack(offset, difference, kind, size - 1) + name)
        self._run_length += 8 + size

    def _close(self) -> None:
        if self._run:
            self._firsts.append((self._length, self._first))
            self._written.append(DIR_HEADER.pack(len(self._run) - 1, self._block, self._base))
            self._written += self._run
            self._length += DIR_HEADER.size + self._run_length
            self._run = []
            self._run_length = 0

    def finish(self) -> tuple[int, int, int, list[bytes]]:
        """Write. Returns block, offset in it and length of the listing, and its index entries.

        The index has one entry for each metadata block that the listing reaches into, so that the
        kernel need not read all of a large directory to find one name.
        """
        self._close()
        block, offset = self._out.position()
        before = len(self._out.starts) - 1
        self._out.write(b"".join(self._written))
        index = []
        last = 0
        for position, name in self._firsts:
            reached = (offset + position) // METADATA_SIZE
            if reached > last:
                last = reached
                start = self._out.starts[before + reached]
                index.append(DIR_INDEX.pack(position, start, len(name) - 1) + name)
        return block, offset, self._length, index
