"""The `launch` command: parse, call, print."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from launcher import __version__, events
from launcher import context as contexts
from launcher import events as failure
from launcher.causes import OK, LaunchError, LaunchUsageError
from launcher.context import LOCAL, SAGEMAKER, SLURM
from launcher.option_table import OPTIONS
from launcher.options import parse_flags, resolve_options
from launcher.platforms import decode_hyperparameters, find_ml_dir, read_json, with_image_path

if TYPE_CHECKING:
    from launcher.plan import Plan

Command = Callable[[Sequence[str], Mapping[str, str]], int]

USAGE_TEXT = """\
usage: launch COMMAND [OPTIONS] [-- SCRIPT ARGS...]

  sagemaker   start training in a SageMaker job (SCRIPT may come from the hyperparameters)
  slurm       start training in a Slurm step with one task per node
  local       start training on this machine, or on the nodes of --hosts
  toolkit     run sagemaker-training's `train`, with signals passed on
  preflight   check this node (or, with --preflight full, all nodes) and print a table
  prefetch    S3 DIR: fetch a prefix once per node, verified
  fetch       URI --to DIR: bring a .sqsh to this node, piece by piece (fetch --help)
  upload      DIR S3: upload a directory, verified
  verify      DIR S3 or S3 DIR: compare sizes; anything missing is printed
  once-per-node -- CMD: of all ranks on a node one runs it, the others wait for its result
  stacks      [JOB]: print where every rank on this machine stands now; harms nothing
  topology    print the nodes of this job and which one this is
  plan        print what would be started here, and why; starts nothing
  help        this text

options (a flag --name, else the variable LAUNCH_NAME, else the hyperparameter launch_name):
"""


def main(argv: Sequence[str]) -> int:
    """Run one command; its exit code."""
    command, *words = argv or ["help"]
    # Whatever PATH this was started with: the ranks', and that of everything started from here.
    os.environ.update(with_image_path(os.environ))
    try:
        return _dispatch(command, words, os.environ)
    except LaunchError as error:
        print(f"launch: {error.cause.headline()}", file=sys.stderr)
        if (
            command in ("train", SAGEMAKER, "toolkit")
            and contexts.detect_platform(os.environ) == SAGEMAKER
        ):
            failure.write_failure(find_ml_dir(os.environ).failure, error.cause)
        return error.code


def _dispatch(command: str, words: Sequence[str], env: Mapping[str, str]) -> int:
    if command in ("help", "--help", "-h"):
        print(help_text())
        return OK
    if command in ("version", "--version"):
        print(__version__)
        return OK
    if command in (SAGEMAKER, SLURM, LOCAL):
        return _job(command, words, env)
    if command in COMMANDS:
        return COMMANDS[command](words, env)
    raise LaunchUsageError(f"unknown command {command!r}; `launch help` lists them")


def help_text() -> str:
    """Usage, with every option."""
    rows = []
    for option in OPTIONS:
        default = f" [{option.default}]" if option.default else ""
        rows.append(f"  --{option.name:20} {option.help}{default}")
    return USAGE_TEXT + "\n".join(rows)


def _job(platform: str, words: Sequence[str], env: Mapping[str, str]) -> int:
    from launcher import init, plan
    from launcher.main_job import MainJob

    flags, script = parse_flags(words)
    context = contexts.gather_context(platform, flags, script, env)
    if context.settings.text("runner") == "toolkit":
        return _toolkit(words, env)
    made = plan.plan_launch(context)
    if context.settings.on("dry-run"):
        return _print_plan(made)
    if context.pool is not None:
        from launcher.spares import PoolNode

        return init.run_as_init(lambda: PoolNode(made, [platform, *words]).run())
    return init.run_as_init(lambda: MainJob(made).run())


def _train(words: Sequence[str], env: Mapping[str, str]) -> int:
    """SageMaker's `train` argument, as entrypoint.sh passes it on."""
    from launcher import toolkit

    hyperparameters = decode_hyperparameters(
        read_json(find_ml_dir(env).config / "hyperparameters.json")
    )
    if toolkit.toolkit_wanted(env, hyperparameters):
        return _toolkit(words, env)
    return _job(SAGEMAKER, words, env)


def _toolkit(words: Sequence[str], env: Mapping[str, str]) -> int:
    from launcher import init, toolkit

    flags, script = parse_flags(words)
    if script:
        raise LaunchUsageError(
            "launch toolkit takes the script from the job, not from the command line"
        )
    ml = find_ml_dir(env)
    hyperparameters = decode_hyperparameters(read_json(ml.config / "hyperparameters.json"))
    settings = resolve_options(flags, env, hyperparameters)
    return init.run_as_init(
        lambda: _guarded(lambda: toolkit.run_toolkit(env, settings, ml, hyperparameters))
    )


def _guarded(run: Callable[[], int]) -> int:
    """Below init, an expected failure still has to become the failure file and a code."""
    try:
        return run()
    except LaunchError as error:
        events.emit("failed", code=error.code, cause=error.cause.headline())
        failure.write_failure(find_ml_dir(os.environ).failure, error.cause)
        return error.code


def _topology(words: Sequence[str], env: Mapping[str, str]) -> int:
    from launcher import plan as show

    context = contexts.gather_context(contexts.detect_platform(env), *parse_flags(words), env)
    data = show.topology_json(context)
    if context.settings.on("json"):
        print(json.dumps(data))
    else:
        for name, value in data.items():
            print(f"{name:14} {' '.join(value) if isinstance(value, list) else value}")
    return OK


def _plan(words: Sequence[str], env: Mapping[str, str]) -> int:
    from launcher import plan

    platform = contexts.detect_platform(env)
    if words and words[0] in (SAGEMAKER, SLURM, LOCAL):
        platform, words = words[0], words[1:]
    return _print_plan(
        plan.plan_launch(contexts.gather_context(platform, *parse_flags(words), env))
    )


def _print_plan(made: Plan) -> int:
    from launcher import plan as show

    text = json.dumps(show.plan_json(made), indent=2)
    print(text if made.context.settings.on("json") else show.plan_text(made))
    return OK


def _preflight(words: Sequence[str], env: Mapping[str, str]) -> int:
    from launcher import commands

    return commands.preflight_here(*parse_flags(words), env)


def _transfer(name: str) -> Command:
    def run(words: Sequence[str], env: Mapping[str, str]) -> int:
        from launcher import commands

        flags, given = parse_flags(words, words=2)
        if len(given) != 2:
            raise LaunchUsageError(f"launch {name} takes a source and a destination")
        settings = resolve_options(flags, env, {})
        return commands.TRANSFERS[name](given[0], given[1], settings, env)

    return run


def _once(words: Sequence[str], env: Mapping[str, str]) -> int:
    from launcher import commands as once

    return once.run_once_per_node(parse_flags(words)[1], env)


def _fetch(words: Sequence[str], env: Mapping[str, str]) -> int:
    from launcher.fetch import run_fetch

    return run_fetch(words, env)


def _stacks(words: Sequence[str], env: Mapping[str, str]) -> int:
    from launcher.ranks import print_stacks

    return print_stacks(words, env)


COMMANDS: dict[str, Command] = {
    "fetch": _fetch,
    "stacks": _stacks,
    "train": _train,
    "toolkit": _toolkit,
    "topology": _topology,
    "plan": _plan,
    "preflight": _preflight,
    "prefetch": _transfer("prefetch"),
    "upload": _transfer("upload"),
    "verify": _transfer("verify"),
    "once-per-node": _once,
}
