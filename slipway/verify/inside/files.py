"""Prints, as JSON, of each file named by the arguments: [sha256, mode, "uid:gid"], else null."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

found: dict[str, list[str] | None] = {}
for name in sys.argv[1:]:
    path = Path(name)
    if path.is_symlink() or not path.is_file():
        found[name] = None
        continue
    status = path.stat()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    found[name] = [digest, f"{status.st_mode & 0o7777:04o}", f"{status.st_uid}:{status.st_gid}"]
json.dump(found, sys.stdout)
