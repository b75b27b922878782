"""Where things are: the project's committed files, and what Slipway keeps beside them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from slipway.core.errors import UsageError
from slipway.core.sharing import LEASE_S, SharedParts


@dataclass(frozen=True)
class Project:
    """One checkout. `root` holds versions.yaml; `state` holds everything that is not committed.

    `shared`: what other machines have made and may be copied, and where ours is copied to.
    """

    root: Path
    state: Path
    shared: SharedParts | None = None

    @classmethod
    def at(cls, root: Path) -> Project:
        """The project at `root`; SLIPWAY_STATE moves the state folder (say, to a larger disk).

        SLIPWAY_SHARED is a folder that several machines share their wheels and layers through, and
        SLIPWAY_LEASE_S after how many seconds of silence one of them counts as dead.
        """
        state, shared = os.environ.get("SLIPWAY_STATE"), os.environ.get("SLIPWAY_SHARED")
        return cls(
            root.resolve(),
            Path(state).resolve() if state else root.resolve() / ".slipway",
            SharedParts(Path(shared).resolve(), lease_seconds()) if shared else None,
        )

    @property
    def versions(self) -> Path:
        """The one hand-edited source of versions."""
        return self.root / "versions.yaml"

    @property
    def templates(self) -> Path:
        """Dockerfile fragments (Jinja2)."""
        return self.root / "images" / "templates"

    @property
    def generated(self) -> Path:
        """Rendered Dockerfiles, committed, one folder an image."""
        return self.root / "images" / "generated"

    @property
    def local_base(self) -> Path:
        """The recipe of the embedded default base."""
        return self.root / "images" / "local"

    @property
    def locks(self) -> Path:
        """What `inv lock` records: base digests, Python requirements, tools."""
        return self.root / "images" / "lock"

    @property
    def launcher(self) -> Path:
        """The launcher that is baked into every image."""
        return self.root / "entrypoints"

    @property
    def installer(self) -> Path:
        """The script that installs Python add-ons inside a build."""
        return self.root / "images" / "context" / "install_addons.py"

    @property
    def bytecode_compiler(self) -> Path:
        """The script that compiles the modules of Python add-ons inside a build."""
        return self.installer.with_name("compile_bytecode.py")

    @property
    def system_installer(self) -> Path:
        """The script that installs packages of the distribution inside a build."""
        return self.installer.with_name("install_packages.sh")

    @property
    def keys(self) -> Path:
        """Keyrings of package archives that the repository itself has."""
        return self.root / "images" / "keys"

    @property
    def source_builder(self) -> Path:
        """What runs the script of a `source` add-on inside a build."""
        return self.installer.with_name("build_source.sh")

    @property
    def image_tests(self) -> Path:
        """Checks that run inside a container of an image."""
        return self.root / "tests" / "image"

    @property
    def cache(self) -> Path:
        """Things that can be fetched or made again: wheels, root file systems, s5cmd."""
        return self.state / "cache"

    @property
    def packed(self) -> Path:
        """Layers of an engine's images, compressed."""
        return self.cache / "packed"

    @property
    def uploads(self) -> Path:
        """How far uploads to registries have come that were ended."""
        return self.cache / "uploads"

    @property
    def logs(self) -> Path:
        """One log file for each piece of long work."""
        return self.state / "logs"

    @property
    def records(self) -> Path:
        """What was made, one JSON file an image: build, verify, sqsh and push records."""
        return self.state / "images"

    @property
    def runs(self) -> Path:
        """How runs went, one file a run: times of steps, cached or not, bytes."""
        return self.state / "runs"

    @property
    def layer_records(self) -> Path:
        """Layers and configuration of what was built, one JSON file an image."""
        return self.state / "layers"

    @property
    def report(self) -> Path:
        """Default folder of the pages that `inv report` writes."""
        return self.state / "report"

    @property
    def engine(self) -> Path:
        """The embedded engine's own files."""
        return self.state / "engine"

    @property
    def registry(self) -> Path:
        """The loopback registry's own files."""
        return self.state / "registry"

    @property
    def sqsh(self) -> Path:
        """Default folder of exported .sqsh files."""
        return self.state / "sqsh"

    @property
    def layouts(self) -> Path:
        """OCI layouts of images that were made without an engine, one folder an image."""
        return self.state / "layouts"

    @property
    def slurm_jobs(self) -> Path:
        """What was noted of Slurm jobs that were submitted from here, one JSON file a job."""
        return self.state / "slurm-jobs"


def lease_seconds() -> float:
    """How long a silent machine counts as alive, the same for all that share a folder."""
    text = os.environ.get("SLIPWAY_LEASE_S", "") or str(LEASE_S)
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= 86400:
        raise UsageError(f"SLIPWAY_LEASE_S is {text!r}", cure="Seconds, from 1 to 86400; 60.")
    return seconds
