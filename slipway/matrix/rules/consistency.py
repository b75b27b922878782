"""What must hold between the entries of versions.yaml. Adds to the source's problems."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import get_args

from slipway.core import UsageError, did_you_mean
from slipway.matrix.entries import MatrixEntries
from slipway.matrix.model import Device, Facts, Flavour
from slipway.matrix.references import region_suffixes
from slipway.matrix.rules.addon_rules import check_addons
from slipway.matrix.rules.system_rules import check_archives
from slipway.matrix.schema import FlavourEntry, RegistryEntry, SeriesEntry
from slipway.matrix.tag_grammars import ParsedTag, disagreements, parse_tag
from slipway.matrix.yaml_file import Path, Problem


def check_consistency(source: MatrixEntries) -> None:
    """Everything that can be said without expanding the groups of images."""
    for name in source.registries:
        _registry(source, name)
    for name, series in source.bases.items():
        _series(source, name, series)
    _shared_tags(source)
    check_addons(source)
    check_archives(source)
    for name, reference in source.references.items():
        path: Path = ("references", name)
        source.unknown((*path, "registry"), "registries", "registry", reference.registry)
        _without(source, path, reference.registry, reference.without)
        _parsed(source, (*path, "tag"), reference.grammar, reference.tag)
    _unused(source)


def facts_of(series: SeriesEntry, device: Device) -> Facts:
    """The facts of a series' GPU or CPU bases: CPU twins have no CUDA."""
    stated = series.facts
    return Facts(
        torch="" if stated.torch in (None, "none") else str(stated.torch),
        python=stated.python or "",
        os=stated.os or "",
        device=device,
        cuda=stated.cuda if device == "gpu" else None,
        torch_cuda=stated.torch_cuda if device == "gpu" else None,
        transformers=stated.transformers,
        smp=stated.smp,
        architecture=stated.architecture,
    )


def waits(series: SeriesEntry) -> bool:
    """Whether too little is known of a series to build on it."""
    return bool(series.unknown)


def flavours_of(series: SeriesEntry) -> dict[Flavour, FlavourEntry]:
    """The flavours that a series has."""
    flavours: tuple[Flavour, ...] = get_args(Flavour)
    listed = {name: getattr(series.flavours, name) for name in flavours}
    return {name: entry for name, entry in listed.items() if entry is not None}


def tags_of(series: SeriesEntry) -> Iterator[tuple[Flavour, Device, str]]:
    """(flavour, device, tag) of every base of a series."""
    for flavour, entry in flavours_of(series).items():
        if entry.gpu:
            yield flavour, "gpu", entry.gpu
        if entry.cpu:
            yield flavour, "cpu", entry.cpu


def _registry(source: MatrixEntries, name: str) -> None:
    entry = source.registries[name]
    if bool(entry.host) == bool(entry.accounts):
        what = f"{name} has both `host` and `accounts`, or none of them"
        cure = "a registry is one host, as nvcr.io, or an account of AWS in each region"
        source.problems.append(Problem(("registries", name), what, cure))
    if entry.login and not entry.host:
        what = f"{name}: `login` is for a host; accounts of AWS have logins of their own"
        source.problems.append(Problem(("registries", name, "login"), what, "remove it"))
    holder: dict[str, str] = {}
    known = region_suffixes()
    for account, regions in source.registries[name].accounts.items():
        for index, region in enumerate(regions):
            path = ("registries", name, "accounts", account, index)
            if region not in known:
                what = f"AWS has no region {region!r}{did_you_mean(region, known)}"
                cure = (
                    "regions come from the installed botocore; a newer one may know newer regions"
                )
                source.problems.append(Problem(path, what, cure))
            elif region in holder:
                what = f"{region} is here twice: account {holder[region]} has it already"
                source.problems.append(Problem(path, what, "a region has one account: keep one"))
            holder.setdefault(region, account)
    entry = source.registries[name]
    for group, regions in entry.region_groups.items():
        group_path = ("registries", name, "region_groups", group)
        if group in known:
            what = f"group {group!r} has the name of a region"
            source.problems.append(Problem(group_path, what, "choose another word for it"))
        if not regions:
            what = f"group {group!r} names no region"
            source.problems.append(Problem(group_path, what, "list some, or remove it"))
        for index, region in enumerate(regions):
            if region not in holder:
                what = f"{region!r} of group {group!r} is no region of {name}'s accounts"
                path = ("registries", name, "region_groups", group, index)
                source.problems.append(Problem(path, what, "remove it, or give its account"))
    for repository, words in entry.without.items():
        _used_repository(source, name, repository)
        _without(source, ("registries", name), name, words, repository)


