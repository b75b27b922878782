"""Python stacks as faulthandler writes them: where a rank stands, and whether it waits there. Pure.

A rank that waits for others stands in one of few places: a function of torch.distributed, a wait
for its GPU, autograd's engine (which runs DDP's all-reduces), or a call like `work.wait()` or
`loss.item()` that is C code below a line of Python. Everything else is work of the rank's own. The
file and the function decide, not the name alone: a user's `barrier()` is not torch's.
"""

from __future__ import annotations

import linecache
import re
from collections.abc import Sequence
from dataclasses import dataclass

COLLECTIVE, DEVICE, BACKWARD, OWN, DEBUGGER, UNKNOWN = (
    "collective", "device", "backward", "own", "debugger", "unknown",
)  # fmt: skip
#: Kinds of places in which a rank may be waiting for others.
WAITS = frozenset({COLLECTIVE, DEVICE, BACKWARD})

_FRAME = re.compile(r'^  File "(.+)", line (\d+|\?+) in (.+)$', re.MULTILINE)
_THREAD = re.compile(r"^(Current thread|Thread) 0x[0-9a-f]+.*:$", re.MULTILINE)

#: Modules whose public functions are collectives, or end a process group.
_COLLECTIVE_FILES = re.compile(
    r"/torch/distributed/(distributed_c10d|_functional_collectives|rendezvous|device_mesh)\.py$"
    r"|/torch/distributed/nn/functional\.py$"
    r"|/torch/distributed/elastic/utils/store\.py$"
    r"|/deepspeed/comm/(comm|torch)\.py$"
)
#: Between a collective and who called it: decorators and layers that pass the call on.
_PASSING_FILES = re.compile(
    r"/torch/distributed/c10d_logger\.py$|/torch/_ops\.py$|/torch/utils/_contextlib\.py$"
    r"|/contextlib\.py$|/torch/_compile\.py$|/torch/_dynamo/(eval_frame|external_utils)\.py$"
    r"|/deepspeed/utils/(timer|logging)\.py$"
)
_DEVICE_FILES = re.compile(r"/torch/(cuda/__init__|cuda/streams|accelerator/__init__)\.py$")
_DEVICE_FUNCTIONS = frozenset({"synchronize", "wait", "wait_event", "current_stream"})
_BACKWARD_FUNCTIONS = frozenset({"_engine_run_backward"})
_DEBUGGER_FILES = re.compile(
    r"/(pdb|bdb|rpdb|remote_pdb|web_pdb|ipdb/\w+|pudb/\w+)\.py$|/debugpy/|/pydevd|/_pydevd"
    r"|/IPython/(core/debugger|terminal)|^pdb\.py$"
)
#: C calls below a line of Python that wait for other ranks, or for a GPU that does.
_WAITING_CALL = re.compile(
    r"\.(wait|item|cpu|tolist|numpy|synchronize|nonzero|wait_stream)\(|\.to\(\s*['\"]cpu"
)
#: How far above a waiting line its collective is looked for.
LOOK_BACK_LINES = 60
_COLLECTIVE_CALL = re.compile(
    r"[\w.]*\b(all_reduce|all_gather\w*|reduce_scatter\w*|all_to_all\w*|broadcast\w*|barrier"
    r"|gather|scatter\w*|reduce|send|recv|backward)\([^()]*"
)
_LIBRARY = re.compile(
    r"/(site-packages|dist-packages)/|/lib(64)?/python\d[\d.]*/|^<frozen |^<string>$|^<__array"
)
#: The data loader's own module: whoever stands in it waits for its workers.
_LOADER = re.compile(r"/torch/utils/data/dataloader\.py$")


@dataclass(frozen=True)
class StackFrame:
    """One line of a stack; 0 where Python does not know the line."""

    file: str
    line: int
    function: str

    def text(self) -> str:
        """``train.py:41 in step``."""
        return f"{self.file.rsplit('/', 1)[-1]}:{self.line} in {self.function}"


Stack = tuple[StackFrame, ...]


def parse_stack(text: str) -> Stack:
    """The frames of a dump of one thread, innermost first."""
    return tuple(
        StackFrame(match[1], int(match[2]) if match[2].isdecimal() else 0, match[3])
        for match in _FRAME.finditer(text)
    )


