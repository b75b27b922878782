"""`launch fetch URI --to DIR`: its words, the job that it is in, and what it prints."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NoReturn

from launcher.causes import OK, LaunchError, LaunchUsageError
from launcher.fetch.fetch_run import FetchRequest, FetchResult, fetch_sqsh
from launcher.fetch.sqsh_sidecar import FetchError
from launcher.peers import GatePlace, derive_job_key, derive_part_key
from launcher.platforms import Topology, local_topology, slurm_topology

#: As `launch slurm`: the two are never there at the same time.
DEFAULT_PORT = 29499
#: Where a node's own disk is, the first that is there; as the scripts of jobs go by
#: (slipway/cluster/templates/fetch.j2).
OWN_DISKS = ("/opt/dlami/nvme", "/opt/sagemaker", "/var/tmp")  # noqa: S108 - a disk, no file


class _Words(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise LaunchUsageError(f"launch fetch: {message}")


def main(argv: Sequence[str]) -> int:
    """The program by itself, as a node of a job runs it."""
    try:
        return run_fetch(argv, os.environ)
    except LaunchError as error:
        print(f"launch: {error.cause.headline()}", file=sys.stderr)
        return error.code


def run_fetch(words: Sequence[str], env: Mapping[str, str]) -> int:
    """Fetch a .sqsh into a folder of this node; print where it is."""
    flags = _parser().parse_args(list(words))
    topology = _topology(flags, env)
    folder = Path(flags.to).absolute() if flags.to else own_folder(OWN_DISKS)
    request = FetchRequest(flags.uri, folder, plain_http=flags.plain_http, digest=flags.digest)
    if topology is not None and topology.nodes > 1:
        key = derive_job_key(env, topology.platform, topology.job, topology.attempt, {})
        place = GatePlace(
            topology.hosts,
            topology.node_rank,
            f"{topology.job} fetch",
            flags.port,
            derive_part_key(key, "fetch"),
        )
        request = replace(request, place=place, key=derive_part_key(key, "pieces"))
    result = fetch_sqsh(request, env)
    if flags.json:
        print(json.dumps({**asdict(result), "path": str(result.path)}))
    else:
        print(f"{result.path}\n{_summary(result)}")
    return OK


def _parser() -> argparse.ArgumentParser:
    parser = _Words(prog="launch fetch", description=run_fetch.__doc__, allow_abbrev=False)
    parser.add_argument(
        "uri",
        help="registry://HOST/REPOSITORY:TAG (an image with a pushed .sqsh), s3://BUCKET/NAME.sqsh"
        " or /FOLDER/NAME.sqsh of a shared folder",
    )
    parser.add_argument(
        "--to",
        default="",
        help=f"folder for the file (default: slipway-UID on the first disk of"
        f" {', '.join(OWN_DISKS)})",
    )
    parser.add_argument("--alone", action="store_true", help="without the job's other nodes")
    parser.add_argument("--hosts", default="", help="the job's nodes, outside of Slurm")
    parser.add_argument("--node-rank", type=int, default=0, help="this node's place in --hosts")
    parser.add_argument("--job", default="fetch", help="the job's name, outside of Slurm")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="where the nodes meet")
    parser.add_argument("--plain-http", action="store_true", help="the registry has no TLS")
    parser.add_argument("--digest", default="", help="of the sidecar that is wanted")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def own_folder(disks: Sequence[str]) -> Path:
    """This user's folder on the node's own disk, made where it is missing.

    It is nobody else's to write: jobs start from what is in it. Raises FetchError where there is no
    such disk, or something else has that name.
    """
    disk = next((disk for disk in disks if os.access(disk, os.W_OK | os.X_OK)), None)
    if disk is None:
        raise FetchError(f"none of {', '.join(disks)} can be written to: --to DIR names a folder")
    folder = Path(disk, f"slipway-{os.geteuid()}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        owner = folder.stat().st_uid
    except OSError as error:
        raise FetchError(
            f"{folder} cannot be made: {error.strerror}: --to DIR names another folder"
        ) from error
    if folder.is_symlink() or owner != os.geteuid():
        raise FetchError(f"{folder} is not this user's: --to DIR names another folder")
    return folder


def _topology(flags: argparse.Namespace, env: Mapping[str, str]) -> Topology | None:
    """The nodes that fetch the same file now; None for this one by itself."""
    if flags.alone:
        return None
    if flags.hosts:
        return local_topology(
            hosts=flags.hosts.split(","), node_rank=flags.node_rank, job=flags.job
        )
    return slurm_topology(env) if env.get("SLURM_STEP_NODELIST") else None


def _summary(result: FetchResult) -> str:
    parts = [
        f"{count / 1e6:,.1f} MB {whence}"
        for count, whence in (
            (result.from_older, "of older files"),
            (result.from_origin, "from the origin"),
            (result.from_peers, "from other nodes"),
        )
        if count
    ]
    came = ", ".join(parts) or "it was there"
    return f"{result.size / 1e6:,.1f} MB in {result.seconds:.1f} s: {came}"
