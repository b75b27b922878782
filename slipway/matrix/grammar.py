"""Tags of upstream images: what they say, and whether that agrees with what we state."""

from __future__ import annotations

from dataclasses import fields

from packaging.version import Version

from slipway.errors import UsageError
from slipway.matrix.dialects import GRAMMARS, ParsedTag
from slipway.matrix.model import Facts

__all__ = ["GRAMMARS", "ParsedTag", "disagreements", "format_tag", "parse_tag"]


def parse_tag(grammar: str, tag: str) -> ParsedTag:
    """What `tag` says by the named grammar.

    Raises UsageError for a grammar that does not exist and for a tag that it does not produce.
    """
    rules = GRAMMARS.get(grammar)
    if rules is None:
        raise UsageError(f"no tag grammar {grammar!r}", cure=f"there are {', '.join(GRAMMARS)}")
    match = rules.pattern.fullmatch(tag)
    if match is None:
        others = [name for name, other in GRAMMARS.items() if other.pattern.fullmatch(tag)]
        hint = f"; this tag is of grammar {' or '.join(others)}" if others else ""
        raise UsageError(
            f"tag {tag!r} is not of grammar {grammar}",
            cure=f"its tags are {rules.shape}, as {rules.example}{hint}",
        )
    return rules.read(match.groupdict())


def format_tag(parsed: ParsedTag) -> str:
    """The tag that says this: the inverse of parse_tag."""
    return GRAMMARS[parsed.grammar].write(parsed)


def disagreements(parsed: ParsedTag, facts: Facts, flavour: str) -> list[tuple[str, str, str]]:
    """(field, what the tag says, what is stated) wherever the two differ.

    What a tag does not say cannot disagree; "2.13" in a tag agrees with every 2.13.x.
    """
    stated = {field.name: getattr(facts, field.name) for field in fields(facts)}
    stated["flavour"] = flavour
    del stated["torch_cuda"]  # no tag says it: that is why it is stated
    found = []
    for field, value in stated.items():
        said = getattr(parsed, field)
        if field == "torch" and said and value and said.count(".") == 1:
            value = ".".join(str(part) for part in Version(value).release[:2])
        if said is not None and said != value:
            found.append((field, said, value or "none"))
    return found
