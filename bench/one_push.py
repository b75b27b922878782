"""One push by Slipway's own client, as a process of its own: what `bench.push_faults` measures.

    python -m bench.one_push HOST REPOSITORY FOLDER [ecr]

FOLDER has the manifest, and each blob under the hexadecimal part of its digest.
"""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path

from slipway.core import SlipwayError, anonymous, silent
from slipway.registry import (
    OCI_MANIFEST,
    BlobTransfer,
    FileBlob,
    Manifest,
    RegistryClient,
    Repository,
    Target,
    credentials_for,
    deliver_blobs,
    digest_of,
)

ACCOUNT, REGION = "123456789012", "eu-central-1"  # moto's


def main(host: str, path: str, folder: Path, *, in_ecr: bool) -> int:
    """Push what is in the folder; print how it failed, and how much memory that took."""
    raw = (folder / "manifest").read_bytes()
    manifest = Manifest(OCI_MANIFEST, digest_of(raw), raw)
    content = manifest.json()
    blobs = [
        BlobTransfer(part["digest"], part["size"], FileBlob(folder / part["digest"][7:]))
        for part in [*content["layers"], content["config"]]
    ]
    target = Target("ecr", "ecr", host, REGION, ACCOUNT) if in_ecr else None
    logins = credentials_for([target]) if target else anonymous
    try:
        uploads = folder / "uploads"
        with RegistryClient(host, logins, on_event=print, uploads=uploads) as client:
            repository = Repository(client, path)
            deliver_blobs(repository, blobs, "push", silent)
            repository.put_tagged("v1", manifest)
    except SlipwayError as error:
        print(f"FAILED {error.what}")
        return 1
    finally:
        status = Path("/proc/self/status").read_text()
        print("HIGHEST", re.findall(r"VmHWM:\s+(\d+)", status)[0])
    return 0


if __name__ == "__main__":
    # A shell has what it starts in the background ignore Ctrl-C, and that is inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), in_ecr=len(sys.argv) > 4))