def main_stack(text: str) -> Stack:
    """The main thread's frames in a dump of all threads: faulthandler writes it last."""
    starts = [match.end() for match in _THREAD.finditer(text)]
    return parse_stack(text[starts[-1] :] if starts else text)


def same_place(one: Stack, other: Stack) -> bool:
    """Whether two samples may be of a rank that has not moved.

    The innermost line does not count (a loop that spins has several), nor does one call more or
    less (a loop that asks `ready()`). Whoever really works calls deeper, and returns.
    """
    return bool(_outline(one) & _outline(other))


def _outline(stack: Stack) -> set[tuple[object, ...]]:
    """A stack with its innermost line left out, and the same for its caller."""
    return {
        (stack[i].file, stack[i].function, *stack[i + 1 :])
        for i in range(min(2, len(stack)))
        if i < len(stack) - 1 or i == 0
    }


@dataclass(frozen=True)
class StackPlace:
    """What a rank does, by its stack.

    `call` is the collective, or the function that waits; `where` the innermost line of the user's
    own code, `code` what that line says. Collectives on GPUs return at once and are waited for
    later: `after` is the last one that the script's text has before a line that waits.
    """

    kind: str
    call: str
    where: str
    code: str = ""
    after: str = ""

    @property
    def waits(self) -> bool:
        """Whether others may be what it waits for."""
        return self.kind in WAITS


def find_place(stack: Stack) -> StackPlace:
    """Classify a stack."""
    if not stack:
        return StackPlace(UNKNOWN, "", "")
    user = next((frame for frame in stack if not _LIBRARY.search(frame.file)), stack[-1])
    code = source_line(user)
    kind, call = _classify(stack)
    after = collective_before(user) if kind == DEVICE else ""
    return StackPlace(kind, call, user.text(), code, after)


def _classify(stack: Stack) -> tuple[str, str]:
    if any(_DEBUGGER_FILES.search(frame.file) for frame in stack):
        return DEBUGGER, "debugger"
    collective = _find_collective(stack)
    if collective:
        return COLLECTIVE, collective
    inner = stack[0]
    if _DEVICE_FILES.search(inner.file) and inner.function in _DEVICE_FUNCTIONS:
        return DEVICE, inner.function
    if inner.function in _BACKWARD_FUNCTIONS and "/torch/" in inner.file:
        return BACKWARD, "backward"
    if any(_LOADER.search(frame.file) for frame in stack):
        return OWN, "data loader"
    waiting = _WAITING_CALL.search(source_line(inner))
    if waiting:
        return DEVICE, (waiting[1] or "to") + "()"
    return OWN, inner.function


def _find_collective(stack: Stack) -> str:
    """The public function of torch.distributed that this thread is in, nearest to the caller.

    Only what stands innermost counts: a hook that torch.distributed has called is the rank's own
    work.
    """
    call = ""
    for frame in stack:
        if _COLLECTIVE_FILES.search(frame.file):
            if not frame.function.startswith("_") and frame.function != "wrapper":
                call = frame.function
            call = call or frame.function
        elif not _PASSING_FILES.search(frame.file):
            break
    return call


def collective_before(frame: StackFrame) -> str:
    """``dist.all_reduce(data) in line 49``: the nearest at or above a line, in its function."""
    for number in range(frame.line, max(0, frame.line - LOOK_BACK_LINES), -1):
        text = source_line(StackFrame(frame.file, number, ""))
        match = _COLLECTIVE_CALL.search(text)
        if match:
            return f"{match[0]}) in line {number}"
        if number < frame.line and text.startswith(("def ", "async def ", "class ")):
            break
    return ""


def source_line(frame: StackFrame) -> str:
    """The text of a frame's line, where the file can be read here."""
    if not frame.file.startswith("/") or not frame.line:
        return ""
    return linecache.getline(frame.file, frame.line).strip()[:120]


def joined_ranks(ranks: Sequence[int]) -> str:
    """``0, 2-7``."""
    spans: list[list[int]] = []
    for rank in sorted(ranks):
        if spans and rank == spans[-1][1] + 1:
            spans[-1][1] = rank
        else:
            spans.append([rank, rank])
    return ", ".join(f"{low}" if low == high else f"{low}-{high}" for low, high in spans)
