"""Options: flag > LAUNCH_* variable > hyperparameter launch_* > default, each with its source."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from launcher.causes import LaunchUsageError
from launcher.option_table import ENV_PREFIX, HYPER_PREFIX, OPTIONS, Option

#: Set by the launcher for the training script; never read as options. A rank that starts
#: `launch once-per-node` or `launch upload` carries them.
EXPORTED = frozenset(
    {
        *("LAUNCH_ATTEMPT", "LAUNCH_BACKEND", "LAUNCH_JOB_ID", "LAUNCH_RESUME_FROM"),
        *("LAUNCH_SCRATCH", "LAUNCH_ELASTIC_REPORT", "LAUNCH_ELASTIC_RAISE"),
        *("LAUNCH_PREFLIGHT_DIR", "LAUNCH_SECRET", "LAUNCH_PLACE"),
    }
)


@dataclass(frozen=True)
class OptionValue:
    """What an option is, and who said so ("--grace", "LAUNCH_GRACE", "launch_grace", "default")."""

    text: str
    source: str


@dataclass(frozen=True)
class LaunchOptions:
    """Every option's value. Look one up by its name."""

    values: Mapping[str, OptionValue]

    def text(self, name: str) -> str:
        """The value as given."""
        return self.values[name].text

    def many(self, name: str) -> tuple[str, ...]:
        """A repeatable option's values."""
        return tuple(split_values(self.values[name].text))

    def number(self, name: str) -> int:
        """A number option's value."""
        return int(self.values[name].text)

    def on(self, name: str) -> bool:
        """Whether a flag is set."""
        return _truth(self.values[name].text)

    def given(self, name: str) -> bool:
        """Whether somebody has set it."""
        return self.values[name].source != "default"

    def changed(self, source: str, **texts: str) -> LaunchOptions:
        """With other values, which follow from `source`; `_` stands for `-` in a name."""
        new = {name.replace("_", "-"): OptionValue(text, source) for name, text in texts.items()}
        return LaunchOptions({**self.values, **new})


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
            raise LaunchUsageError(
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
                raise LaunchUsageError(f"--{name} needs a value")
            value = rest.pop(0)
        flags[name] = f"{flags[name]}\n{value}" if option.many and name in flags else value
    return flags, taken


def resolve_options(
    flags: Mapping[str, str], env: Mapping[str, str], hyperparameters: Mapping[str, Any]
) -> LaunchOptions:
    """Merge the sources; UsageError for an unknown launch_* hyperparameter, or a bad value."""
    known = [option.hyper for option in OPTIONS]
    for name in sorted(hyperparameters):
        if name.startswith(HYPER_PREFIX) and name not in known:
            raise LaunchUsageError(f"unknown hyperparameter {name}{_nearest(name, known)}")
    return LaunchOptions({o.name: _pick(o, flags, env, hyperparameters) for o in OPTIONS})


def _pick(
    option: Option, flags: Mapping[str, str], env: Mapping[str, str], hyper: Mapping[str, Any]
) -> OptionValue:
    if option.name in flags:
        value = OptionValue(flags[option.name], f"--{option.name}")
    elif env.get(option.env, "") != "":
        value = OptionValue(env[option.env], option.env)
    elif hyper.get(option.hyper) is not None:
        value = OptionValue(_hyper_text(hyper[option.hyper]), option.hyper)
    else:
        return OptionValue(option.default, "default")
    _check(option, value)
    return value


def _hyper_text(value: Any) -> str:
    """Hyperparameters arrive decoded; a JSON list is a repeatable option's values."""
    if isinstance(value, list):
        return "\n".join(str(item) for item in value)
    return str(value)


def split_values(text: str) -> list[str]:
    """The values of a repeatable option (SOURCE=TARGET, one of them in S3), blanks in them kept.

    A line holds one value, or several: the next one begins after a blank where the one before is
    whole and what follows looks like a beginning. ``s3://b/my model=/d s3://b/x=/e`` are two.
    """
    if text.lstrip().startswith("["):
        try:
            return [str(item) for item in json.loads(text)]
        except ValueError:
            pass  # a directory may be called so
    values: list[str] = []
    for line in text.split("\n"):
        start = 0
        for blank in re.finditer(r"\s+", line.rstrip()):
            word = line[blank.end() :].split(maxsplit=1)[0]
            if _is_whole(line[start : blank.start()].strip()) and _is_beginning(word):
                values.append(line[start : blank.start()].strip())
                start = blank.end()
        values.append(line[start:].strip())
    return [value for value in values if value]


def _is_whole(value: str) -> bool:
    left, equals, right = value.partition("=")
    return bool(equals and left and right) and "s3://" in value


def _is_beginning(word: str) -> bool:
    """Of a pair: a path or a URI, or the pair itself in one word."""
    return word.startswith(("s3://", "/", "./", "../", "~")) or "=s3://" in word


def _check(option: Option, value: OptionValue) -> None:
    text = value.text
    if option.flag:
        _truth_text(value.source, text)
    if option.choices and text not in option.choices:
        raise LaunchUsageError(
            f"{value.source}={text!r}: choose one of {', '.join(option.choices)}"
        )
    if option.number and not text.isdecimal():
        raise LaunchUsageError(f"{value.source}={text!r} is not a whole number")
    if option.name == "nproc" and text != "auto" and not (text.isdecimal() and int(text) > 0):
        raise LaunchUsageError(f"{value.source}={text!r}: give a number above 0, or auto")


def _truth(text: str) -> bool:
    return text.lower() in ("1", "true", "yes", "on")


def _truth_text(source: str, text: str) -> str:
    if text.lower() not in ("1", "true", "yes", "on", "0", "false", "no", "off", ""):
        raise LaunchUsageError(f"{source}: {text!r} is neither true nor false")
    return text


def _find(name: str, prefix: str) -> Option:
    for option in OPTIONS:
        if option.name == name:
            return option
    raise LaunchUsageError(
        f"unknown option {prefix}{name}{_nearest(name, [o.name for o in OPTIONS])}"
    )


def unknown_variables(env: Mapping[str, str]) -> list[str]:
    """A warning for each LAUNCH_* variable that is none of ours.

    No error: other programs have such names, too (LAUNCH_EDITOR).
    """
    known = [option.env for option in OPTIONS]
    names = sorted(name for name in env if name.startswith(ENV_PREFIX))
    return [
        f"{name} in the environment is no option of the launcher{_nearest(name, known)}"
        for name in names
        if name not in known and name not in EXPORTED
    ]


def _nearest(name: str, known: Sequence[str]) -> str:
    import difflib  # a fault's alone

    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else "; `launch help` lists all options"
