"""Compiled layers -> one squashfs image: merge the trees, number the inodes, copy the data.

Blocks are copied as they are, never decompressed; only tables are written anew."""

from __future__ import annotations
