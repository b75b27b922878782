"""Where pip puts the parts of a wheel for one interpreter of a base, known without running it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

from slipway.core import SlipwayError

_SHEBANG_MAX = 127 - len("#!") - len("\n")
"""Bytes of a path that the kernel reads in a script; pip writes a shell script for longer ones."""

# Whose site-packages lie elsewhere: Debian's is dist-packages.
_DISTRIBUTION = PurePosixPath("/usr")
_PLAIN = (PurePosixPath("/usr/local"), PurePosixPath("/opt/conda"))


@dataclass(frozen=True)
class PythonLayout:
    """The folders of an interpreter, as `pip install` uses them. Paths begin with a slash.

    `python` is "3.12". An interpreter outside of the prefixes of conda and of Python's own
    `make install` is a virtual environment's, which keeps headers in a folder of its own.
    """

    interpreter: str
    python: str

    def __post_init__(self) -> None:
        """Refuse an interpreter whose folders do not follow from its path."""
        path = PurePosixPath(self.interpreter)
        usable = path.is_absolute() and path.parent.name == "bin" and ".." not in path.parts
        plain = re.fullmatch(r"[A-Za-z0-9_./+-]+", self.interpreter)
        if not usable or not plain or len(self.interpreter) > _SHEBANG_MAX:
            raise SlipwayError(f"{self.interpreter} is not an interpreter in a folder bin")
        if self.prefix == _DISTRIBUTION:
            raise SlipwayError(
                f"{self.interpreter} belongs to the distribution: where its packages go does not "
                "follow from its path"
            )

    @cached_property
    def prefix(self) -> PurePosixPath:
        """What all else lies below."""
        return PurePosixPath(self.interpreter).parent.parent

    @cached_property
    def site_packages(self) -> PurePosixPath:
        """Where the root of a wheel goes."""
        return self.prefix / "lib" / f"python{self.python}" / "site-packages"

    def scheme(self, distribution: str) -> dict[str, PurePosixPath]:
        """Where the folders of a wheel's `.data` go (pip: _internal/locations/_sysconfig.py)."""
        include = self.prefix / "include"
        if self.prefix not in _PLAIN:
            include /= "site"
        return {
            "purelib": self.site_packages,
            "platlib": self.site_packages,
            "scripts": self.prefix / "bin",
            "data": self.prefix,
            "headers": include / f"python{self.python}" / distribution,
        }
