"""The daemon whose data is moved: which one is meant, its last move, and its lock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from slipway.core import Project, exclusive
from slipway.engine import daemon_status
from slipway.storage.docker import choose_daemon
from slipway.storage.machine import Machine
from slipway.storage.move.journal import MoveJournal, move_lock_path, read_journal


@dataclass(frozen=True)
class DockerDaemon:
    """One daemon of one machine, as a checkout sees it."""

    project: Project
    machine: Machine
    url: str  # "embedded" for the embedded engine

    @classmethod
    def of(cls, project: Project, machine: Machine, engine: str) -> DockerDaemon:
        """The daemon that the settings name.

        With "auto", a system Docker whose move was cut off is the one meant, though it is down.
        """
        url = choose_daemon(engine, machine)
        if engine == "auto" and url == "embedded":
            last = read_journal(machine, machine.docker_url)
            if last is not None and not last.over:
                url = machine.docker_url
        return cls(project, machine, url)

    @property
    def journal_url(self) -> str:
        """The URL that the daemon's journal goes by."""
        return daemon_status(self.project).url if self.url == "embedded" else self.url

    def has_kept(self) -> bool:
        """Whether earlier moves left data behind."""
        journal = self.journal()
        return journal is not None and bool(journal.kept)

    def journal(self) -> MoveJournal | None:
        """The daemon's last move."""
        return read_journal(self.machine, self.journal_url)

    @contextmanager
    def locked(self, doing: str) -> Iterator[None]:
        """Nobody else moves this daemon's data, and no task of this checkout uses it."""
        with (
            exclusive(move_lock_path(self.machine, self.journal_url), doing),
            exclusive(self.project.state / "lock", doing),
        ):
            yield
