"""A build's log file, whose own troubles are told as such and not as the daemon's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from slipway.engine.disk import is_full
from slipway.engine.errors import DiskFullError, EngineError


class BuildLog:
    """The file at `path`, written anew. Every method raises EngineError, or DiskFullError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("w", encoding="utf-8")

    def write(self, text: str) -> None:
        """Add text; it is on disk after `flush`."""
        with self._errors():
            self._file.write(text)

    def flush(self) -> None:
        """Hand everything to the operating system, so that `tail -f` shows it."""
        with self._errors():
            self._file.flush()

    def __enter__(self) -> BuildLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._errors():
            self._file.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = str(self._path)
            if is_full(str(error)):
                raise DiskFullError(
                    "no space left for the build's log",
                    where=where,
                    cure="Make room on that disk, or set SLIPWAY_STATE to a larger one.",
                ) from error
            raise EngineError(
                f"the build's log cannot be written: {error.strerror}", where=where
            ) from error
