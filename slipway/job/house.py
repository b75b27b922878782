"""From configuration to values: what every task starts with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from slipway import records
from slipway.buildid import Inputs, inputs, shared
from slipway.engine.client import connect
from slipway.errors import UsageError
from slipway.job.build import Workshop
from slipway.job.finish import Sharing
from slipway.lock.files import load_locks
from slipway.lock.local_base import local_base_id
from slipway.lock.model import Locks
from slipway.matrix.load import load
from slipway.matrix.model import Image, Matrix
from slipway.matrix.uri import did_you_mean, region_suffixes
from slipway.paths import Project
from slipway.plan import Step, plan
from slipway.registry import ecr, local
from slipway.registry.model import Target
from slipway.report.console import Reporter
from slipway.sqsh.options import SqshOptions


@dataclass(frozen=True)
class Settings:
    """invoke.yaml, INVOKE_SLIPWAY_* and flags, merged."""

    engine: str
    region: str | None
    target: str
    jobs: int
    sqsh_dir: Path | None
    sqsh_options: SqshOptions
    sqsh_cache: int  # bytes
    registry_port: int
    sharing: Sharing

    @classmethod
    def of(cls, config: Any, **flags: Any) -> Settings:
        """Flags win where they were given; raises UsageError for values that mean nothing."""
        values = {key: flags.get(key) or config.slipway[key] for key in config.slipway}
        if values["target"] not in ("local", "ecr"):
            raise UsageError(
                f"target {values['target']!r} is not known", cure="Use --target local or ecr."
            )
        region = values["region"] or None
        if region and region not in region_suffixes():
            raise UsageError(
                f"AWS has no region {region!r}{did_you_mean(region, region_suffixes())}",
                cure="Give another --region, or correct slipway.region.",
            )
        try:
            jobs, port = int(values["jobs"]), int(values["registry_port"])
            cache = int(values["sqsh_cache_gb"])
        except ValueError as error:
            raise UsageError(
                f"jobs, registry_port and sqsh_cache_gb are numbers: {error}"
            ) from error
        if cache < 0:
            raise UsageError(f"sqsh_cache_gb is {cache}", cure="0 keeps nothing; 50 is usual.")
        return cls(
            engine=values["engine"],
            region=region,
            target=values["target"],
            jobs=jobs,
            sqsh_dir=Path(values["sqsh_dir"]).absolute() if values["sqsh_dir"] else None,
            sqsh_options=SqshOptions.parse(values["sqsh_compression"]),
            sqsh_cache=cache * 10**9,
            registry_port=port,
            sharing=Sharing(
                tuple(str(values["consumers"]).split()),
                sagemaker=_yes(values["sagemaker_pulls"], "sagemaker_pulls"),
            ),
        )


def _yes(value: object, key: str) -> bool:
    """A word of a variable, or a truth value of a file: invoke takes INVOKE_X=false for true."""
    known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    found = known.get(str(value).lower())
    if found is None:
        raise UsageError(f"{key} is {value!r}", cure="It is yes or no.")
    return found


@dataclass(frozen=True)
class House:
    """The checkout with all that is pure loaded: enough to plan, not to build."""

    project: Project
    matrix: Matrix
    locks: Locks

    @classmethod
    def at(cls, root: Path) -> House:
        """Load versions.yaml and images/lock; raises BadInputError with every error found."""
        project = Project.at(root)
        return cls(project, load(project.versions), load_locks(project))

    def inputs(self, images: Sequence[Image]) -> dict[str, Inputs]:
        """What decides the content of each image."""
        common = shared(self.project)
        tools = tuple(self.matrix.tools.values())
        own = {i.base.name: i.base for i in images if i.base.registry is None}
        local_ids = {name: local_base_id(self.project, base) for name, base in own.items()}
        return {
            image.name: inputs(
                self.project, image, self.locks, tools, common, local_ids.get(image.base.name)
            )
            for image in images
        }

    def plan(
        self, images: Sequence[Image], decided: Mapping[str, Inputs], today: date
    ) -> tuple[Step, ...]:
        """One step an image."""
        made = {image.name: records.load(self.project, image.name) for image in images}
        return plan(images, decided, made, self.locks.bases, today)


def target_of(house: House, settings: Settings) -> Target:
    """The registry to push to; the local one is started when it does not run."""
    if settings.target == "local":
        return local.up(house.project, settings.registry_port)
    if settings.region is None:
        raise UsageError(
            "a push to ECR needs a region", cure="Give --region, or set slipway.region."
        )
    return ecr.ecr_target(settings.region)


@contextlib.contextmanager
def workshop(
    house: House, settings: Settings, target: Target | None = None
) -> Iterator[tuple[Workshop, Reporter]]:
    """An engine, and progress on the terminal, for as long as the block runs."""
    engine = connect(house.project, settings.engine)
    try:
        with Reporter() as reporter:
            yield (
                Workshop(
                    project=house.project,
                    matrix=house.matrix,
                    locks=house.locks,
                    engine=engine,
                    region=settings.region,
                    credentials=ecr.credentials_for([target] if target else []),
                    on_event=reporter.on_event,
                ),
                reporter,
            )
    finally:
        engine.close()
