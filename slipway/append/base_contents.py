"""What of a base has to be known to install onto it: packages, their files, links on the way."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from slipway.append.python_layout import PythonLayout
from slipway.core import OnEvent
from slipway.inventory import (
    FOLDER,
    LINK,
    LayeredImage,
    LayerNotes,
    MetadataFiles,
    PythonDistribution,
    check_environment,
    distributions_in,
    read_metadata_files,
)

_PACKAGES_FORMAT = "1"


@dataclass(frozen=True)
class BaseContents:
    """The base as its layers leave it.

    `kinds` has all paths below the interpreter's prefix, and folders and links everywhere.
    """

    distributions: Mapping[str, PythonDistribution]  # by canonical name
    kinds: Mapping[str, str] = field(repr=False)

    @property
    def versions(self) -> dict[str, str]:
        """Canonical name -> version."""
        return {name: distribution.version for name, distribution in self.distributions.items()}


def read_base_contents(
    base: LayeredImage, layout: PythonLayout, notes: LayerNotes, on_event: OnEvent
) -> BaseContents:
    """What the layers of `base` hold. Those without a note are streamed.

    Raises SlipwayError, LayerError, RegistryError.
    """
    files = read_metadata_files(base, notes, on_event)
    below = f"{str(layout.prefix)[1:]}/"
    return BaseContents(
        _distributions(files, layout),
        {
            path: kind
            for path, kind in files.kinds.items()
            if kind in (FOLDER, LINK) or path.startswith(below)
        },
    )


def packages_of_base(
    base: LayeredImage, interpreter: str, python: str, notes: LayerNotes, on_event: OnEvent
) -> dict[str, str]:
    """The Python distributions of a base, name -> version; see `read_base_contents`.

    They are noted by the base's digest: each build on it asks for them.
    """

    def read() -> dict[str, str]:
        files = read_metadata_files(base, notes, on_event)
        found = _distributions(files, PythonLayout(interpreter, python))
        return {name: distribution.version for name, distribution in found.items()}

    counted = json.dumps([_PACKAGES_FORMAT, base.manifest.digest, interpreter, python])
    key = hashlib.sha256(counted.encode()).hexdigest()
    return notes.make(f"packages-{key}.json.gz", read)


def _distributions(files: MetadataFiles, layout: PythonLayout) -> dict[str, PythonDistribution]:
    """By canonical name. Raises SlipwayError where they are not all of the interpreter's own."""
    check_environment(files.texts, layout.prefix)
    return distributions_in(files.texts, [str(layout.site_packages)[1:]])
