"""The naming schemes of upstream images, each readable and writable.

Sources: aws/deep-learning-containers:docs/src/data (both DLC schemes),
aws/sagemaker-python-sdk:src/sagemaker/image_uri_config (Hugging Face, SMP, LMI) and the release
notes of SMP v2 in the SageMaker developer guide.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Literal

from packaging.version import Version

from slipway.core import UsageError
from slipway.matrix.model import Device, Facts

__all__ = ["FREE", "GRAMMARS", "ParsedTag", "disagreements", "format_tag", "parse_tag"]

Found = Mapping[str, "str | None"]

FREE = "free"
"""The grammar of tags that follow none: nothing is read from them, so all that is true of such an
image is stated, and checked inside it."""

_FREE_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)  # OCI distribution, tags

_TORCH = r"(?P<torch>\d+\.\d+\.\d+)"
_MOVING_TORCH = r"(?P<torch>\d+\.\d+(?P<patch>\.\d+)?)"
_PY = r"py(?P<py>3(?:\d|[1-9]\d))"
_CU = r"cu(?P<cu>\d{3})"
_UBUNTU = r"(?P<os>ubuntu\d\d\.\d\d)"
_CODENAMES = {"bullseye": "debian11", "bookworm": "debian12", "trixie": "debian13"}


@dataclass(frozen=True)
class ParsedTag:
    """What a tag says. None: this tag does not say."""

    grammar: str
    device: Device | None
    torch: str | None = None  # "2.13.0", or "2.13" in a tag that moves with the patch version
    python: str | None = None  # "3.12"
    cuda: str | None = None  # "13.0"
    os: str | None = None  # "ubuntu22.04"
    flavour: Literal["sagemaker", "ec2"] | None = None
    transformers: str | None = None
    smp: str | None = None
    revision: str | None = None  # the number of a trailing "-v1"
    djl: str | None = None
    engine: str | None = None  # "lmi28.0.0", "tensorrtllm0.21.0", "full"


@dataclass(frozen=True)
class Grammar:
    """One naming scheme. `shape` and `example` are for people."""

    name: str
    shape: str
    example: str
    pattern: re.Pattern[str]
    read: Callable[[Found], ParsedTag]
    write: Callable[[ParsedTag], str]


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text, re.ASCII)  # else other scripts' digits would be digits


def _dotted(digits: str | None, head: int) -> str | None:
    """`130`, 2 -> `13.0`; `312`, 1 -> `3.12`."""
    return f"{digits[:head]}.{digits[head:]}" if digits else None


def _packed(prefix: str, version: str | None) -> str | None:
    """`cu`, `13.0` -> `cu130`. None stays None and so leaves no part in the tag."""
    return prefix + version.replace(".", "") if version else None


def _join(*parts: str | None) -> str:
    return "-".join(part for part in parts if part)


def _read_classic(match: Found) -> ParsedTag:
    # A short alias without a suffix is SageMaker: the opposite of dlc-al2023.
    flavour = match["flavour"] or match["short"] or "sagemaker"
    return ParsedTag(
        "dlc-classic",
        device="gpu" if match["gpu"] else "cpu",
        torch=match["torch"],
        python=_dotted(match["py"], 1),
        cuda=_dotted(match["cu"], 2),
        os=match["os"],
        flavour="ec2" if flavour == "ec2" else "sagemaker",
        revision=match["revision"],
    )


def _write_classic(tag: ParsedTag) -> str:
    head = _join(tag.torch, tag.device, _packed("py", tag.python))
    if tag.os is None:
        return _join(head, "ec2" if tag.flavour == "ec2" else None)
    return _join(head, _packed("cu", tag.cuda), tag.os, tag.flavour, _packed("v", tag.revision))


def _read_al2023(match: Found) -> ParsedTag:
    # No suffix is EC2 here, and Python is not in the tag.
    return ParsedTag(
        "dlc-al2023",
        device="gpu" if match["cu"] else "cpu",
        torch=match["torch"],
        cuda=_dotted(match["cu"], 2),
        os="amzn2023",
        flavour="sagemaker" if match["sagemaker"] else "ec2",
    )


def _write_al2023(tag: ParsedTag) -> str:
    suffix = "sagemaker" if tag.flavour == "sagemaker" else None
    return _join(tag.torch, _packed("cu", tag.cuda) or "cpu", tag.os, suffix)


def _read_hf(match: Found) -> ParsedTag:
    return ParsedTag(
        "hf-classic",
        device="gpu",
        torch=match["torch"],
        python=_dotted(match["py"], 1),
        cuda=_dotted(match["cu"], 2),
        os=match["os"],
        flavour="sagemaker",  # built on that flavour of the PyTorch image
        transformers=match["transformers"],
    )


def _write_hf(tag: ParsedTag) -> str:
    python, cuda = _packed("py", tag.python), _packed("cu", tag.cuda)
    return _join(tag.torch, f"transformers{tag.transformers}", "gpu", python, cuda, tag.os)


def _read_smp(match: Found) -> ParsedTag:
    return ParsedTag(
        "smp-v2",
        device="gpu",
        torch=match["torch"],
        python=_dotted(match["py"], 1),
        cuda=_dotted(match["cu"], 2),
        os=match["os"],
        flavour="sagemaker",
        smp=match["smp"],
        revision=match["revision"],
    )


def _write_smp(tag: ParsedTag) -> str:
    head = _join(tag.torch, "gpu", _packed("py", tag.python), _packed("cu", tag.cuda))
    if tag.smp is None:
        return head
    return _join(head, tag.os, "sagemaker", f"smpv{tag.smp}", _packed("v", tag.revision))


def _read_lmi(match: Found) -> ParsedTag:
    return ParsedTag(
        "lmi",
        device="gpu" if match["cu"] else "cpu",
        cuda=_dotted(match["cu"], 2),
        djl=match["djl"],
        engine=match["engine"] or "full",
    )


def _write_lmi(tag: ParsedTag) -> str:
    if tag.cuda is None:
        return _join(tag.djl, "cpu", tag.engine)
    return _join(tag.djl, tag.engine, _packed("cu", tag.cuda))


def _read_local(match: Found) -> ParsedTag:
    return ParsedTag(
        "local",
        device="cpu",
        torch=match["torch"],
        python=_dotted(match["py"], 1),
        os=_CODENAMES[match["codename"] or ""],
        flavour="sagemaker",
    )


def _write_local(tag: ParsedTag) -> str:
    codename = next(name for name, os in _CODENAMES.items() if os == tag.os)
    return _join(codename, _packed("py", tag.python), f"torch{tag.torch}", "cpu")


_CLASSIC_FULL = (
    rf"(?(gpu)-{_CU})-{_UBUNTU}-(?P<flavour>sagemaker|ec2)(?(patch)|-v(?P<revision>\d+))"
)

GRAMMARS: Mapping[str, Grammar] = {
    grammar.name: grammar
    for grammar in (
        Grammar(  # pytorch-training, up to torch 2.10
            "dlc-classic",
            "{X.Y.Z}-{gpu|cpu}-py{NNN}[-cu{NNN}]-ubuntu{NN.04}-{sagemaker|ec2}",
            "2.8.0-gpu-py312-cu129-ubuntu22.04-sagemaker",
            _pattern(
                rf"{_MOVING_TORCH}-(?:(?P<gpu>gpu)|cpu)-{_PY}(?:{_CLASSIC_FULL}|(?:-(?P<short>ec2))?)"
            ),
            _read_classic,
            _write_classic,
        ),
        Grammar(  # pytorch, from torch 2.11
            "dlc-al2023",
            "{X.Y.Z}-{cu{NNN}|cpu}-amzn2023[-sagemaker]",
            "2.13.0-cu133-amzn2023-sagemaker",
            _pattern(rf"{_MOVING_TORCH}-(?:{_CU}|cpu)-amzn2023(?:-(?P<sagemaker>sagemaker))?"),
            _read_al2023,
            _write_al2023,
        ),
        Grammar(  # huggingface-pytorch-training
            "hf-classic",
            "{X.Y.Z}-transformers{A.B.C}-gpu-py{NNN}-cu{NNN}-ubuntu{NN.04}",
            "2.9.0-transformers5.3.0-gpu-py312-cu130-ubuntu22.04",
            _pattern(
                rf"{_TORCH}-transformers(?P<transformers>\d+\.\d+\.\d+)-gpu-{_PY}-{_CU}-{_UBUNTU}"
            ),
            _read_hf,
            _write_hf,
        ),
        Grammar(  # smdistributed-modelparallel; the short form has carried up to three SMP versions
            "smp-v2",
            "{X.Y.Z}-gpu-py{NNN}-cu{NNN}[-ubuntu{NN.04}-sagemaker-smpv{A.B.C}[-v{N}]]",
            "2.5.1-gpu-py311-cu124",
            _pattern(
                rf"{_TORCH}-gpu-{_PY}-{_CU}"
                rf"(?:-{_UBUNTU}-sagemaker-smpv(?P<smp>\d+\.\d+\.\d+)(?:-v(?P<revision>\d+))?)?"
            ),
            _read_smp,
            _write_smp,
        ),
        Grammar(  # djl-inference
            "lmi",
            "{X.Y.Z}-{lmi|tensorrtllm}{A.B.C}-cu{NNN} or {X.Y.Z}-cpu-full",
            "0.36.0-lmi28.0.0-cu130",
            _pattern(
                r"(?P<djl>\d+\.\d+\.\d+)-"
                rf"(?:(?P<engine>(?:lmi|tensorrtllm)\d+\.\d+\.\d+)-{_CU}|cpu-full)"
            ),
            _read_lmi,
            _write_lmi,
        ),
        Grammar(  # our own base, images/local
            "local",
            "{Debian codename}-py{NNN}-torch{X.Y.Z}-cpu",
            "bookworm-py311-torch2.13.0-cpu",
            _pattern(rf"(?P<codename>{'|'.join(_CODENAMES)})-{_PY}-torch{_TORCH}-cpu"),
            _read_local,
            _write_local,
        ),
    )
}


def parse_tag(grammar: str, tag: str) -> ParsedTag:
    """What `tag` says by the named grammar.

    Raises UsageError for a grammar that does not exist and for a tag that it does not produce.
    """
    if grammar == FREE:
        return _parse_free(tag)
    rules = GRAMMARS.get(grammar)
    if rules is None:
        known = ", ".join([*GRAMMARS, FREE])
        raise UsageError(f"no tag grammar {grammar!r}", cure=f"there are {known}")
    match = rules.pattern.fullmatch(tag)
    if match is None:
        others = [name for name, other in GRAMMARS.items() if other.pattern.fullmatch(tag)]
        hint = f"; this tag is of grammar {' or '.join(others)}" if others else ""
        raise UsageError(
            f"tag {tag!r} is not of grammar {grammar}",
            cure=f"its tags are {rules.shape}, as {rules.example}{hint}",
        )
    return rules.read(match.groupdict())


def _parse_free(tag: str) -> ParsedTag:
    if not _FREE_TAG.fullmatch(tag):
        raise UsageError(
            f"{tag!r} cannot be a tag", cure="letters, digits, `_`, `.` and `-`, at most 128"
        )
    return ParsedTag(FREE, device=None)


def format_tag(parsed: ParsedTag) -> str:
    """The tag that says this: the inverse of parse_tag."""
    return GRAMMARS[parsed.grammar].write(parsed)


def disagreements(parsed: ParsedTag, facts: Facts, flavour: str) -> list[tuple[str, str, str]]:
    """(field, what the tag says, what is stated) wherever the two differ.

    What a tag does not say cannot disagree; "2.13" in a tag agrees with every 2.13.x.
    """
    stated = {field.name: getattr(facts, field.name) for field in fields(facts)}
    stated["flavour"] = flavour
    for fact in ("torch_cuda", "architecture"):
        del stated[fact]  # no tag says it: that is why it is stated
    differences = []
    for field, value in stated.items():
        tag_value = getattr(parsed, field)
        if field == "torch" and tag_value and value and tag_value.count(".") == 1:
            value = ".".join(str(part) for part in Version(value).release[:2])
        if tag_value is not None and tag_value != value:
            differences.append((field, tag_value, value or "none"))
    return differences
