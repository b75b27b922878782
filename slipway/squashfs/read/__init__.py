"""Squashfs images as they are: entries, contents, checks, and what differs between two."""

from __future__ import annotations
