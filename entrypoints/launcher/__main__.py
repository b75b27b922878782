"""`python3 -I -S launcher/` and the `launch` command both start here."""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):
    # Isolated mode (-I) leaves only the standard library on the path, on purpose: a user's
    # PYTHONPATH must not be able to replace a module of PID 1.
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from launcher.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
