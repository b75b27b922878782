"""`inv sqsh`: enroot-ready squashfs files."""

from __future__ import annotations

import sys
from pathlib import Path

from invoke.collection import Collection
from invoke.context import Context

from slipway import cluster, engine, matrix, pipeline, records, registry, sqsh, squashfs
from slipway.core import (
    DriftError,
    Project,
    Reporter,
    UsageError,
    human_bytes,
    print_json,
    printable,
    say,
    write_atomic,
)
from slipway.tasks.commands import (
    BUILD,
    IMAGE_NAMES,
    JSON,
    NAMES,
    NO_ENGINE,
    ROOT,
    SQSH,
    TARGET,
    after_dashes,
    task_command,
)


@task_command(
    positional=[],
    images=NAMES,
    help={
        **IMAGE_NAMES,
        **BUILD,
        **SQSH,
        **NO_ENGINE,
        **TARGET,
        "push": "verify and push the image, too, and put the .sqsh beside it, in pieces",
        "from_": "export without an engine: registry://HOST/REPO@sha256:..., oci:FOLDER,"
        " dir:FOLDER, docker-archive:FILE",
    },
)
def sqsh_export(
    c: Context,
    names: list[str],
    region: str = "",
    jobs: int = 0,
    unlocked: bool = False,
    output: str = "",
    compression: str = "",
    force: bool = False,
    from_: str = "",
    no_engine: bool = False,
    base_from: str = "",
    push: bool = False,
    target: str = "",
) -> None:
    """Build, then export an enroot-ready .sqsh with its .json sidecar."""
    settings = pipeline.Settings.of(
        c.config,
        region=region,
        jobs=jobs,
        target=target,
        sqsh_dir=output,
        sqsh_compression=compression,
    )
    if target and not push:
        raise UsageError("--target is where --push pushes to", cure="Give --push, too.")
    if from_:
        if names:
            raise UsageError("--from names the image itself", cure="Leave out the image names.")
        project = Project.at(ROOT)
        with Reporter() as reporter:
            credentials = registry.credentials_for(project=project)
            path = sqsh.export_stored(
                project,
                from_,
                credentials,
                cache_limit=settings.sqsh_cache,
                options=settings.sqsh_options,
                folder=settings.sqsh_dir,
                force=force,
                on_event=reporter.on_event,
            )
            if push:
                pushed = sqsh.push_stored(from_, path, credentials, reporter.on_event)
        print(path)
        if push:
            say(f"pushed as {pushed.digest}: {human_bytes(pushed.sent)} sent")
    else:
        request = pipeline.ShipRequest(
            ("build", "verify", "push", "sqsh", "push sqsh") if push else ("build", "sqsh"),
            unlocked=unlocked,
            force=force,
            no_engine=no_engine,
            base_from=base_from,
        )
        pipeline.ship_images(ROOT, settings, names, request)


@task_command(help={"file": "the .sqsh"})
def sqsh_verify(c: Context, file: str) -> None:
    """Check a .sqsh against its sidecar, its structure and all of its contents."""
    verify_and_report(Path(file))


@task_command(
    help={
        **JSON,
        "a": "a .sqsh, or dockerd://NAME, registry://HOST/REPO@sha256:..., oci:FOLDER,"
        " dir:FOLDER, docker-archive:FILE",
        "b": "the same; what it has more than A is added",
        "times": "modification times count too",
    }
)
def sqsh_diff(c: Context, a: str, b: str, times: bool = False, json: bool = False) -> None:
    """What differs between two .sqsh files or images; exit code 2 where something does.

    An image is dockerd://NAME, registry://HOST/REPO@sha256:..., oci:FOLDER or
    docker-archive:FILE, and compared as it would be exported.
    """
    project, settings = Project.at(ROOT), pipeline.Settings.of(c.config)
    with Reporter() as reporter:
        exporter = sqsh.ImageExporter(
            project,
            lambda: engine.connect(project, settings.engine),
            registry.credentials_for(project=project),
            settings.sqsh_cache,
            reporter.on_event,
        )
        diff_and_report(exporter, a, b, times=times, as_json=json)


@task_command(
    images="name",
    help={
        "name": "the image, whose newest .sqsh is run; or a .sqsh",
        "output": "file for the trace (default: the image's lock, images/lock/starts/NAME.start)",
    },
)
def sqsh_trace(c: Context, name: str, output: str = "") -> None:
    """Run a start in a .sqsh and keep what it reads: inv sqsh.trace NAME -- CMD ARGS..."""
    trace_and_report(Path(name), tuple(after_dashes(sys.argv)), output)


@task_command(
    help={
        **JSON,
        "uri": "registry://HOST/REPOSITORY:TAG of an image (after --push), s3://BUCKET/NAME.sqsh or"
        " /FOLDER/NAME.sqsh",
        "to": "folder on this machine, best on its own disk",
        "plain_http": "the registry has no TLS",
    },
)
def sqsh_fetch(c: Context, uri: str, to: str, plain_http: bool = False, json: bool = False) -> None:
    """Bring a .sqsh here: only pieces that are not in a .sqsh of the folder move, all checked."""
    flags = [*(["--plain-http"] if plain_http else []), *(["--json"] if json else [])]
    words = [uri, "--to", to, "--alone", *flags]
    project = Project.at(ROOT)
    print(
        sqsh.run_fetch_program(project.launcher, words, registry.credentials_for(project=project)),
        end="",
    )


