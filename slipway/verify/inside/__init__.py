"""Scripts that run inside an image with its own Python (3.9 or newer), standard library only."""

from __future__ import annotations
