"""testinfra on the docker SDK: its own docker backend needs a docker binary (`docker exec`)."""

from __future__ import annotations

from typing import Any

# testinfra has no py.typed marker.
from testinfra.backend.base import BaseBackend, CommandResult  # type: ignore[import-untyped]

from slipway.engine.client import Engine
from slipway.verify.containers import execute


class SdkBackend(BaseBackend):  # type: ignore[misc]
    """Runs testinfra's commands in a running container; like `docker exec`, without ENTRYPOINT."""

    NAME = "slipway"

    def __init__(self, engine: Engine, container: str, *, user: str = "") -> None:
        super().__init__(container[:12])
        self._engine = engine
        self._container = container
        self._user = user

    def get_encoding(self) -> str:
        """UTF-8: testinfra would ask a python3 in the container for its locale."""
        return "utf-8"

    def run(self, command: str, *args: str, **kwargs: Any) -> CommandResult:
        """Run a shell command; `args` replace its %s, each as one word."""
        del kwargs
        line = self.get_command(command, *args)
        done = execute(self._engine, self._container, ["/bin/sh", "-c", line], user=self._user)
        return self.result(done.exit_code, self.encode(line), done.stdout, done.stderr)

    def run_words(self, *words: str) -> CommandResult:
        """Run a command without any shell, its words as they are."""
        done = execute(self._engine, self._container, words, user=self._user)
        line = self.encode(" ".join(words))
        return self.result(done.exit_code, line, done.stdout, done.stderr)