@task_command(help={"file": "file to write: python3 FILE URI --to DIR runs it, with Python 3.9 on"})
def sqsh_fetcher(c: Context, file: str) -> None:
    """Write the program that fetches a .sqsh, as one file for nodes that have no Slipway."""
    write_atomic(Path(file), sqsh.fetch_program(Project.at(ROOT).launcher), mode=0o755)
    say(f"wrote {file}: python3 {file} --help")


@task_command(
    positional=[],
    images=NAMES,
    help={
        **JSON,
        "names": "the image, whose newest .sqsh is sent, or a .sqsh; then the nodes, as ssh knows"
        " them: n1 n2, n1,n2 or n[1-4]",
        "job": "in place of nodes: those of this running job of Slurm, by srun",
        "to": "folder on the nodes (default: slipway-UID on their own disk, as with --fetch)",
        "alone": "nodes give nothing to each other: each gets everything from here",
    },
)
def sqsh_send(
    c: Context,
    names: list[str],
    job: str = "",
    to: str = "",
    alone: bool = False,
    json: bool = False,
) -> None:
    """Bring a .sqsh to nodes, only the pieces that are not there: inv sqsh.send NAME NODES..."""
    if not names:
        raise UsageError(
            "no .sqsh is named", cure="`./inv sqsh.send NAME n1 n2`, or NAME --job JOBID."
        )
    project = Project.at(ROOT)
    name, *nodes = names
    options = cluster.SendOptions(tuple(nodes), job, to, alone)
    cluster.send_sqsh(project, sqsh_of(project, name), options, as_json=json)


ns = Collection(
    "sqsh",
    verify=sqsh_verify,
    diff=sqsh_diff,
    trace=sqsh_trace,
    fetch=sqsh_fetch,
    fetcher=sqsh_fetcher,
    send=sqsh_send,
)
ns.add_task(sqsh_export, "export", default=True)


def verify_and_report(path: Path) -> None:
    """`inv sqsh.verify FILE`."""
    with Reporter() as reporter:
        sqsh.verify_sqsh_file(path, reporter.on_event)


_BY_FILE = ", or name a .sqsh file"


def sqsh_of(project: Project, name: str) -> Path:
    """The .sqsh that is named, or an image's newest. Raises UsageError for several images."""
    if name.endswith(".sqsh"):
        return Path(name)
    (image, *more) = matrix.select_images(pipeline.Checkout.at(ROOT).matrix, [name])
    if more:
        raise UsageError(f"{name!r} names several images, and one .sqsh is sent at a time")
    return Path(cluster.newest_sqsh(project, image.name, otherwise=_BY_FILE).path)


def trace_and_report(name: Path, command: tuple[str, ...], output: str) -> None:
    """`inv sqsh.trace NAME -- CMD`."""
    project = Project.at(ROOT)
    if name.suffix == ".sqsh":
        if not output:
            raise UsageError("a .sqsh has no lock to keep a trace with", cure="Give --output FILE.")
        path, kept = name, Path(output)
    else:
        (image, *more) = matrix.select_images(pipeline.Checkout.at(ROOT).matrix, [str(name)])
        if more:
            raise UsageError(f"{str(name)!r} names several images, and a trace is of one")
        path = Path(cluster.newest_sqsh(project, image.name, otherwise=_BY_FILE).path)
        kept = Path(output) if output else records.start_lock_path(project, image.name)
    trace = sqsh.record_start(path, command, kept)
    say(f"wrote {kept}: {len(trace.files)} files")
    if not output:
        say(f"next: ./inv sqsh {name} --force  (and commit the trace)")


def diff_and_report(
    exporter: sqsh.ImageExporter, before: str, after: str, *, times: bool, as_json: bool
) -> None:
    """`inv sqsh.diff A B`. Raises DriftError where the two differ, after telling how."""
    with exporter.opened(before) as first, exporter.opened(after) as second:
        changes = squashfs.diff_images(first, second, times=times)
    if as_json:
        print_json([change_json(change) for change in changes])
    else:
        for change in changes:
            print(change_line(change))
    if changes:
        grown = sum((change.after or 0) - (change.before or 0) for change in changes)
        raise DriftError(f"{len(changes)} paths differ, {grown:+,} bytes of content in all")


def change_line(change: squashfs.FileChange) -> str:
    """`+ /opt/new  1.2 kB`, `- /opt/old  3 MB`, `~ /etc/x  10 B -> 12 B  (content, mode)`."""
    path = printable("/" + change.path.decode(errors="backslashreplace"))
    if change.before is None:
        return f"+ {path}  {human_bytes(change.after or 0)}"
    if change.after is None:
        return f"- {path}  {human_bytes(change.before)}"
    sizes = human_bytes(change.after)
    if change.before != change.after:
        sizes = f"{human_bytes(change.before)} -> {sizes}"
    return f"~ {path}  {sizes}  ({', '.join(change.what)})"


def change_json(change: squashfs.FileChange) -> dict[str, object]:
    """For programs; a path that is not UTF-8 has its bytes as backslash escapes."""
    return {
        "kind": change.kind,
        "path": "/" + change.path.decode(errors="backslashreplace"),
        "before": change.before,
        "after": change.after,
        "what": list(change.what),
    }
