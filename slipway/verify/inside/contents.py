"""Prints, as JSON, the contents of the files named by the arguments, as base 64.

The content of a symbolic link is where it points to.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

contents = {}
for name in sys.argv[1:]:
    path = Path(name)
    data = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
    contents[name] = base64.b64encode(data).decode()
json.dump(contents, sys.stdout)
