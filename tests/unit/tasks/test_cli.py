"""The command line's own promises: positional names, exit codes, one paragraph for a failure."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from invoke.collection import Collection
from invoke.context import Context
from invoke.exceptions import ParseError
from invoke.parser import Parser
from invoke.parser.argument import Argument
from invoke.program import Program

import tasks
from slipway.core import DriftError, SlipwayError, interrupts
from slipway.tasks import cli, task_command, task_page
from slipway.tasks.cli import InvProgram, TaskParser
from slipway.tasks.commands import DocumentedTask

ROOT = Path(__file__).parents[3]

SEEN: list[object] = []


@task_command(positional=[], help={"names": "images"})
def build(c: Context, names: list[str], region: str = "", force: bool = False) -> None:
    """Record the arguments."""
    del c
    SEEN.append((list(names), region, force))


@task_command()
def fail(c: Context, kind: str = "plain") -> None:
    """Fail in an expected way."""
    del c
    if kind == "interrupt":
        raise KeyboardInterrupt
    error = DriftError if kind == "drift" else SlipwayError
    raise error("the disk is full", where="/data", cure="Free some space.")


def test_the_signatures_of_the_tasks_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    signatures = DocumentedTask.get_arguments

    def counted(task: DocumentedTask, ignore_unknown_help: bool | None = None) -> list[Argument]:
        read.append(task.name)
        return signatures(task, ignore_unknown_help)

    monkeypatch.setattr(DocumentedTask, "get_arguments", counted)
    assert run("build", "a", "fail") == 1
    assert sorted(read) == ["build", "fail"]
    assert SEEN == [(["a"], "", False)]


def run(*arguments: str) -> int:
    namespace = Collection(build, fail)
    namespace.configure({"slipway": {"jobs": 2}})
    program = InvProgram(namespace=namespace, name="Slipway", binary="inv")
    SEEN.clear()
    try:
        program.run(["inv", *arguments])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.mark.parametrize(
    ("arguments", "seen"),
    [
        (["build"], [([], "", False)]),
        (["build", "a", "b-*"], [(["a", "b-*"], "", False)]),
        (["build", "a", "--region", "us-west-2", "b"], [(["a", "b"], "us-west-2", False)]),
        (["build", "--region=eu-west-1", "a", "--force"], [(["a"], "eu-west-1", True)]),
        (["build", "--force", "a", "build", "b"], [(["a"], "", True), (["b"], "", False)]),
        (["build", "--names", "a", "b"], [(["a", "b"], "", False)]),
    ],
)
def test_image_names_are_plain_words_anywhere_after_the_task(
    arguments: list[str], seen: list[object]
) -> None:
    assert run(*arguments) == 0
    assert seen == SEEN


@pytest.mark.parametrize(
    "arguments", [["nothing-like-it"], ["build", "--no-such-flag"], ["fail", "a-word"]]
)
def test_wrong_usage_exits_with_3(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 3
    assert "inv --list" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("interrupt", "code"), [(KeyboardInterrupt, 130), (interrupts.Terminated, 143)]
)
def test_ctrl_c_before_a_task_has_begun_is_told_by_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, interrupt: type[KeyboardInterrupt], code: int
) -> None:
    def interrupted(self: InvProgram) -> None:
        raise interrupt

    monkeypatch.setattr(InvProgram, "load_collection", interrupted)
    monkeypatch.setattr(cli, "handle_signals", lambda: None)
    monkeypatch.setattr(sys, "argv", ["inv", "ship"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == code


def test_a_signal_while_the_program_begins_is_told_by_the_exit_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted() -> None:
        raise interrupts.HungUp

    monkeypatch.setattr(cli, "handle_signals", interrupted)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 129


def test_ctrl_c_while_it_is_imported_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "invoke").mkdir()
    (tmp_path / "invoke" / "__init__.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "slipway.tasks.cli"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        timeout=60,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert (done.returncode, done.stderr) == (-signal.SIGINT, b"")


def test_where_the_locale_has_another_encoding_it_runs_in_utf_8_all_the_same() -> None:
    script = "import os, sys; from slipway.tasks.cli import use_utf8; use_utf8()\n"
    script += "print(sys.getfilesystemencoding(), ascii(sys.argv[1]), os.environ['PYTHONUTF8'])"
    done = subprocess.run(
        [sys.executable, "-c", script, "stäte"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C", "PYTHONUTF8": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "utf-8 'st\\xe4te' 1\n"


def test_the_help_of_a_task_says_what_its_arguments_mean(
    capsys: pytest.CaptureFixture[str],
) -> None:
    @task_command(positional=[], help={"names": "images"})
    def fresh(c: Context, names: list[str]) -> None:
        """Do nothing."""

    with pytest.raises(SystemExit):
        InvProgram(namespace=Collection(fresh), name="Slipway", binary="inv").run(
            ["inv", "--help", "fresh"]
        )
    assert re.search(r"--names +images\n", capsys.readouterr().out)


def test_every_argument_of_every_task_says_what_it_means() -> None:
    contexts = tasks.ns.to_contexts()
    told = [(context.name, *row) for context in contexts for row in context.help_tuples()]
    assert len(told) > 60
    assert [row for row in told if not row[-1]] == []


def test_a_variable_that_is_no_number_is_wrong_usage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("INVOKE_SLIPWAY_JOBS", "3")
    assert run("build") == 0
    monkeypatch.setenv("INVOKE_SLIPWAY_JOBS", "many")
    assert run("build") == 3
    printed = capsys.readouterr().err
    assert "'many'" in printed
    assert "INVOKE_SLIPWAY_JOBS" in printed


@pytest.mark.parametrize(("kind", "code"), [("plain", 1), ("drift", 2), ("interrupt", 130)])
def test_an_expected_failure_is_one_paragraph_with_its_exit_code(
    kind: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("fail", "--kind", kind) == code
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    if kind != "interrupt":
        assert printed == "inv fail: /data: the disk is full\n  Free some space.\n"


def usage(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The complaint about words that make no command."""
    with pytest.raises(SystemExit) as ended:
        InvProgram(namespace=tasks.ns, name="Slipway", binary="inv").run(["inv", *words])
    assert ended.value.code == 3
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (["shp"], "did you mean ship?"),
        (["biuld", "local"], "did you mean build?"),
        (["storage.moev"], "storage.move"),
        (["slurm.scrpt"], "slurm.script"),
        (["storage"], "there are storage.move, storage.prune, storage.restore, storage.status"),
        (["ship", "--regoin", "us-west-2"], "did you mean --region?"),
        (["slurm.script", "local", "--node", "2"], "--nodes"),
        (["doctor", "--jsn"], "did you mean --json?"),
        (["--help", "shp"], "did you mean ship?"),
    ],
    ids=str,
)
def test_what_is_nearly_right_is_suggested(
    words: list[str], near: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert near in usage(capsys, *words)


def test_nonsense_suggests_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean" not in usage(capsys, "xyzzy")


@pytest.mark.parametrize("name", sorted(tasks.ns.task_names))
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_of_a_task_is_help_wherever_it_stands(
    name: str, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in ([name, flag], [flag, name]):
        with pytest.raises(SystemExit) as ended:
            InvProgram(namespace=tasks.ns, name="Slipway", binary="inv").run(["inv", *words])
        assert not ended.value.code
        assert f"[--core-opts] {name} " in capsys.readouterr().out


def test_a_short_flag_is_chosen_and_means_the_same_everywhere() -> None:
    meanings: dict[str, set[str]] = {}
    for context in tasks.ns.to_contexts():
        for argument in context.args.values():
            for short in argument.nicknames:
                meanings.setdefault(short, set()).add(argument.names[0])
    assert meanings == {"j": {"jobs"}, "o": {"output"}, "y": {"yes"}}
    core = InvProgram(name="Slipway", binary="inv").initial_context.flags
    assert {f"-{short}" for short in meanings} & set(core) == set()


WORDS = ("build", "fail", "make", "a", "--names", "--region", "--region=x", "--kind", "plain", "-f")


@settings(deadline=None)
@given(st.lists(st.sampled_from((*WORDS, "--", "--help", "nothing")), max_size=5))
def test_a_parser_of_the_tasks_that_are_named_understands_what_one_of_all_does(
    words: list[str],
) -> None:
    namespace = Collection()
    namespace.add_task(build, aliases=("make",))
    namespace.add_task(fail)

    def parsed(kind: type[Parser]) -> object:
        parser = kind(namespace.to_contexts(), Program().initial_context)
        try:
            result = parser.parse_argv(list(words))
        except ParseError as error:
            return str(error)
        arguments = [{n: a.value for n, a in task.args.items()} for task in result]
        return [task.name for task in result], arguments, result.remainder, result.unparsed

    assert parsed(TaskParser) == parsed(Parser)


def test_tasks_that_are_not_named_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    copied = []

    def copy(value: object) -> object:
        copied.append(value)
        return deepcopy(value)

    monkeypatch.setattr("invoke.parser.parser.copy.deepcopy", copy)
    parser = TaskParser(Collection(build, fail).to_contexts(), Program().initial_context)
    assert parser.parse_argv(["build", "--region", "x"])[1].args["region"].value == "x"
    assert not any("fail" in value for value in copied if isinstance(value, dict))
    assert set(parser.contexts) == {"build", "fail"}  # for help


def test_the_page_of_tasks_has_every_task_and_argument_and_is_what_is_committed() -> None:
    page = task_page(tasks.ns)
    for context in tasks.ns.to_contexts():
        assert f"\n## {context.name}\n" in page
        for flag in context.flags:
            assert flag == "--names" or f"`{flag}`" in page
    assert page == (ROOT / "docs" / "tasks.md").read_text()
