"""A thread in each rank that tells the launcher where the rank stands; run by sitecustomize.

Questions are single bytes in a named pipe, answers are appended to files, which the launcher cuts
back before it asks again: `m`, the main thread's stack; `t`, all threads' stacks; `c`, the last
collectives of each process group, of torch's flight recorder. Between questions the thread sleeps
in `read`. An answer takes the GIL for some 50 microseconds, and needs no signal: no system call of
the script is interrupted. A rank that replaces itself (exec) closes the pipe, and is not asked.

Everything here runs inside of the user's process: it keeps to what Python itself has, holds no lock
between questions, and an error ends one answer only.
"""

from __future__ import annotations

import _thread
import faulthandler
import json
import os
import pickle
import sys
import threading
from typing import Any

#: faulthandler's own limit.
MOST_FRAMES = 100
#: Of each process group: entries before the first that is not complete, and from there on.
OPS_BEFORE, OPS_AFTER = 16, 3
MOST_GROUPS = 12


def begin(base: str, threads: int, flags: int) -> None:
    """Make the pipe and the files, and start the thread; without them there are no answers."""
    pipe = f"{base}.ask"
    try:
        if os.path.exists(pipe):  # noqa: PTH110 - of the program that this one has replaced (exec)
            os.unlink(pipe)  # noqa: PTH108
        os.mkfifo(pipe, 0o600)
        # For reading and writing: opening waits for nobody, and there is never an end.
        questions = os.open(pipe, os.O_RDWR | os.O_CLOEXEC)
        stack = os.open(base, flags, 0o600)
        groups = os.open(f"{base}.groups", flags, 0o600)
    except OSError:
        return  # the launcher's directory has gone
    main = threading.main_thread().ident
    # Not by `threading`: nobody is to wait for this thread, nor to find it in a list.
    _thread.start_new_thread(answer, (questions, main, {"m": stack, "t": threads, "c": groups}))


def answer(questions: int, main: int | None, files: dict[str, int]) -> None:
    """Until the process ends."""
    while True:
        asked = os.read(questions, 1).decode("latin-1")
        try:
            if asked == "m":
                os.write(files[asked], stack_text(main).encode("utf-8", "surrogateescape"))
            elif asked == "t":
                faulthandler.dump_traceback(file=files[asked], all_threads=True)
            elif asked == "c":
                os.write(files[asked], json.dumps(process_groups()).encode())
        except Exception as error:  # noqa: BLE001 - whatever it is, the rank goes on
            if asked == "c":
                os.write(files[asked], json.dumps({"error": repr(error)[:300]}).encode())


def stack_text(main: int | None) -> str:
    """As faulthandler writes it: innermost first."""
    frame = sys._current_frames().get(main or 0)
    lines: list[str] = []
    while frame is not None and len(lines) < MOST_FRAMES:
        code = frame.f_code
        lines.append(f'  File "{code.co_filename}", line {frame.f_lineno or "?"} in {code.co_name}')
        frame = frame.f_back
    return "\n".join([*lines, ""])


def process_groups() -> dict[str, Any]:
    """What is known of each process group's last collectives, those not complete among them."""
    backends: Any = sys.modules.get("torch._C._distributed_c10d")
    torch: Any = sys.modules.get("torch")
    dumps = []
    if hasattr(backends, "_dump_fr_trace"):  # gloo's
        dumps.append(backends._dump_fr_trace)
    if hasattr(backends, "_dump_nccl_trace") and torch.cuda.is_initialized():
        use_gpu_of_rank(torch)
        dumps.append(backends._dump_nccl_trace)
    groups: dict[str, Any] = {}
    for dump in dumps:
        # Bytes that torch has just made in this process. Without stacks: to resolve the first one
        # takes torch more than a second, in which the rank stands still.
        data = pickle.loads(dump(includeCollectives=True, includeStackTraces=False))  # noqa: S301
        entries: dict[str, list[dict[str, Any]]] = {}
        for entry in data.get("entries", ()):
            if not entry["is_p2p"]:
                entries.setdefault(":".join(entry["process_group"]), []).append(entry)
        for name, found in entries.items():
            groups[name] = describe_group(found)
    latest = sorted(groups.items(), key=lambda item: -item[1].pop("time"))
    return {"groups": dict(latest[:MOST_GROUPS])}


def use_gpu_of_rank(torch: Any) -> None:
    """The driver keeps a device for each thread; another than the rank's would be given a context,
    and with it some hundred MiB of memory."""
    for number in range(torch.cuda.device_count()):
        if torch._C._cuda_hasPrimaryContext(number):
            torch.cuda.set_device(number)
            return


def describe_group(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """The last number that was issued, and the operations around the first one not complete.

    Of a coalesced call several operations have one number; the first speaks for it.
    """
    ops: dict[int, list[Any]] = {}
    for entry in entries:
        number = int(entry["collective_seq_id"])
        if number not in ops:
            ops[number] = [number, *describe_op(entry)]
    last = max(ops)
    pending = min((number for number, op in ops.items() if op[3] != "done"), default=last + 1)
    window = range(pending - OPS_BEFORE, pending + OPS_AFTER)
    time = max(int(entry["time_created_ns"]) for entry in entries)
    return {"last": last, "time": time, "ops": [ops[number] for number in window if number in ops]}


def describe_op(entry: dict[str, Any]) -> tuple[str, str, str]:
    """(name, sizes and types, state) of one entry."""
    sizes = [
        f"{'x'.join(map(str, shape)) or 'scalar'} {kind}"
        for shape, kind in zip(entry["input_sizes"], entry.get("input_dtypes", ()))
    ]
    state = (
        "done" if entry["retired"] else {"completed": "done"}.get(entry["state"], entry["state"])
    )
    return entry["profiling_name"].rpartition(":")[2], ", ".join(sizes)[:80], state
