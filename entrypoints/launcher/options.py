"""Options: flag > LAUNCH_* variable > hyperparameter launch_* > default, each with its source."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from launcher.causes import UsageError

ENV_PREFIX = "LAUNCH_"
HYPER_PREFIX = "launch_"

#: Set by the launcher for the training script; never read as options. A rank that starts
#: `launch once-per-node` or `launch upload` carries them.
EXPORTED = frozenset(
    {"LAUNCH_ATTEMPT", "LAUNCH_BACKEND", "LAUNCH_JOB_ID", "LAUNCH_RESUME_FROM", "LAUNCH_SCRATCH"}
)


@dataclass(frozen=True)
class Option:
    """One option. `many` may be repeated (in a variable: separated by white space)."""

    name: str
    default: str
    help: str
    flag: bool = False
    many: bool = False
    choices: tuple[str, ...] = ()
    number: bool = False

    @property
    def env(self) -> str:
        """Its environment variable."""
        return ENV_PREFIX + self.name.upper().replace("-", "_")

    @property
    def hyper(self) -> str:
        """Its hyperparameter."""
        return HYPER_PREFIX + self.name.replace("-", "_")


OPTIONS = (
    Option(
        "runner",
        "auto",
        "how ranks start: torchrun, deepspeed (--no_ssh) or plain python; "
        "auto is python for .sh scripts, else torchrun; toolkit hands over to "
        "sagemaker-training",
        choices=("auto", "torchrun", "deepspeed", "python", "toolkit"),
    ),
    Option("script", "", "the training script, where it is not on the command line"),
    Option("nproc", "auto", "processes per node; auto: one per GPU (python runner: one)"),
    Option(
        "port",
        "29500",
        "rank 0's rendezvous port (several nodes); one node uses a free port",
        number=True,
    ),
    Option("gate-port", "29499", "port on which the launchers of all nodes meet", number=True),
    Option("hosts", "", "local only: the nodes' names or addresses, separated by commas"),
    Option("node-rank", "0", "local only: this node's place in --hosts", number=True),
    Option("job", "", "job name where the platform gives none"),
    Option("max-restarts", "0", "torchrun's own restarts of failed ranks", number=True),
    Option(
        "grace",
        "100",
        "seconds that ranks get between SIGTERM and SIGKILL (SageMaker: of 120)",
        number=True,
    ),
    Option("dns-wait", "900", "seconds to wait for the other nodes to appear", number=True),
    Option("log-dir", "", "where each rank's output is kept; default: under the job's local dir"),
    Option(
        "prefetch",
        "",
        "S3=DIR: fetch this prefix once per node before ranks start; repeatable",
        many=True,
    ),
    Option("checkpoint-dir", "", "where the script writes checkpoints"),
    Option(
        "checkpoint-uri", "", "S3 prefix for checkpoints, uploaded while training by every node"
    ),
    Option(
        "checkpoint-complete",
        "auto",
        "what makes a checkpoint complete: auto, latest, trainer_state, dcp, marker:NAME, "
        "glob:PATTERN",
    ),
    Option("checkpoint-interval", "10", "seconds between looks for new checkpoints", number=True),
    Option(
        "resume",
        "off",
        "auto: bring the newest complete checkpoint and name it in LAUNCH_RESUME_FROM; "
        "or a checkpoint's name",
    ),
    Option(
        "upload",
        "",
        "DIR=S3: upload from node 0 when training has succeeded; repeatable",
        many=True,
    ),
    Option("upload-workers", "8", "parallel transfers while training", number=True),
    Option("pre-cmd", "", "shell command on every node before anything is fetched; may fail"),
    Option(
        "preflight",
        "fast",
        "checks before ranks start; full adds GEMM and all-reduce",
        choices=("off", "fast", "full"),
    ),
    Option("preflight-timeout", "180", "seconds for the full preflight's ranks", number=True),
    Option(
        "env-profile",
        "auto",
        "NCCL and EFA variables by instance type",
        choices=("auto", "none"),
    ),
    Option("instance-type", "", "where the platform does not tell, as on Slurm: ml.p5.48xlarge"),
    Option(
        "hang-timeout",
        "0",
        "seconds without output until a job counts as hung; 0: never",
        number=True,
    ),
    Option(
        "done-file",
        "",
        "each rank writes DONE_FILE.RANK when its work is done; errors at exit then do not count",
    ),
    Option("allow-opt-ml-model", "", "allow output and checkpoints under /opt/ml/model", flag=True),
    Option("dry-run", "", "print what would be done (as `launch plan`) and do nothing", flag=True),
    Option("json", "", "machine-readable result on stdout", flag=True),
)


@dataclass(frozen=True)
class Value:
    """What an option is, and who said so ("--grace", "LAUNCH_GRACE", "launch_grace", "default")."""

    text: str
    source: str


@dataclass(frozen=True)
class Settings:
    """Every option's value. Look one up by its name."""

    values: Mapping[str, Value]

    def text(self, name: str) -> str:
        """The value as given."""
        return self.values[name].text

    def many(self, name: str) -> tuple[str, ...]:
        """A repeatable option's values."""
        return tuple(self.values[name].text.split())

    def number(self, name: str) -> int:
        """A number option's value."""
        return int(self.values[name].text)

    def on(self, name: str) -> bool:
        """Whether a flag is set."""
        return _truth(self.values[name].text)


