"""`inv storage`: where images are kept, moving them to the big disk and back, making room."""

from __future__ import annotations

from invoke.collection import Collection
from invoke.context import Context

from slipway import pipeline, prune, storage
from slipway.core import Project, say
from slipway.tasks.commands import JSON, ROOT, task_command

PROFILE = {"profile": "kind of machine: notebook, hyperpod, ec2, or auto to look"}
YES = {"yes": "agree in advance"}


def _daemon(c: Context) -> storage.DockerDaemon:
    return storage.DockerDaemon.of(
        Project.at(ROOT), storage.Machine(), pipeline.Settings.of(c.config).engine
    )


@task_command(help={**PROFILE, **JSON})
def storage_status(c: Context, profile: str = "auto", json: bool = False) -> None:
    """Where Docker, containerd, enroot and Slipway keep their data, and what would be better."""
    storage.show_status(storage.inspect_storage(_daemon(c), profile), as_json=json)


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
        storage.require_root()
    daemon = _daemon(c)
    disk = storage.disk_named(names)
    options = storage.MoveOptions(storage.mode_named(mode), stop=stop, delete_old=delete_old)
    if dry_run:
        planned = storage.plan_move(daemon, disk, profile, options, dry_run=True, say=say)
        storage.show_planned(planned, as_json=json)
        return
    with (
        daemon.locked("storage.move"),
        storage.show_move_progress(daemon.project, "move") as on_event,
    ):
        if resume:
            storage.show_outcome(storage.resume_move(daemon, on_event))
            return
        if delete_old and disk is None and daemon.has_kept():
            storage.show_deleted(storage.delete_kept(daemon, say))
            return
        planned = storage.plan_move(daemon, disk, profile, options, dry_run=False, say=say)
        storage.show_planned(planned, as_json=json)
        if planned.journal is not None:
            storage.show_outcome(storage.move_data(daemon, planned.journal, on_event))
        else:
            planned.make_folders()
        if planned.journal is None and delete_old:
            storage.show_deleted(storage.delete_kept(daemon, say))


@task_command(help={**YES, "stop": "stop running containers, and start them again afterwards"})
def storage_restore(c: Context, yes: bool = False, stop: bool = False) -> None:
    """Go back to what was before the last move, or before one that was cut off."""
    storage.require_root()
    daemon = _daemon(c)
    with (
        daemon.locked("storage.restore"),
        storage.show_move_progress(daemon.project, "restore") as on_event,
    ):
        journal = storage.restore_data(
            daemon, on_event, stop=stop, agree=lambda text: storage.ask_user(text, yes=yes)
        )
    storage.show_outcome(journal)


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
    prune.prune(_daemon(c), older_than, yes=yes, dry_run=dry_run, json=json)


ns = Collection(
    "storage",
    status=storage_status,
    move=storage_move,
    restore=storage_restore,
    prune=storage_prune,
)
