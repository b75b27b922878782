"""A bill of materials of an image: SPDX 2.3 as JSON (spdx.github.io/spdx-spec/v2.3), and back.

It is written from an inventory, and nothing is scanned. The same image has the same bill: its date
is the image's own. Packages are named by package URLs (github.com/package-url/purl-spec), which
scanners and registries look for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

from slipway import __version__
from slipway.core import DOCUMENT_FAULTS, SlipwayError
from slipway.inventory.image_inventory import run_settings
from slipway.inventory.layered_image import LayeredImage
from slipway.records import ImageInventory, SystemPackage

SPDX_TYPE = "application/spdx+json"
"""Media type, and type of the artefact, of a bill (iana.org, "Media Types")."""

_VENDORS = {"amzn": "amzn", "debian": "debian", "ubuntu": "ubuntu"}
_UNKNOWN = "not told: "


@dataclass(frozen=True)
class BilledImage:
    """What a bill is of. `hashes`: sha256 of the wheels that were added; `tools`: name -> version,
    sha256; `packages`: name, version and architecture of an added package -> sha256."""

    name: str
    repository: str  # host/path
    digest: str
    created: str  # RFC 3339
    base_name: str
    base_digest: str
    hashes: Mapping[str, str] = field(default_factory=dict)
    tools: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    packages: Mapping[tuple[str, str, str], str] = field(default_factory=dict)


def write_bill(of: BilledImage, image: ImageInventory, base: ImageInventory) -> bytes:
    """The bill of an image; what its base has unchanged is listed as the base's."""
    image_id, base_id = "SPDXRef-image", "SPDXRef-base"
    packages = [
        _package(
            image_id,
            of.name,
            of.digest,
            f"pkg:oci/{_part(of.repository.rpartition('/')[2].lower())}@{_part(of.digest)}"
            f"?repository_url={_part(of.repository)}",
            primaryPackagePurpose="CONTAINER",
        ),
        _package(base_id, of.base_name, of.base_digest, "", primaryPackagePurpose="CONTAINER"),
    ]
    relationships = [
        _relationship("SPDXRef-DOCUMENT", "DESCRIBES", image_id),
        _relationship(image_id, "DESCENDANT_OF", base_id),
    ]
    entries = [*_entries(of, image)]
    from_base = {entry["externalRefs"][0]["referenceLocator"] for entry in _entries(of, base, ())}
    for entry in entries:
        own = entry["externalRefs"][0]["referenceLocator"] not in from_base
        packages.append(entry)
        relationships.append(
            _relationship(image_id if own else base_id, "CONTAINS", entry["SPDXID"])
        )
    document = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": of.name,
        "documentNamespace": f"https://spdx.org/spdxdocs/slipway-{of.name}-{of.digest[7:]}",
        "comment": "\n".join(f"{_UNKNOWN}{text}" for text in image.unknown)
        or "complete by the package databases of the image",
        "creationInfo": {
            "created": re.sub(r"\.\d+", "", of.created) or "1980-01-01T00:00:00Z",
            "creators": [f"Tool: slipway-{__version__}"],
        },
        "packages": packages,
        "relationships": relationships,
    }
    return json.dumps(document, indent=1, sort_keys=True).encode()


def _entries(
    of: BilledImage, image: ImageInventory, tools: Iterable[str] | None = None
) -> Iterable[dict[str, Any]]:
    for name, version in sorted(image.python.items()):
        checksum = of.hashes.get(name, "")
        yield _package(
            f"SPDXRef-python-{name}",
            name,
            version,
            f"pkg:pypi/{_part(name)}@{_part(version)}",
            checksum,
        )
    for package in image.system or ():
        identity = "-".join((package.name, package.version, package.architecture))
        yield _package(
            f"SPDXRef-{image.manager}-{_identifier(identity)}",
            package.name,
            package.version,
            system_purl(package, image),
            of.packages.get((package.name, package.version, package.architecture), ""),
            sourceInfo=f"built from: {package.source} {package.source_version}",
        )
    for name in of.tools if tools is None else tools:
        version, checksum = of.tools[name]
        purl = f"pkg:generic/{_part(name)}@{_part(version)}"
        yield _package(f"SPDXRef-tool-{_identifier(name)}", name, version, purl, checksum)


