"""`inv storage`: where images are kept, moving them to the big disk and back, making room."""

from __future__ import annotations

from invoke.collection import Collection
from invoke.context import Context

from slipway.core import Project, say
from slipway.pipeline import Settings
from slipway.prune import prune
from slipway.storage import (
    DockerDaemon,
    Machine,
    MoveOptions,
    ask_user,
    delete_kept,
    disk_named,
    inspect_storage,
    mode_named,
    move_data,
    plan_move,
    require_root,
    restore_data,
    resume_move,
    show_deleted,
    show_move_progress,
    show_outcome,
    show_planned,
    show_status,
)
from slipway.tasks.cli import JSON, ROOT, task_command

PROFILE = {"profile": "kind of machine: notebook, hyperpod, ec2, or auto to look"}
YES = {"yes": "agree in advance"}


def _room(c: Context) -> DockerDaemon:
    return DockerDaemon.of(Project.at(ROOT), Machine(), Settings.of(c.config).engine)


@task_command(help={**PROFILE, **JSON})
def storage_status_task(c: Context, profile: str = "auto", json: bool = False) -> None:
    """Where Docker, containerd, enroot and Slipway keep their data, and what would be better."""
    show_status(inspect_storage(_room(c), profile), as_json=json)


@task_command(
    positional=[],
    help={
        **PROFILE,
        **JSON,
        "names": "a folder on the disk to move to, as a plain word (default: the best disk)",
        "dry_run": "print the steps with sizes and time estimates; change nothing",
        "mode": "copy everything, or start fresh; default: fresh without volumes and containers",
        "stop": "stop running containers, and start them again afterwards",
        "resume": "go on with a move that was cut off",
        "delete_old": "delete the old data after the check; without a disk: what was kept before",
    },
)
def storage_move(
    c: Context,
    names: list[str],
    dry_run: bool = False,
    profile: str = "auto",
    mode: str = "",
    stop: bool = False,
    resume: bool = False,
    delete_old: bool = False,
    json: bool = False,
) -> None:
    """Move Docker's and containerd's data, and enroot's folders, to another disk; or all back."""
    if not dry_run:
        require_root()
    room = _room(c)
    disk = disk_named(names)
    options = MoveOptions(mode_named(mode), stop=stop, delete_old=delete_old)
    if dry_run:
        planned = plan_move(room, disk, profile, options, dry_run=True, say=say)
        show_planned(planned, as_json=json)
        return
    with (
        room.locked("storage.move"),
        show_move_progress(room.project, "move") as on_event,
    ):
        if resume:
            show_outcome(resume_move(room, on_event))
            return
        if delete_old and disk is None and room.has_kept():
            show_deleted(delete_kept(room, say))
            return
        planned = plan_move(room, disk, profile, options, dry_run=False, say=say)
        show_planned(planned, as_json=json)
        if planned.journal is not None:
            show_outcome(move_data(room, planned.journal, on_event))
        else:
            planned.make_folders()
        if planned.journal is None and delete_old:
            show_deleted(delete_kept(room, say))


@task_command(help={**YES, "stop": "stop running containers, and start them again afterwards"})
def storage_restore(c: Context, yes: bool = False, stop: bool = False) -> None:
    """Go back to what was before the last move, or before one that was cut off."""
    require_root()
    room = _room(c)
    with (
        room.locked("storage.restore"),
        show_move_progress(room.project, "restore") as on_event,
    ):
        journal = restore_data(
            room, on_event, stop=stop, agree=lambda text: ask_user(text, yes=yes)
        )
    show_outcome(journal)


@task_command(
    help={
        **YES,
        **JSON,
        "older_than": "leave what was used within this time, e.g. 30d, 12h, 2w",
        "dry_run": "print what can go, remove nothing",
    }
)
def storage_prune(
    c: Context,
    yes: bool = False,
    older_than: str = "30d",
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Remove unused images, build cache, old .sqsh files and caches; asks first."""
    prune(_room(c), older_than, yes=yes, dry_run=dry_run, json=json)


ns = Collection(
    "storage",
    status=storage_status_task,
    move=storage_move,
    restore=storage_restore,
    prune=storage_prune,
)
