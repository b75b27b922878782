"""Completion in a shell: the words that may come next, and the scripts that ask for them.

A script runs the command as it was typed, `./inv --complete -- ./inv ship --re`, with one argument
a word and the word under the cursor last (empty after a blank). The answer has a line for each word
that may stand there; none means that the shell offers files.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class Flag(Protocol):
    """What completion asks of invoke's Argument."""

    @property
    def takes_value(self) -> bool:
        """Whether the next word belongs to it."""


@dataclass(frozen=True)
class TaskWords:
    """What may follow a task: its flags, and how many image names (None: any number)."""

    flags: Mapping[str, Flag]
    images: int | None = 0


def list_image_names(root: Path) -> list[str]:
    """The images of the matrix, by their committed Dockerfiles: versions.yaml takes longer."""
    return sorted(path.parent.name for path in root.glob("images/generated/*/Dockerfile"))


def complete_words(
    words: Sequence[str],
    tasks: Mapping[str, TaskWords],
    core_flags: Mapping[str, Flag],
    images: Iterable[str],
) -> list[str]:
    """What the last of `words` (those after the program's name) may become."""
    *before, last = words or [""]
    if "--" in before:
        return []  # another program's words
    task: TaskWords | None = None
    named: list[str] = []
    flag: Flag | None = None
    wants_task = False
    for word in before:
        if flag is not None:
            flag = None
        elif word.startswith("-"):
            wants_task = task is None and word in ("--help", "-h")
            name, has_value, _ = word.partition("=")
            known = (task.flags.get(name) if task else None) or core_flags.get(name)
            # What has an optional value (--help, --list) takes a task's name or nothing.
            if known and known.takes_value and not has_value and not _is_optional(known):
                flag = known
        elif word in tasks and not (task and task.images == 1 and not named):
            task, named = tasks[word], []
        else:
            named.append(word)
    if flag is not None:
        return []
    if last.startswith("-"):
        flags: Collection[str] = {*task.flags, "--help"} if task else core_flags
        return _beginning(last, flags)
    if wants_task or task is None:
        return _beginning(last, tasks)
    if task.images is None or len(named) < task.images:
        return _beginning(last, set(images) - set(named))
    return []


def _is_optional(flag: Flag) -> bool:
    return bool(getattr(flag, "optional", False))


def _beginning(start: str, words: Iterable[str]) -> list[str]:
    return sorted(word for word in words if word.startswith(start))


# Each shell looks a command up by its last part where its whole path has no completion of its own:
# what is registered for `inv` serves `./inv` and `/opt/slipway/inv`, too.
SCRIPTS = {
    "bash": """\
# Completion of Slipway's inv. In ~/.bashrc: source <(/path/to/inv --print-completion-script bash)
_slipway_inv() {
    COMPREPLY=()
    local word
    while IFS= read -r word; do
        COMPREPLY+=("$word")
    done < <("${COMP_WORDS[0]}" --complete -- "${COMP_WORDS[@]:0:COMP_CWORD+1}" 2>/dev/null)
}
complete -o default -F _slipway_inv inv
""",
    "zsh": """\
# Completion of Slipway's inv. In ~/.zshrc, after compinit:
#   source <(/path/to/inv --print-completion-script zsh)
_slipway_inv() {
    local -a candidates
    candidates=("${(@f)$("${(Q)words[1]}" --complete -- "${(@Q)words[1,CURRENT]}" 2>/dev/null)}")
    candidates=(${candidates:#})
    if (( $#candidates )); then
        compadd -a candidates
    else
        _files
    fi
}
compdef _slipway_inv inv
""",
    "fish": """\
# Completion of Slipway's inv:
#   /path/to/inv --print-completion-script fish > ~/.config/fish/completions/inv.fish
function __slipway_inv
    set -l words (commandline --tokenize --cut-at-cursor --current-process)
    set -l last (commandline --current-token --cut-at-cursor)
    set -l candidates ($words[1] --complete -- $words "$last" 2>/dev/null)
    if test (count $candidates) -gt 0
        printf '%s\\n' $candidates
    else
        __fish_complete_path "$last"
    end
end
complete --command inv --no-files --arguments '(__slipway_inv)'
""",
}