def system_purl(package: SystemPackage, image: ImageInventory) -> str:
    """The package URL of a distribution's package."""
    kind = "deb" if image.manager == "dpkg" else "rpm"
    name, _, release = image.distribution.partition(" ")
    epoch, _, version = package.version.rpartition(":") if kind == "rpm" else ("", "", "")
    qualifiers = {
        "arch": package.architecture,
        "distro": f"{name}-{release}".strip("-"),
        "epoch": epoch,
        "upstream": ""
        if (package.source, package.source_version) == (package.name, package.version)
        else f"{package.source}@{package.source_version}",
    }
    query = "&".join(f"{key}={_part(value)}" for key, value in qualifiers.items() if value)
    vendor = _VENDORS.get(name, name or "unknown")
    version = version or package.version
    return f"pkg:{kind}/{_part(vendor)}/{_part(package.name)}@{_part(version)}?{query}"


def _part(text: str) -> str:
    """Percent-encoded; purl-spec leaves the colon as it is."""
    return quote(text, safe=":~._-")


def _identifier(text: str) -> str:
    """SPDXID takes letters, digits, dots and dashes; other signs become their number."""
    return re.sub(r"[^A-Za-z0-9.-]", lambda match: f".{ord(match[0]):x}.", text)


def _package(
    identifier: str, name: str, version: str, purl: str, checksum: str = "", **more: str
) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "SPDXID": _identifier(identifier),
        "name": name,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        **more,
    }
    if version:
        entry["versionInfo"] = version
    if purl:
        entry["externalRefs"] = [
            {
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": purl,
            }
        ]
    if checksum:
        entry["checksums"] = [{"algorithm": "SHA256", "checksumValue": checksum}]
    return entry


def _relationship(of: str, kind: str, to: str) -> dict[str, str]:
    return {"spdxElementId": of, "relationshipType": kind, "relatedSpdxElement": to}


def read_bill(raw: bytes, image: LayeredImage) -> ImageInventory | None:
    """What a bill of ours says is in an image; None for one that somebody else has written.

    Raises SlipwayError for one that cannot be read.
    """
    try:
        document = json.loads(raw)
        creators = document["creationInfo"]["creators"]
        if not any(str(creator).startswith("Tool: slipway-") for creator in creators):
            return None
        python: dict[str, str] = {}
        system: list[SystemPackage] = []
        distributions, managers = set(), set()
        for entry in document["packages"]:
            purls = [ref["referenceLocator"] for ref in entry.get("externalRefs") or ()]
            kind, _, rest = str(purls[0] if purls else "").removeprefix("pkg:").partition("/")
            if kind == "pypi":
                python[str(entry["name"])] = str(entry["versionInfo"])
            elif kind in ("deb", "rpm"):
                qualifiers = dict(parse_qsl(rest.partition("?")[2]))
                managers.add("dpkg" if kind == "deb" else "rpm")
                distributions.add(qualifiers.get("distro", "").replace("-", " ", 1))
                system.append(_system_package(entry, qualifiers))
        unknown = tuple(
            line.removeprefix(_UNKNOWN)
            for line in str(document.get("comment") or "").splitlines()
            if line.startswith(_UNKNOWN)
        )
    except DOCUMENT_FAULTS as error:
        raise SlipwayError(
            f"the bill of materials of this image cannot be read: {error}", where=image.where
        ) from error
    untold = any(text.startswith("packages of the distribution") for text in unknown)
    return ImageInventory(
        distribution=distributions.pop() if len(distributions) == 1 else "",
        manager=managers.pop() if len(managers) == 1 else "",
        python=python,
        system=None if untold else tuple(sorted(system)),
        config=run_settings(image.config),
        layers=tuple((str(part["digest"]), int(part["size"])) for part in image.layers),
        unknown=unknown,
    )


def _system_package(entry: Mapping[str, Any], qualifiers: Mapping[str, str]) -> SystemPackage:
    name, version = str(entry["name"]), str(entry["versionInfo"])
    source, _, source_version = unquote(qualifiers.get("upstream", "")).partition("@")
    return SystemPackage(
        name,
        version,
        qualifiers.get("arch", ""),
        source or name,
        source_version or version,
    )