def parse_flags(argv: Sequence[str], *, words: int = 0) -> tuple[dict[str, str], list[str]]:
    """Split a command line into our options and what follows ``--``.

    Commands with `words` arguments of their own take them without ``--``. Raises UsageError for an
    unknown option (naming the nearest), a missing value, or a script given without ``--``.
    """
    flags: dict[str, str] = {}
    rest = list(argv)
    taken: list[str] = []
    while rest:
        word = rest.pop(0)
        if word == "--":
            return flags, [*taken, *rest]
        if not word.startswith("--") and len(taken) < words:
            taken.append(word)
            continue
        if not word.startswith("--"):
            raise UsageError(
                f"{word!r} is not an option. The training script and its arguments go after --: "
                "launch local -- train.py --epochs 3"
            )
        name, equals, value = word[2:].partition("=")
        option = _find(name, "--")
        if option.flag:
            flags[name] = _truth_text(word, value) if equals else "true"
            continue
        if not equals:
            if not rest or rest[0] == "--":
                raise UsageError(f"--{name} needs a value")
            value = rest.pop(0)
        flags[name] = f"{flags[name]} {value}" if option.many and name in flags else value
    return flags, taken


def resolve(
    flags: Mapping[str, str], env: Mapping[str, str], hyperparameters: Mapping[str, Any]
) -> Settings:
    """Merge the sources; UsageError for an unknown LAUNCH_* or launch_*, or a bad value."""
    _refuse_unknown(
        (name for name in env if name.startswith(ENV_PREFIX) and name not in EXPORTED),
        [option.env for option in OPTIONS],
        "environment variable",
    )
    _refuse_unknown(
        (name for name in hyperparameters if name.startswith(HYPER_PREFIX)),
        [option.hyper for option in OPTIONS],
        "hyperparameter",
    )
    return Settings({o.name: _pick(o, flags, env, hyperparameters) for o in OPTIONS})


def _pick(
    option: Option, flags: Mapping[str, str], env: Mapping[str, str], hyper: Mapping[str, Any]
) -> Value:
    if option.name in flags:
        value = Value(flags[option.name], f"--{option.name}")
    elif env.get(option.env, "") != "":
        value = Value(env[option.env], option.env)
    elif hyper.get(option.hyper) is not None:
        value = Value(_hyper_text(hyper[option.hyper]), option.hyper)
    else:
        return Value(option.default, "default")
    _check(option, value)
    return value


def _hyper_text(value: Any) -> str:
    """Hyperparameters arrive decoded; a JSON list is a repeatable option's values."""
    if isinstance(value, list):
        return " ".join(str(item) for item in value)
    return str(value)


def _check(option: Option, value: Value) -> None:
    text = value.text
    if option.flag:
        _truth_text(value.source, text)
    if option.choices and text not in option.choices:
        raise UsageError(f"{value.source}={text!r}: choose one of {', '.join(option.choices)}")
    if option.number and not text.isdecimal():
        raise UsageError(f"{value.source}={text!r} is not a whole number")
    if option.name == "nproc" and text != "auto" and not (text.isdecimal() and int(text) > 0):
        raise UsageError(f"{value.source}={text!r}: give a number above 0, or auto")


def _truth(text: str) -> bool:
    return text.lower() in ("1", "true", "yes", "on")


def _truth_text(source: str, text: str) -> str:
    if text.lower() not in ("1", "true", "yes", "on", "0", "false", "no", "off", ""):
        raise UsageError(f"{source}: {text!r} is neither true nor false")
    return text


def _find(name: str, prefix: str) -> Option:
    for option in OPTIONS:
        if option.name == name:
            return option
    raise UsageError(f"unknown option {prefix}{name}{_nearest(name, [o.name for o in OPTIONS])}")


def _refuse_unknown(names: Iterable[str], known: Sequence[str], what: str) -> None:
    for name in sorted(names):
        if name not in known:
            raise UsageError(f"unknown {what} {name}{_nearest(name, known)}")


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else "; `launch help` lists all options"
