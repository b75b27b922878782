"""The training code of a SageMaker estimator: sourcedir.tar.gz, its package, its requirements.

As sagemaker-training 5.1.4 has it in files.py, entry_point.py and modules.py.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher import events
from launcher.causes import LaunchError
from launcher.data.s3 import S3, USER_PYTHON
from launcher.stop_request import StopRequest, end_on_stop

if TYPE_CHECKING:
    import tarfile

SUBMIT_DIRECTORY = "sagemaker_submit_directory"
#: Region, account, domain and name; AWS's "Actions, resources, and condition keys".
CODEARTIFACT_ARN = re.compile(
    r"arn:[^:]+:codeartifact:([^:]+):([^:]+):repository/([^/]+)/(.+)",
)


def find_source(env: Mapping[str, str], hyperparameters: Mapping[str, Any], code: Path) -> str:
    """Where the code is to come from: an archive in S3, or a folder, an archive or a script here.

    "" when code is there already, as under sagemaker-training, or nothing is named.
    """
    source = env.get("SAGEMAKER_SUBMIT_DIRECTORY") or str(
        hyperparameters.get(SUBMIT_DIRECTORY) or ""
    )
    if (code.is_dir() and any(code.iterdir())) or Path(source) == code:
        return ""
    return source


def bring_source(s3: Callable[[], S3], source: str, code: Path) -> None:
    """Have the code in its directory; LaunchError when what is named is not sound."""
    code.mkdir(parents=True, exist_ok=True)
    if source.startswith("s3://"):
        archive = code.parent / ".launch-sourcedir.tar.gz"
        s3().copy([(source, str(archive))])
        try:
            _unpack(archive, source, code)
        finally:
            archive.unlink(missing_ok=True)
    else:
        _copy_local(Path(source), code)
    events.emit("source", uri=source, to=str(code))


def _unpack(archive: Path, source: str, code: Path) -> None:
    import tarfile  # here and below: a tenth of the launcher's start

    try:
        with tarfile.open(archive) as tar:
            extract_archive(tar, code)
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise LaunchError(f"cannot unpack {source}: {error}", kind="SourceError") from error


def _copy_local(path: Path, code: Path) -> None:
    """A folder's contents, an archive's, or one script."""
    import tarfile

    try:
        if path.is_dir():
            shutil.copytree(path, code, symlinks=True, dirs_exist_ok=True)
        elif tarfile.is_tarfile(path):
            _unpack(path, str(path), code)
        else:
            shutil.copy2(path, code)
    except (OSError, shutil.Error) as error:
        raise LaunchError(f"cannot copy the code at {path}: {error}", kind="SourceError") from error


def extract_archive(tar: tarfile.TarFile, target: Path) -> None:
    """Unpack files and directories that stay inside `target`; LaunchError for anything else."""
    import tarfile

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


def install_code(
    python: str, code: Path, script: str, env: Mapping[str, str], halt: StopRequest
) -> None:
    """`pip install` of the code's own package (setup.py) and of requirements.txt.

    For Python scripts, as sagemaker-training does, and from AWS CodeArtifact where the job names
    one in CA_REPOSITORY_ARN. Raises LaunchError.
    """
    package = (code / "setup.py").is_file() and not script.endswith(".sh")
    listed = (code / "requirements.txt").is_file() and (package or script.endswith(".py"))
    words = [*(["."] if package else []), *(["-r", "requirements.txt"] if listed else [])]
    if not words:
        return
    # In the environment: an argument would show its token to everybody on the machine.
    index = _codeartifact_index(python, env, halt) if listed else {}
    process = subprocess.Popen(
        [python, "-m", "pip", "install", *words],
        cwd=code,
        env={**os.environ, **index},
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    with process, end_on_stop(process, halt):
        process.wait()
    if process.returncode != 0:
        what = " and ".join(["the code's own package"] * package + ["requirements.txt"] * listed)
        raise LaunchError(
            f"pip could not install {what} in {code} (code {process.returncode})",
            kind="SourceError",
        )


def _codeartifact_index(python: str, env: Mapping[str, str], halt: StopRequest) -> dict[str, str]:
    """The setting of pip's index with its token; empty where the job names no repository."""
    arn = env.get("CA_REPOSITORY_ARN")
    if not arn:
        return {}
    parts = CODEARTIFACT_ARN.fullmatch(arn)
    if parts is None:
        raise LaunchError(
            f"CA_REPOSITORY_ARN is {arn!r}, and no ARN of a CodeArtifact repository: "
            "arn:aws:codeartifact:REGION:ACCOUNT:repository/DOMAIN/NAME",
            kind="SourceError",
        )
    process = subprocess.Popen(
        [python, str(USER_PYTHON / "codeartifact_index.py"), *parts.groups()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process, end_on_stop(process, halt):
        url, errors = process.communicate()
    if process.returncode != 0:
        why = (errors.strip().splitlines() or ["no reason given"])[-1]
        raise LaunchError(f"no index from CodeArtifact ({arn}): {why}", kind="SourceError")
    return {"PIP_INDEX_URL": url.strip()}
