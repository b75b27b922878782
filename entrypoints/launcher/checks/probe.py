"""Finds out the facts that preflight.py judges. Every probe is bounded in time."""

from __future__ import annotations

import json
import re
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from launcher.causes import LaunchError
from launcher.data import S3
from launcher.instances import find_instance
from launcher.platforms import MlDir, read_json

INFINIBAND = Path("/sys/class/infiniband")
#: What lets a container use them.
VERBS = Path("/dev/infiniband")

#: On p5en EFA devices have been seen to appear late (awsome-distributed-training's health check).
EFA_TRIES = 3
EFA_SECONDS = 5.0


def efa_devices(instance_type: str, nodes: int, sleep: Callable[[float], None]) -> int | None:
    """EFA devices that this container sees; None where none are expected."""
    instance = find_instance(instance_type)
    if nodes < 2 or instance is None or not instance.efa:
        return None
    count = 0
    for number in range(EFA_TRIES if VERBS.exists() else 0):
        if number:
            sleep(EFA_SECONDS)
        count = len(list(INFINIBAND.glob("*")))
        if count >= instance.efa:
            break
    return count


def efa_provider(expected: bool) -> bool | None:
    """Whether libfabric offers efa; None without fi_info, or where none is expected."""
    tool = shutil.which("fi_info") or "/opt/amazon/efa/bin/fi_info"
    if not expected or not Path(tool).exists():
        return None
    done = _run([tool, "-p", "efa"])
    return done is not None and done.returncode == 0


def gpu_health() -> tuple[float | None, int | None]:
    """(lowest compute capability, uncorrected ECC errors in all) as nvidia-smi reports them."""
    done = _run(
        [
            "nvidia-smi",
            "--query-gpu=compute_cap,ecc.errors.uncorrected.volatile.total",
            "--format=csv,noheader,nounits",
        ]
    )
    return parse_health(done.stdout) if done and done.returncode == 0 else (None, None)


def parse_health(text: str) -> tuple[float | None, int | None]:
    """Two columns of CSV; GPUs without ECC say [N/A]."""
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines() if line]
    capabilities = [float(row[0]) for row in rows if re.fullmatch(r"\d+\.\d+", row[0])]
    errors = [int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()]
    return min(capabilities, default=None), sum(errors) if errors else None


def memlock_unlimited() -> bool:
    """Whether locked memory has no limit."""
    return resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY


def shm_bytes() -> int | None:
    """The size of /dev/shm."""
    try:
        return shutil.disk_usage("/dev/shm").total  # noqa: S108 - its size, not a file in it
    except OSError:
        return None


def is_mounted(path: Path) -> bool:
    """Whether a directory, or what of it exists, is on another file system than /."""
    while not path.exists():
        path = path.parent
    return path.stat().st_dev != Path("/").stat().st_dev


def sagemaker_sync(ml: MlDir) -> str:
    """The directory that SageMaker syncs to S3 by itself, when the job asks for that."""
    return str(read_json(ml.config / "checkpointconfig.json").get("LocalPath") or "")


def s3_errors(s3: S3, uris: Sequence[str], node: int) -> dict[str, str]:
    """For each prefix why it cannot be written to; "" when it can."""
    said = {}
    for uri in uris:
        probe = f"{uri}/.launch-probe-{node}"
        try:
            s3.put("probe", probe)
            s3.remove(probe)
            said[uri] = ""
        except LaunchError as error:
            said[uri] = str(error)
    return said


def clock_skew(env: Mapping[str, str]) -> float | None:
    """Seconds that this clock is ahead of S3's; None when S3 does not answer."""
    # Half as long to import as all of the launcher, and asked for by jobs with S3 alone.
    import http.client
    from email.utils import parsedate_to_datetime

    from launcher.platforms import s3_host

    endpoint = env.get("S3_ENDPOINT_URL") or env.get("AWS_ENDPOINT_URL_S3")
    region = env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION") or "us-east-1"
    parts = urlsplit(endpoint or f"https://{s3_host(region)}")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.netloc, timeout=5)
    try:
        connection.request("HEAD", "/")
        date = connection.getresponse().getheader("Date")
        return time.time() - parsedate_to_datetime(date).timestamp() if date else None
    except (OSError, http.client.HTTPException, ValueError, TypeError):
        return None
    finally:
        connection.close()


def package_versions(python: str, env: Mapping[str, str]) -> dict[str, str]:
    """What has to agree between nodes, from the user's Python.

    `packages` is a digest of all installed packages: two images that differ in any are not the
    same image, whatever their tags say.
    """
    code = (
        "import hashlib, importlib.metadata as m, json, platform\n"
        "have = {d.metadata['Name'].lower(): d.version for d in m.distributions()}\n"
        "names = ('torch', 'nvidia-nccl-cu12', 'nvidia-nccl-cu13', 'deepspeed', 'transformers')\n"
        "said = {n: have[n] for n in names if n in have}\n"
        "text = json.dumps(sorted(have.items())).encode()\n"
        "said['packages'] = hashlib.sha256(text).hexdigest()[:16]\n"
        "said['python'] = platform.python_version()\n"
        "print(json.dumps(said))\n"
    )
    done = _run([python, "-c", code])
    if done is None or done.returncode != 0:
        return {}
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    if env.get("SLIPWAY_BUILD_ID"):
        found["image"] = env["SLIPWAY_BUILD_ID"]
    return found


def _run(argv: list[str]) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
