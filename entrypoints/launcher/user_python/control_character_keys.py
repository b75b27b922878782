"""Print the keys below an S3 prefix that hold a control character, one JSON string a line.

Runs in the user's Python, for its boto3: that asks S3 for keys in another encoding than plain XML,
which can not carry such a character. Imports nothing of the launcher.
"""

from __future__ import annotations

import importlib
import json
import sys
import unicodedata
from typing import Any


def main(prefix: str, endpoint: str) -> None:
    """Look at everything below `prefix` (s3://BUCKET/...)."""
    boto3: Any = importlib.import_module("boto3")
    bucket, _, below = prefix[len("s3://") :].partition("/")
    client = boto3.client("s3", endpoint_url=endpoint or None)
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=below):
        for item in page.get("Contents", []):
            key = item["Key"]
            if any(unicodedata.category(char) == "Cc" for char in key):
                print(json.dumps(key))


if __name__ == "__main__":
    main(*sys.argv[1:3])
