"""torchrun, which also writes down how each rank really ended. Runs in the user's Python.

torchrun itself always exits with 1. Its ChildFailedError knows each failed rank's exit code, signal
and time, so this file runs torchrun's own main and keeps that as JSON in $LAUNCH_ELASTIC_REPORT.
It must not import anything of the launcher: it starts as a script, in another interpreter.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any


def _report(path: Path, failures: dict[int, Any]) -> None:
    rows = [
        {"local_rank": f.local_rank, "exitcode": f.exitcode, "message": str(f.message)}
        for f in failures.values()
    ]
    beside = path.with_suffix(".tmp")
    beside.write_text(json.dumps(rows), encoding="utf-8")
    beside.replace(path)


def main() -> None:
    """Run torchrun with this command line."""
    # A directory of ours on sys.path would shadow the user's modules of the same name.
    here = str(Path(__file__).resolve().parent)
    sys.path[:] = [entry for entry in sys.path if str(Path(entry).resolve()) != here]
    if "LAUNCH_ELASTIC_REPORT" not in os.environ:
        importlib.import_module("torch.distributed.run").main()
        return
    report = Path(os.environ["LAUNCH_ELASTIC_REPORT"])
    if os.environ.get("RANK", "").isdecimal():
        # Started by a rank, whose own runner's report this is not to replace.
        report = report.with_name(f"{report.stem}.{os.environ['RANK']}{report.suffix}")
    errors = importlib.import_module("torch.distributed.elastic.multiprocessing.errors")
    run = importlib.import_module("torch.distributed.run")
    try:
        run.main()
    except errors.ChildFailedError as error:
        _report(report, error.failures)
        if "LAUNCH_ELASTIC_RAISE" in os.environ:
            raise  # sagemaker-training reads torchrun's own words
        # The launcher says which rank failed first and why; torchrun's own summary would bury it.
        sys.exit(1)
    # A script may try again: what counts is how its last attempt ended.
    report.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
