"""Prints, as JSON, the contents of the files named by the arguments, as base 64."""

from __future__ import annotations

import base64
import json
import sys

contents = {}
for path in sys.argv[1:]:
    with open(path, "rb") as stream:  # noqa: PTH123 - the shortest way that every Python has
        contents[path] = base64.b64encode(stream.read()).decode()
json.dump(contents, sys.stdout)
