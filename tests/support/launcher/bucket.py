"""A bucket as tests see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class Bucket:
    """One bucket, and how a launcher reaches it."""

    name: str
    client: Any
    env: dict[str, str]

    @property
    def uri(self) -> str:
        """Its root."""
        return f"s3://{self.name}"

    def put(self, files: dict[str, str]) -> None:
        """Write objects."""
        for key, text in files.items():
            self.client.put_object(Bucket=self.name, Key=key, Body=text.encode())

    def names(self, prefix: str = "") -> list[str]:
        """All keys below a prefix, sorted."""
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.name, Prefix=prefix
        )
        return sorted(item["Key"] for page in pages for item in page.get("Contents", []))

    def text(self, key: str) -> str:
        """One object."""
        body: bytes = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return body.decode()
