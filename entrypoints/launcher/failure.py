"""The failure file, which SageMaker shows to the user."""

from __future__ import annotations

import os
from pathlib import Path

from launcher import events
from launcher.causes import Cause


def write(path: Path, cause: Cause) -> bool:
    """Write the cause; False when a file was there already, which is kept.

    The training script may have said why it failed better than we can
    (aws/sagemaker-training-toolkit#111).
    """
    if path.exists() and path.stat().st_size > 0:
        return False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        beside.write_text(cause.text() + "\n", encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        # A full disk must not hide the exit code (aws/sagemaker-training-toolkit#204).
        events.emit("failure-file", path=str(path), error=str(error))
        return False
    return True
