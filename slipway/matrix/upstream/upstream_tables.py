"""AWS's own image tables, as the `sagemaker-core` package carries them, read into plain values.

Each table is a JSON file of its own form: a version is PyTorch's, or transformers' with the
framework below it, or SMP's; a tag is made of parts, of which some are left to an alias of the
registry. Only what our families and references need is read; what else looks like theirs is for
`slipway.matrix.currency` to report.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Table = Mapping[str, Any]

TRAINING_TABLES: Mapping[str, str] = {
    "pytorch": "pytorch-training",
    "pytorch-amzn2023": "pytorch",
    "huggingface": "huggingface-pytorch-training",
    "pytorch-smp": "smdistributed-modelparallel",
}
"""Table -> the repository of ours that it lists."""

SERVING_TABLES: Mapping[str, str] = {
    "djl-lmi": "djl-inference",
    "vllm": "vllm",
    "sglang": "sglang",
    "huggingface-vllm": "huggingface-vllm",
}
"""Table -> the repository that an entry of `references` points into."""


@dataclass(frozen=True)
class PublishedImage:
    """One version of a table. `facts` are what the table says, as a series' facts are named."""

    table: str
    version: str  # what `left_out` compares: torch's, SMP's own, or the server's
    repository: str
    facts: Mapping[str, str]
    tags: Mapping[str, str]  # device -> tag
    accounts: Mapping[str, str] = field(default_factory=dict)  # region -> account

    @property
    def title(self) -> str:
        """What a person calls it."""
        more = "".join(f" {k} {self.facts[k]}" for k in ("transformers",) if k in self.facts)
        return f"{self.repository} {self.version}{more}"


def published_images(
    tables: Mapping[str, Table],
) -> tuple[list[PublishedImage], dict[str, str]]:
    """Every version of the tables that are read, in their order; and the tables that cannot be.

    A table that has taken another form is named with what is missing in it: it may hold news.
    """
    images: list[PublishedImage] = []
    unreadable: dict[str, str] = {}
    for name in (*TRAINING_TABLES, *SERVING_TABLES):
        if name in tables:
            try:
                images += list(_READERS[name](name, tables[name]))
            except (KeyError, IndexError, TypeError, AttributeError) as error:
                unreadable[name] = f"{type(error).__name__} {error}"
    return images, unreadable


def repositories_of(table: Any) -> set[str]:
    """Every repository that a table names, at any depth."""
    if isinstance(table, Mapping):
        own = {table["repository"]} if isinstance(table.get("repository"), str) else set()
        return own.union(*(repositories_of(value) for value in table.values()))
    return set()


def _python(entry: Table) -> str:
    packed = re.fullmatch(r"py(3)(\d+)", str(entry["py_versions"][-1]))
    return f"{packed[1]}.{packed[2]}" if packed else ""


def _read_classic(name: str, table: Table) -> Iterator[PublishedImage]:
    part = table["training"]
    for version, entry in part["versions"].items():
        python = _python(entry)
        if python:  # Python 2 is not in any family
            packed = entry["py_versions"][-1]
            tags = {device: f"{version}-{device}-{packed}" for device in part["processors"]}
            facts = {"torch": version, "python": python}
            yield PublishedImage(
                name, version, entry["repository"], facts, tags, entry["registries"]
            )


def _read_al2023(name: str, table: Table) -> Iterator[PublishedImage]:
    for version, entry in table["training"]["versions"].items():
        containers = entry["container_version"]
        prefix = entry.get("tag_prefix", version)
        tags = {device: f"{prefix}-{text}" for device, text in containers.items()}
        cuda = re.match(r"cu(\d\d)(\d)-", containers.get("gpu", ""))
        facts = {"torch": version, "os": "amzn2023"}
        if cuda:
            facts["cuda"] = f"{cuda[1]}.{cuda[2]}"
        yield PublishedImage(name, version, entry["repository"], facts, tags, entry["registries"])


def _read_huggingface(name: str, table: Table) -> Iterator[PublishedImage]:
    for transformers, frameworks in table["training"]["versions"].items():
        for framework, entry in frameworks.items():
            torch = framework.removeprefix("pytorch")
            if "py_versions" not in entry:
                continue  # `version_aliases`
            text = str(entry.get("container_version", {}).get("gpu"))
            container = re.fullmatch(r"cu(\d\d)(\d)-(ubuntu\d\d\.\d\d)", text)
            if torch == framework or container is None:
                continue  # TensorFlow, aliases, and what is older than the tags that we read
            packed = entry["py_versions"][-1]
            tag = f"{torch}-transformers{transformers}-gpu-{packed}-{container[0]}"
            facts = {
                "torch": torch,
                "transformers": transformers,
                "python": _python(entry),
                "os": container[3],
                "cuda": f"{container[1]}.{container[2]}",
            }
            yield PublishedImage(
                name, torch, entry["repository"], facts, {"gpu": tag}, entry["registries"]
            )


def _read_smp(name: str, table: Table) -> Iterator[PublishedImage]:
    part = table["training"]
    torch_of = {smp: torch for torch, smp in part.get("version_aliases", {}).items()}
    for version, entry in part["versions"].items():
        facts = {"smp": version, "python": _python(entry)}
        if version in torch_of:
            facts["torch"] = torch_of[version]
        yield PublishedImage(name, version, entry["repository"], facts, {}, entry["registries"])


def _read_serving(name: str, table: Table) -> Iterator[PublishedImage]:
    for version, entry in table.get("inference", table)["versions"].items():
        tag = entry.get("tag_prefix", version)
        if "container_version" in entry:
            tag += f"-gpu-{entry['py_versions'][-1]}-{entry['container_version']['gpu']}"
        yield PublishedImage(
            name, version, entry["repository"], {}, {"gpu": tag}, entry["registries"]
        )


_READERS = {
    "pytorch": _read_classic,
    "pytorch-amzn2023": _read_al2023,
    "huggingface": _read_huggingface,
    "pytorch-smp": _read_smp,
    "djl-lmi": _read_serving,
    "vllm": _read_serving,
    "sglang": _read_serving,
    "huggingface-vllm": _read_serving,
}
