"""The training code of a SageMaker estimator: sourcedir.tar.gz, and its requirements."""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launcher import events
from launcher.causes import LaunchError
from launcher.data.s3 import S3
from launcher.stop_request import StopRequest, end_on_stop

SUBMIT_DIRECTORY = "sagemaker_submit_directory"


def archive_uri(env: Mapping[str, str], hyperparameters: Mapping[str, Any], code: Path) -> str:
    """The archive to fetch; "" when code is there already, as under sagemaker-training."""
    uri = env.get("SAGEMAKER_SUBMIT_DIRECTORY") or str(hyperparameters.get(SUBMIT_DIRECTORY) or "")
    if not uri.startswith("s3://") or (code.is_dir() and any(code.iterdir())):
        return ""
    return uri


def unpack_source(s3: S3, uri: str, code: Path) -> None:
    """Fetch the archive and unpack it into the code directory; LaunchError when it is not sound."""
    code.mkdir(parents=True, exist_ok=True)
    archive = code.parent / ".launch-sourcedir.tar.gz"
    s3.copy([(uri, str(archive))])
    try:
        with tarfile.open(archive) as tar:
            extract_archive(tar, code)
    except (tarfile.TarError, OSError) as error:
        raise LaunchError(f"cannot unpack {uri}: {error}", kind="SourceError") from error
    finally:
        archive.unlink(missing_ok=True)
    events.emit("source", uri=uri, to=str(code))


def extract_archive(tar: tarfile.TarFile, target: Path) -> None:
    """Unpack files and directories that stay inside `target`; LaunchError for anything else."""
    root = target.resolve()
    members = tar.getmembers()
    for member in members:
        path = (root / member.name).resolve()
        if path != root and root not in path.parents:
            raise LaunchError(f"{member.name!r} leads out of the archive", kind="SourceError")
        if not (member.isfile() or member.isdir()):
            raise LaunchError(f"{member.name!r} is not a file or directory", kind="SourceError")
        # What came from a notebook's home need not be writable or belong to anyone here.
        member.mode |= 0o700 if member.isdir() else 0o600
        member.uid = member.gid = 0
        member.uname = member.gname = ""
    # Python 3.12 warns without a filter; 3.9's early releases do not know it.
    safe: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    for member in members:
        tar.extract(member, target, **safe)


def install_requirements(python: str, code: Path, script: str, halt: StopRequest) -> None:
    """`pip install -r requirements.txt` for a Python script, as sagemaker-training does."""
    requirements = code / "requirements.txt"
    if not script.endswith(".py") or not requirements.is_file():
        return
    process = subprocess.Popen(
        [python, "-m", "pip", "install", "-r", str(requirements)],
        cwd=code,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    with process, end_on_stop(process, halt):
        process.wait()
    if process.returncode != 0:
        raise LaunchError(
            f"pip could not install {requirements} (code {process.returncode})", kind="SourceError"
        )
