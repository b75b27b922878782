"""The stacks of a process, as it writes them itself: asked through a pipe, or by a signal."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from launcher.ranks import rank_processes
from launcher.ranks.watch import call_stack
from launcher.ranks.watch.call_stack import Stack
from launcher.ranks.watch.rank_resources import read_use, system_call

#: As in user_python/site/: what may be asked, and the files of the answers.
MAIN, THREADS, GROUPS = "m", "t", "c"
SUFFIXES = {MAIN: "", THREADS: ".threads", GROUPS: ".groups"}
#: On this one, too, all threads' stacks are written.
STACK_SIGNAL = signal.SIGWINCH
SIGNAL_SECONDS = 5.0
#: Where in the kernel a thread waits for a signal (wchan): pause, sigsuspend, sigwait.
SIGNAL_WAIT = re.compile(r"pause|sigsuspend|sigtimedwait")
#: 100 frames a thread at most; a longer text is no answer.
ANSWER_BYTES = 1 << 20


class StackFile:
    """Where one process answers questions of where it stands.

    Its own thread is asked first, through a pipe (user_python/site/rank_answers.py). A process that
    has none, or whose thread has not answered for `patience` seconds, is sent a signal, at most
    once in that time. `name` is its number in its own PID namespace, where that is another.
    """

    def __init__(
        self, directory: Path, pid: int, name: int = 0, *, patience: float = SIGNAL_SECONDS
    ) -> None:
        self.pid = pid
        self._base = f"{directory}/{name or pid}"
        self._patience = patience
        self._asked: dict[str, float] = {}
        self._signalled = time.monotonic()
        self._unread = False
        self._dump = ""
        self._cut = 0
        self._owner: int | None = None

    def ask(self, question: str = MAIN) -> bool:
        """Put one question; False where it can not be put, or is being waited for."""
        now = time.monotonic()
        asked = self._asked.get(question)
        if asked is not None and not self.read(question):
            if now - max(asked, self._signalled) >= self._patience:
                self._signal(now)
            return False
        if not self._write(question):
            if now - self._signalled >= self._patience:
                self._signal(now)
            return False
        self._asked[question] = now
        return True

    def _write(self, question: str) -> bool:
        """Into the pipe; False where nobody reads it: no such thread, or another program now."""
        try:
            pipe = self._open(".ask", os.O_WRONLY)
        except OSError:
            return False
        try:
            self._cut_back(question)
            os.write(pipe, question.encode())
        except OSError:
            return False
        finally:
            os.close(pipe)
        return True

    def _signal(self, now: float) -> None:
        """Have faulthandler write all threads' stacks, where that harms nothing.

        Where there is no handler the signal is lost. A script that waits for signals itself would
        take this one for what it waits for; a stopped one would be given it when it goes on.
        """
        self._signalled = now
        use = read_use(self.pid)
        if use is None or use.state in "Tt" or SIGNAL_WAIT.search(system_call(self.pid)):
            return
        if rank_processes.catches_signal(self.pid, STACK_SIGNAL):
            with contextlib.suppress(OSError):
                self._cut_back(THREADS)
                self._dump = ""
                self._unread = bool(rank_processes.send_signal([self.pid], STACK_SIGNAL))

    def _open(self, suffix: str, flags: int) -> int:
        """One of its files, if the process owns it: `launch stacks` by root looks at anybody's.

        A process says itself where its files are, and could name a link, or what is another's.
        """
        handle = os.open(self._base + suffix, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if self._owner is None:
                self._owner = os.stat(f"/proc/{self.pid}").st_uid  # noqa: PTH116 - often
            if os.fstat(handle).st_uid != self._owner:
                raise PermissionError(errno.EPERM, "it is another user's", self._base + suffix)
        except OSError:
            os.close(handle)
            raise
        return handle

    def _cut_back(self, question: str) -> None:
        handle = self._open(SUFFIXES[question], os.O_WRONLY)
        try:
            self._cut += os.fstat(handle).st_size
            os.ftruncate(handle, 0)
        finally:
            os.close(handle)

    def written(self) -> int:
        """Bytes of all answers so far: what a process has written for us, not for itself."""
        total = self._cut
        for suffix in SUFFIXES.values():
            with contextlib.suppress(OSError):
                total += os.stat(self._base + suffix).st_size  # noqa: PTH116 - often
        return total

    def signal(self) -> None:
        """Without the thread, now: for those who can have none (a data loader's workers)."""
        self._signal(time.monotonic())

    def read(self, question: str = MAIN) -> str:
        """What has been written since it was asked for."""
        try:
            with os.fdopen(self._open(SUFFIXES[question], os.O_RDONLY), "rb") as file:
                return file.read(ANSWER_BYTES).decode("utf-8", errors="replace")
        except OSError:
            return ""

    def main_stack(self) -> Stack:
        """The main thread's stack, however it has come since it was last asked for."""
        text = self.read()
        if text:
            return call_stack.parse_stack(text)
        if not self._unread:
            return ()
        # A dump grows line by line, its last thread is the main one: it is whole when it has not
        # grown since the last look.
        text, before = self.read(THREADS), self._dump
        self._dump = text
        if not text or text != before:
            return ()
        self._unread = False
        return call_stack.main_stack(text)


def answering_process(pid: int, directory: Path) -> int:
    """The process of a rank that has a stack file: itself, or what a shell wrapper has started."""
    if (directory / f"{pid}.threads").exists():
        return pid
    for process in rank_processes.descendants(pid, rank_processes.process_table()):
        if (directory / f"{process.pid}.threads").exists():
            return process.pid
    return pid


def gather(files: Mapping[str, StackFile], question: str, patience: float = 1.0) -> dict[str, str]:
    """Each process's answer to one question, as far as they come within `patience` seconds.

    Of those who do not answer by themselves, stacks are had by the signal, at half time.
    """
    unasked = {name for name, file in files.items() if not file.ask(question)}
    began = time.monotonic()
    half = began + (patience / 2 if len(unasked) < len(files) else 0.0)
    signalled = question != THREADS
    texts: dict[str, str] = {}
    while len(unasked) < len(files) or not signalled:
        now = time.monotonic()
        if not signalled and now >= half:
            signalled = True
            for file in (file for name, file in files.items() if not texts.get(name)):
                file.signal()
            unasked = set()
        time.sleep(0.02)
        # A dump grows line by line: it is whole when it has not grown since the last look.
        again = {name: file.read(question) for name, file in files.items() if name not in unasked}
        whole = all(text and text == texts.get(name) for name, text in again.items())
        texts = again
        if (whole and not (unasked and not signalled)) or now - began > patience:
            break
    return texts