def _used_repository(source: MatrixEntries, name: str, repository: str) -> None:
    """What `without` of a registry speaks of has to be a repository that something is in."""
    if source.broken["bases"] or source.broken["references"]:
        return
    used = {entry.repository for entry in source.bases.values() if entry.registry == name}
    used |= {entry.repository for entry in source.references.values() if entry.registry == name}
    if repository not in used:
        what = f"nothing of {name} is in a repository {repository!r}"
        cure = f"its repositories are {', '.join(sorted(used)) or 'none'}"
        path = ("registries", name, "without", repository)
        source.problems.append(Problem(path, f"{what}{did_you_mean(repository, used)}", cure))


def regions_without(registry: RegistryEntry, words: Sequence[str]) -> set[str]:
    """The regions that `without` names, by themselves or by a group of the registry."""
    return {region for word in words for region in registry.region_groups.get(word, [word])}


def _without(
    source: MatrixEntries, path: Path, name: str | None, words: Sequence[str], key: str = ""
) -> None:
    """What `without` names has to be a region of the registry, or one of its groups."""
    registry = source.registries.get(name or "")
    if registry is None:
        return  # reported, or a base of our own, which is in no region
    regions = {region for listed in registry.accounts.values() for region in listed}
    known = regions | registry.region_groups.keys()
    for index, word in enumerate(words):
        if word not in known:
            key_path = (*path, "without", *([key] if key else []), index)
            what = f"{word!r} is no region of {name} and no group of regions"
            cure = f"groups are {', '.join(registry.region_groups) or 'none'}"
            source.problems.append(Problem(key_path, f"{what}{did_you_mean(word, known)}", cure))


def _series(source: MatrixEntries, name: str, series: SeriesEntry) -> None:
    path: Path = ("bases", name)
    if series.registry is not None:
        source.unknown((*path, "registry"), "registries", "registry", series.registry)
    if (series.registry is None) != (series.grammar == "local"):
        what = f"{name}: a base of our own (grammar local) has no registry, any other has one"
        source.problems.append(Problem(path, what, "add or remove `registry`"))
    source.unknown((*path, "family"), "families", "family", series.family)
    _without(source, path, series.registry, series.without)
    _unknown_facts(source, path, series)
    _carries(source, (*path, "carries"), series.carries)
    for flavour, entry in flavours_of(series).items():
        _carries(source, (*path, "flavours", flavour, "carries"), entry.carries)
    devices = set()
    for flavour, device, tag in tags_of(series):
        devices.add(device)
        key_path = (*path, "flavours", flavour, device)
        for fact, tag_value, stated in _disagreements(
            source, key_path, series, flavour, device, tag
        ):
            if fact in series.unknown:
                continue
            what = f"tag {tag} says {fact} {tag_value}, but {stated} is stated"
            cure = f"correct the tag, or {_stated_where(fact)}"
            source.problems.append(Problem(key_path, what, cure))
    if not devices:
        cure = "give at least one tag, as `sagemaker: {gpu: ...}`"
        source.problems.append(Problem((*path, "flavours"), f"{name} has no tag", cure))
    _cuda(source, path, series, has_gpu="gpu" in devices)


def _disagreements(
    source: MatrixEntries,
    key_path: Path,
    series: SeriesEntry,
    flavour: str,
    device: Device,
    tag: str,
) -> list[tuple[str, str, str]]:
    parsed = _parsed(source, key_path, series.grammar, tag)
    if parsed is None:
        return []
    differences = disagreements(parsed, facts_of(series, device), flavour)
    if parsed.device not in (None, device):  # then CUDA differs too, but that is not the mistake
        return [one for one in differences if one[0] == "device"]
    if device == "gpu" and series.facts.cuda is None:  # `_cuda` says so
        return [one for one in differences if one[0] != "cuda"]
    return differences


_FACTS = ("torch", "python", "os")


