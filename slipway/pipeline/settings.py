"""Configuration, environment and flags -> the settings of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slipway.core import UsageError, did_you_mean
from slipway.matrix import region_suffixes
from slipway.squashfs import SqshOptions


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
    soci: bool
    sharing: PullPermissions

    @property
    def required_region(self) -> str:
        """The region, for what has none of its own. Raises UsageError."""
        if self.region is None:
            raise UsageError("--region is missing", cure="Give it, or set slipway.region.")
        return self.region

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
            soci=_yes(values["soci"], "soci"),
            sharing=PullPermissions(
                tuple(str(values["consumers"]).split()),
                sagemaker=_yes(values["sagemaker_pulls"], "sagemaker_pulls"),
            ),
        )


def _yes(value: object, key: str) -> bool:
    """A word of a variable, or a truth value of a file: invoke takes INVOKE_X=false for true."""
    known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    truth = known.get(str(value).lower())
    if truth is None:
        raise UsageError(f"{key} is {value!r}", cure="It is yes or no.")
    return truth


@dataclass(frozen=True)
class PullPermissions:
    """Who else may pull from repositories that a push makes."""

    consumers: tuple[str, ...] = ()  # AWS accounts
    sagemaker: bool = False  # the SageMaker service itself


@dataclass(frozen=True)
class ShipRequest:
    """Which stages to do, and how.

    `only` chooses checks by name; `force` overwrites a .sqsh of another build or other options.
    `no_engine`: without an engine; `base_from` then says where the base is, where not in its own
    registry.
    """

    stages: tuple[str, ...]
    unlocked: bool = False
    force: bool = False
    only: str = ""
    as_json: bool = False
    no_engine: bool = False
    base_from: str = ""
