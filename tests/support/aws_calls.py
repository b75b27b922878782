"""Every call to AWS that the product's code makes in the tests, held to the operator's policy.

At the moment of a call it has to be allowed; when a whole run of the unit tests has passed, all
that the policy allows has to have been called. What tests ask AWS themselves does not count: the
clients that matter are those that a module of Slipway makes.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterable
from functools import wraps
from pathlib import Path
from typing import Any

import boto3.session
import pytest

from tests.support.operator_actions import PROTOCOL_ACTIONS, actions_of, operator_actions

PLUGIN = "aws-calls"


class AwsCalls:
    """The calls of one run. `folder`: all of its tests together make every call."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: dict[str, str] = {}  # call -> the test that made it first
        self.whole = False
        self.result: list[str] = []
        self._test = "outside a test"
        self._forbidden: list[str] = []
        self._chosen = False  # some tests were left out, by -k or the like

    def hear(self, call: str) -> None:
        """A call is about to be made. Fails the test where nothing allows it."""
        self.made.setdefault(call, self._test)
        missing = sorted(actions_of(call) - operator_actions())
        if missing:
            self._forbidden.append(f"{call} needs {', '.join(missing)}")
            pytest.fail(self._forbidden[-1])

    def never_called(self) -> list[str]:
        """The actions that the policy allows, and that no call has needed."""
        needed = {action for call in self.made for action in actions_of(call)}
        return sorted(operator_actions() - needed - PROTOCOL_ACTIONS)

    # pytest's hooks

    def pytest_deselected(self, items: Iterable[pytest.Item]) -> None:
        self._chosen = self._chosen or any(self._ours(item.path) for item in items)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        config = session.config
        unrun = any(map(config.getoption, ("collectonly", "setuponly", "setupplan")))
        named = any("::" in word for word in config.args)
        collected = {item.path for item in session.items}
        every = collected >= {*self.folder.rglob("test_*.py")}
        self.whole = every and not (named or unrun or self._chosen)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, None, None]:
        self._test = item.nodeid
        yield from self._phase()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Generator[None, None, None]:
        yield from self._phase()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self) -> Generator[None, None, None]:
        yield from self._phase()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        never = self.never_called()
        if not self.whole:
            self.result = [f"{len(self.made)} made, all allowed; this was a part of the unit tests"]
        elif exitstatus:
            self.result = ["not compared with the policy: tests failed"]
        elif never:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
            self.result = [f"the operator's policy allows {a}, and no test needs it" for a in never]
        else:
            self.result = [f"{len(self.made)} made: all that the operator's policy allows"]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.made or self.whole:
            terminalreporter.section("calls to AWS")
            for line in self.result:
                terminalreporter.write_line(line)

    def _phase(self) -> Generator[None, None, None]:
        """A call in a thread, or in code that goes on after any error, fails its test as well."""
        try:
            yield
        finally:
            forbidden, self._forbidden = self._forbidden, []
        if forbidden:
            pytest.fail("; ".join(forbidden))

    def _ours(self, path: Path) -> bool:
        return path.is_relative_to(self.folder)


def record_calls(config: pytest.Config, folder: Path) -> None:
    """Begin to record, once for a run."""
    if config.pluginmanager.has_plugin(PLUGIN):
        return
    calls = AwsCalls(folder)
    config.pluginmanager.register(calls, PLUGIN)
    make = boto3.session.Session.client

    def hear(model: Any, **_: Any) -> None:
        calls.hear(f"{model.service_model.service_name}:{model.name}")

    @wraps(make)
    def client(session: Any, *words: Any, **options: Any) -> Any:
        made = make(session, *words, **options)
        if sys._getframe(1).f_globals["__name__"].startswith("slipway."):
            made.meta.events.register("before-parameter-build", hear)
        return made

    boto3.session.Session.client = client  # type: ignore[method-assign, assignment]
    config.add_cleanup(lambda: setattr(boto3.session.Session, "client", make))
