"""Findings -> an edited versions.yaml. Text in, text out: comments and order stay as they are.

Three kinds of news can be written without knowing more than a table says: a series (which waits
until a person has answered what it asks), a reference that points at what is newest, and a region.
Lines are added, or the one value is replaced; everything else is left to a person.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from packaging.version import Version

from slipway.matrix.model import Matrix
from slipway.matrix.upstream.currency import CurrencyFinding
from slipway.matrix.upstream.upstream_tables import PublishedImage

_QUESTIONS = {
    "torch": "which patch release is it?",
    "python": "which Python is in it?",
    "os": "which distribution is it?",
    "cuda": "which CUDA toolkit (nvcc) is in the image for GPUs?",
    "torch_cuda": "which CUDA was its torch built with?",
    "family": "are the package manager, the paths and the user still those of {family}?",
}
_GRAMMARS = {
    "pytorch-training": "dlc-classic",
    "pytorch": "dlc-al2023",
    "huggingface-pytorch-training": "hf-classic",
}
_PREFIXES = {"huggingface-pytorch-training": "huggingface"}


def edit_versions(
    text: str, matrix: Matrix, findings: Sequence[CurrencyFinding]
) -> tuple[str, tuple[CurrencyFinding, ...]]:
    """The edited text, and the findings that are left to a person."""
    left: list[CurrencyFinding] = []
    for finding in findings:
        edited = _edited(text, matrix, finding)
        if edited is None:
            left.append(finding)
        else:
            text = edited
    return text, tuple(left)


def _edited(text: str, matrix: Matrix, finding: CurrencyFinding) -> str | None:
    image = finding.published
    if image is None:
        return None
    if finding.kind == "new":
        return _with_series(text, matrix, image)
    if finding.subject.startswith("references.") and image.tags["gpu"] not in text:
        return _with_tag(text, finding.subject.removeprefix("references."), image.tags["gpu"])
    return None


def entry_block(text: str, section: str, name: str) -> re.Match[str] | None:
    """The lines of one entry of a section."""
    start = re.search(rf"^{section}:\n", text, re.MULTILINE)
    if start is None:
        return None
    pattern = rf"^  {re.escape(name)}:\n(?:(?:    .*)?\n)*?(?=^ {{0,2}}\S|\Z)"
    return re.compile(pattern, re.MULTILINE).search(text, start.end())


def _with_tag(text: str, name: str, tag: str) -> str | None:
    block = entry_block(text, "references", name)
    if block is None:
        return None
    edited = re.sub(r"^(    tag: ).*$", rf"\g<1>{tag}", block[0], count=1, flags=re.MULTILINE)
    return text[: block.start()] + edited + text[block.end() :]


def _with_series(text: str, matrix: Matrix, image: PublishedImage) -> str | None:
    """A new series before the newest of its repository, as that one is, with all that is asked.

    A repository that is new to the file has no such series: then the newest of all is the guess,
    and the question about the family says so.
    """
    if image.repository not in _GRAMMARS:
        return None
    bases = [base for base in matrix.bases if base.registry is not None and base.facts.torch]
    newest = max(
        bases,
        key=lambda base: (base.repository == image.repository, Version(base.facts.torch)),
        default=None,
    )
    places = {base.series for base in bases} | {base.series for base in matrix.waiting}
    blocks = [block for name in places if (block := entry_block(text, "bases", name))]
    same = [block for block in blocks if f"    repository: {image.repository}\n" in block[0]]
    if newest is None:
        return None
    torch = image.facts["torch"]
    minor = ".".join(torch.split(".")[:2])
    name = f"{_PREFIXES.get(image.repository, 'pytorch')}-{minor}"
    if entry_block(text, "bases", name):
        return None  # another version of a series that is there: which of the two, a person says
    above = min(same or blocks, key=lambda match: match.start())
    lines = _series_lines(matrix, name, image, newest.family.name)
    return text[: above.start()] + lines + text[above.start() :]


def _series_lines(matrix: Matrix, name: str, image: PublishedImage, family: str) -> str:
    without = _without(matrix, image)
    facts = dict(image.facts)
    if facts["torch"].count(".") < 2:
        del facts["torch"]  # a tag that moves with the patch release
    stated = ", ".join(
        f'{key}: "{value}"' if key in ("python", "cuda") else f"{key}: {value}"
        for key, value in facts.items()
    )
    asked = {key: text for key, text in _QUESTIONS.items() if key not in facts}
    carried = sorted({addon for base in matrix.bases for addon in base.carries})
    asked |= {addon: f"which {addon} does it carry, if any?" for addon in carried}
    lines = [
        f"  {name}:",
        "    registry: dlc",
        f"    repository: {image.repository}",
        f"    grammar: {_GRAMMARS[image.repository]}",
        f"    family: {family}",
        f"    facts: {{{stated}}}",
        "    unknown:",
        *(f"      {key}: {text.format(family=family)}" for key, text in asked.items()),
        *([f"    without: [{', '.join(without)}]"] if without else []),
        "    flavours:",
        "      sagemaker:",
        *(
            f"        {device}: {image.tags[device]}"
            for device in ("gpu", "cpu")
            if device in image.tags
        ),
    ]
    return "\n".join(lines) + "\n\n"


def _without(matrix: Matrix, image: PublishedImage) -> list[str]:
    """The regions of the registry that the table does not list."""
    accounts: Mapping[str, str] = matrix.registries["dlc"].accounts
    return sorted(accounts.keys() - image.accounts.keys())
