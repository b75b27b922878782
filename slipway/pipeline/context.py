"""What the stages share while they work: an engine, the locks, and who is told."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from slipway import engine, registry
from slipway.core import CredentialsFor, OnEvent, Project, Reporter, UsageError, silent
from slipway.matrix import Matrix
from slipway.pipeline.checkout import Checkout
from slipway.pipeline.settings import Settings
from slipway.records import Locks

if TYPE_CHECKING:
    from slipway.engine import Engine
    from slipway.registry import Target


@dataclass(frozen=True)
class PipelineContext:
    """What the steps need: the checkout, the matrix, the locks, an engine, and who to tell.

    `region` says where bases come from (None: their public mirror); `cancel` ends builds early.
    """

    project: Project
    matrix: Matrix
    locks: Locks
    engine: Engine
    region: str | None
    credentials: CredentialsFor
    on_event: OnEvent
    target: Target | None = None
    cancel: threading.Event = field(default_factory=threading.Event)

    @property
    def checkout(self) -> Checkout:
        """What is pure of it."""
        return Checkout(self.project, self.matrix, self.locks)


def push_target(checkout: Checkout, settings: Settings) -> Target:
    """The registry to push to; the local one is started when it does not run."""
    if settings.target == "local":
        return registry.start_local_registry(checkout.project, settings.registry_port)
    if settings.region is None:
        raise UsageError(
            "a push to ECR needs a region", cure="Give --region, or set slipway.region."
        )
    return registry.find_ecr_target(settings.region)


@contextlib.contextmanager
def pipeline_context(
    checkout: Checkout, settings: Settings, *, push: bool, record: OnEvent = silent
) -> Iterator[tuple[PipelineContext, Reporter]]:
    """An engine, where to push to, and progress on the terminal, for as long as the block runs.

    `record` hears of everything that the terminal shows.
    The engine comes first: without one, no registry is started.
    """
    running = engine.connect(checkout.project, settings.engine)
    try:
        target = push_target(checkout, settings) if push else None
        with Reporter(record) as reporter:
            yield (
                PipelineContext(
                    project=checkout.project,
                    matrix=checkout.matrix,
                    locks=checkout.locks,
                    engine=running,
                    region=settings.region,
                    credentials=registry.credentials_for(
                        [target] if target else [], checkout.project
                    ),
                    on_event=reporter.on_event,
                    target=target,
                ),
                reporter,
            )
    finally:
        running.close()