def _unknown_facts(source: MatrixEntries, path: Path, series: SeriesEntry) -> None:
    """A fact is stated or asked for, never both and never neither."""
    stated = {key for key, value in series.facts.model_dump().items() if value is not None}
    for fact in _FACTS:
        if fact not in stated and fact not in series.unknown:
            what = f"`{fact}` is missing from {'.'.join(map(str, path))}.facts"
            cure = f"add `{fact}: ...`, or the question to `unknown`: the series then waits"
            source.problems.append(Problem((*path, "facts"), what, cure))
    possible = {*type(series.facts).model_fields, *source.names("addons"), "family"}
    for fact in series.unknown:
        key_path = (*path, "unknown", fact)
        if fact in stated:
            what = f"`{fact}` is unknown here, and stated in `facts`"
            source.problems.append(Problem(key_path, what, "keep one of the two"))
        elif fact not in possible:
            what = f"{fact!r} is no fact and no add-on{did_you_mean(fact, possible)}"
            source.problems.append(Problem(key_path, what, f"one of {', '.join(sorted(possible))}"))


def _stated_where(fact: str) -> str:
    if fact == "device":
        return "put it under the other of `gpu` and `cpu`"
    return "put it under the other flavour" if fact == "flavour" else f"`{fact}` in `facts`"


def _cuda(source: MatrixEntries, path: Path, series: SeriesEntry, *, has_gpu: bool) -> None:
    facts, reason = series.facts, (*path, "cuda_mismatch")
    if not has_gpu:
        if facts.cuda or facts.torch_cuda or series.cuda_mismatch:
            what = "CUDA is stated, but no base of this series has a GPU"
            source.problems.append(Problem((*path, "facts"), what, "remove it, or add a `gpu` tag"))
    elif facts.torch == "none":
        if not facts.cuda and "cuda" not in series.unknown:
            what = "a series with a `gpu` tag states `cuda` (nvcc)"
            cure = 'add it, as cuda: "13.0"'
            source.problems.append(Problem((*path, "facts"), what, cure))
        if facts.torch_cuda or series.cuda_mismatch:
            what = "a base without torch has no CUDA that torch was built with"
            cure = "remove `torch_cuda` and `cuda_mismatch`"
            source.problems.append(Problem((*path, "facts"), what, cure))
    elif not all(getattr(facts, fact) or fact in series.unknown for fact in ("cuda", "torch_cuda")):
        what = "a series with a `gpu` tag states both `cuda` (nvcc) and `torch_cuda`"
        cure = 'add what is missing, as torch_cuda: "13.0"'
        source.problems.append(Problem((*path, "facts"), what, cure))
    elif waits(series):
        return
    elif facts.cuda != facts.torch_cuda and not series.cuda_mismatch:
        what = f"the toolkit is CUDA {facts.cuda} but torch was built with {facts.torch_cuda}"
        cure = "if that is so, say why in `cuda_mismatch`"
        source.problems.append(Problem((*path, "facts"), what, cure))
    elif facts.cuda == facts.torch_cuda and series.cuda_mismatch:
        what = f"`cuda_mismatch` explains a difference, but both are CUDA {facts.cuda}"
        source.problems.append(Problem(reason, what, "remove it, or correct `facts`"))


def _carries(source: MatrixEntries, path: Path, carries: Mapping[str, str]) -> None:
    for addon in carries:
        source.unknown((*path, addon), "addons", "add-on", addon)


def _parsed(source: MatrixEntries, path: Path, grammar: str, tag: str) -> ParsedTag | None:
    try:
        return parse_tag(grammar, tag)
    except UsageError as error:
        source.problems.append(Problem(path, error.what, error.cure or ""))
        return None


def _shared_tags(source: MatrixEntries) -> None:
    first: dict[tuple[str | None, str, str], str] = {}
    for name, series in source.bases.items():
        for flavour, device, tag in tags_of(series):
            base = f"{name}-{flavour}-{device}"
            key = (series.registry, series.repository, tag)
            if key in first:
                what = f"tag {tag} of {base} is the tag of {first[key]} already"
                path = ("bases", name, "flavours", flavour, device)
                source.problems.append(Problem(path, what, "give each base its own tag"))
            first.setdefault(key, base)


def _unused(source: MatrixEntries) -> None:
    if source.broken["bases"] or source.broken["references"]:
        return  # what a broken entry uses is not known
    series = source.bases.values()
    referenced = {entry.registry for entry in source.references.values()}
    used: dict[str, set[str | None]] = {
        "registries": {*(entry.registry for entry in series), *referenced},
        "families": {*(entry.family for entry in series)},
    }
    for section, names in used.items():
        known = source.names(section)
        if not names <= {None, *known}:
            continue  # a mistyped name is reported; it may be the one that nothing seems to use
        for name in sorted(known - names):
            what = f"nothing uses {name!r} of `{section}`"
            source.problems.append(Problem((section, name), what, "remove it, or use it"))
