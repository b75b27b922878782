"""Whatever a machine lacks, wherever a task notices it: one paragraph and exit code 1."""

from __future__ import annotations

import errno
import os

import pytest
from invoke.context import Context
from invoke.exceptions import Exit

from slipway.tasks.commands import task_command

LACKING: list[BaseException] = [
    MemoryError(),
    RuntimeError("can't start new thread"),
    *(
        OSError(number, os.strerror(number), "/a/place")
        for number in (
            errno.ENOSPC,
            errno.EDQUOT,
            errno.EFBIG,
            errno.EMFILE,
            errno.ENFILE,
            errno.EAGAIN,
            errno.ENOMEM,
            errno.EROFS,
            errno.EIO,
        )
    ),
]


@pytest.mark.parametrize("lacking", LACKING, ids=str)
def test_what_is_lacking_is_told_with_its_place_and_a_cure(lacking: BaseException) -> None:
    @task_command()
    def some_task(c: Context) -> None:
        raise lacking

    with pytest.raises(Exit) as ended:
        some_task(Context())
    assert ended.value.code == 1
    told = str(ended.value.message)
    assert told.startswith("inv some.task: ")
    assert len(told.splitlines()) == 2
    if isinstance(lacking, OSError):
        assert "/a/place" in told
        assert str(lacking.strerror).lower() in told


@pytest.mark.parametrize("fault", [RuntimeError("ours"), OSError(errno.EBADF, "ours")], ids=str)
def test_a_fault_of_our_own_is_not_hidden(fault: Exception) -> None:
    @task_command()
    def some_task(c: Context) -> None:
        raise fault

    with pytest.raises(type(fault)):
        some_task(Context())
