"""Training processes: their commands, supervision, output, hangs, and how they ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from launcher import lazy_face

if TYPE_CHECKING:
    from launcher.ranks.extension_cache import CACHES, ExtensionsCache, cache_variables
    from launcher.ranks.outcome import (
        RanksEnd,
        cause_of_bad_stop,
        cause_of_cut,
        cause_of_echo,
        finished_before_failure,
    )
    from launcher.ranks.rank_commands import (
        DEEPSPEED,
        REPORT,
        SHIMS,
        STACK_SITE,
        TORCHRUN,
        USER_PYTHON,
        RankCommand,
        RankLayout,
        RankProgram,
        build_rank_commands,
        choose_runner,
        default_nproc,
        hostfile_text,
        is_node_command,
        layout_ranks,
    )
    from launcher.ranks.rank_processes import (
        catches_signal,
        find_ranks,
        find_workers,
        kill_tree,
        let_end,
        let_go_on,
        send_signal,
        wake_stopped,
    )
    from launcher.ranks.script_command import ScriptCommand, read_script_command
    from launcher.ranks.supervisor import EndedNodes, RankSupervisor
    from launcher.ranks.watch import (
        HANG_KIND,
        HangWatch,
        StallReport,
        WatchOptions,
        cause_of_hang,
        print_stacks,
    )

__all__ = [
    "CACHES",
    "DEEPSPEED",
    "HANG_KIND",
    "REPORT",
    "SHIMS",
    "STACK_SITE",
    "TORCHRUN",
    "USER_PYTHON",
    "EndedNodes",
    "ExtensionsCache",
    "HangWatch",
    "RankCommand",
    "RankLayout",
    "RankProgram",
    "RankSupervisor",
    "RanksEnd",
    "ScriptCommand",
    "StallReport",
    "WatchOptions",
    "build_rank_commands",
    "cache_variables",
    "catches_signal",
    "cause_of_bad_stop",
    "cause_of_cut",
    "cause_of_echo",
    "cause_of_hang",
    "choose_runner",
    "default_nproc",
    "find_ranks",
    "find_workers",
    "finished_before_failure",
    "hostfile_text",
    "is_node_command",
    "kill_tree",
    "layout_ranks",
    "let_end",
    "let_go_on",
    "print_stacks",
    "read_script_command",
    "send_signal",
    "wake_stopped",
]

__getattr__ = lazy_face(
    __name__,
    {
        "extension_cache": "CACHES ExtensionsCache cache_variables",
        "outcome": (
            "RanksEnd cause_of_bad_stop cause_of_cut cause_of_echo finished_before_failure"
        ),
        "rank_commands": (
            "DEEPSPEED REPORT RankCommand RankLayout SHIMS STACK_SITE TORCHRUN USER_PYTHON "
            "RankProgram build_rank_commands choose_runner default_nproc hostfile_text "
            "is_node_command layout_ranks"
        ),
        "rank_processes": (
            "catches_signal find_ranks find_workers kill_tree let_end let_go_on send_signal "
            "wake_stopped"
        ),
        "script_command": "ScriptCommand read_script_command",
        "supervisor": "EndedNodes RankSupervisor",
        "watch": ("HANG_KIND HangWatch StallReport WatchOptions cause_of_hang print_stacks"),
    },
)
