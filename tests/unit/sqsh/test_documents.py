"""Manifests, indexes and configurations of any content: a value or one clear error."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slipway.core import SlipwayError, printable
from slipway.sqsh.image_documents import (
    CONFIG_MAX,
    MANIFEST_MAX,
    TIME_MAX,
    ImageConfig,
    ImageIndex,
    ImageManifest,
    ImageMetadataError,
    parse_document,
    parse_image_config,
    parse_list,
    parse_manifest,
    timestamp_seconds,
)

DIGEST = "sha256:" + "a" * 64
DESCRIPTOR = {"digest": DIGEST, "size": 7, "mediaType": "application/x.tar"}
MANIFEST: dict[str, Any] = {"schemaVersion": 2, "config": DESCRIPTOR, "layers": [DESCRIPTOR] * 2}
INDEX: dict[str, Any] = {
    "manifests": [{**DESCRIPTOR, "platform": {"os": "linux", "architecture": "amd64"}}]
}
CONFIG: dict[str, Any] = {
    "architecture": "amd64",
    "created": "2024-01-02T03:04:05.678901234Z",
    "config": {"Env": ["A=1"], "Labels": {"a": "b"}, "Volumes": {"/x": {}}, "WorkingDir": "/w"},
    "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
}
PARSERS: dict[str, tuple[dict[str, Any], Callable[[bytes, str], object]]] = {
    "manifest": (MANIFEST, parse_manifest),
    "index": (INDEX, parse_manifest),
    "config": (CONFIG, parse_image_config),
}


def test_what_is_right_is_read() -> None:
    manifest = parse_manifest(json.dumps(MANIFEST).encode(), "x")
    assert isinstance(manifest, ImageManifest)
    assert [layer.size for layer in manifest.layers] == [7, 7]
    index = parse_manifest(json.dumps(INDEX).encode(), "x")
    assert isinstance(index, ImageIndex)
    assert index.entries[0].platform == "linux/amd64"
    config = parse_image_config(json.dumps(CONFIG).encode(), "x")
    assert config.created == 1704164645
    assert config.config.volumes == ("/x",)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, child in inner:
        found.append((*at, key))
        if isinstance(child, dict | list):
            found += places(child, (*at, key))
    return found


def replaced(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    copy = json.loads(json.dumps(value))
    inner = copy
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = new
    return copy


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["", DIGEST, "sha512:00", "0001-01-01T00:00:00+23:59", "\ud800", "a\0b", "7"])
    | st.sampled_from([10**400, -1, 2**63, 1e400]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("kind", PARSERS)
@given(data=st.data())
@settings(max_examples=300)
def test_any_json_in_any_place_is_read_or_refused(kind: str, data: st.DataObject) -> None:
    document, parse = PARSERS[kind]
    at = data.draw(st.sampled_from([(), *places(document)]))
    new = data.draw(JSON)
    raw = json.dumps(replaced(document, at, new) if at else new).encode()
    with contextlib.suppress(ImageMetadataError):
        parse(raw, "somewhere")


@pytest.mark.parametrize("kind", PARSERS)
@given(raw=st.binary(max_size=200))
@settings(max_examples=100)
def test_any_bytes_are_refused(kind: str, raw: bytes) -> None:
    with pytest.raises(ImageMetadataError, match="somewhere"):
        PARSERS[kind][1](raw, "somewhere")


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"\xef\xbb\xbf" + json.dumps(MANIFEST).encode(), id="BOM"),
        pytest.param(json.dumps(MANIFEST).encode("utf-16"), id="UTF-16"),
        pytest.param(json.dumps(MANIFEST).encode("utf-32"), id="UTF-32"),
        pytest.param(b'{"config":' * 100_000, id="deep objects"),
        pytest.param(b'{"config":' + b"[" * 100_000, id="deep lists"),
        pytest.param(b'{"config": NaN}', id="NaN"),
        pytest.param(b'{"config": ' + b"9" * 5000 + b"}", id="long number"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"[]", id="list"),
        pytest.param(b"null", id="null"),
        pytest.param(b" " * (MANIFEST_MAX + 1), id="too long"),
        pytest.param(json.dumps({**MANIFEST, **INDEX}).encode(), id="manifest and index"),
    ],
)
def test_what_is_no_document_is_refused_in_words(raw: bytes) -> None:
    with pytest.raises(ImageMetadataError) as raised:
        parse_manifest(raw, "oci:x")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("kind", "at", "new", "words"),
    [
        ("manifest", ("layers", 0, "size"), "7", r"'layers\[0\]\.size' is not a number of bytes"),
        ("manifest", ("layers", 0, "size"), True, "not a number of bytes"),
        ("manifest", ("layers", 0, "size"), -1, "not a number of bytes"),
        ("manifest", ("layers", 0, "digest"), None, r"'layers\[0\]\.digest' is not a sha256"),
        ("manifest", ("layers", 0, "digest"), "sha256:../../etc/passwd", "not a sha256 digest"),
        ("manifest", ("layers",), {}, "'layers' is not a list of objects"),
        ("manifest", ("config",), [], "'config' is not an object"),
        ("index", ("manifests", 0, "platform"), "linux", "is not an object"),
        ("config", ("rootfs", "diff_ids"), "null", "'rootfs.diff_ids' is not a list"),
        ("config", ("rootfs",), None, "no image's configuration"),
        ("config", ("created",), "yesterday", "'created' is not a time"),
        ("config", ("created",), 5, "'created' is not a string"),
        ("config", ("config", "Env"), [1], "'config.Env' is not a list of strings"),
        ("config", ("config", "Labels"), {"a": 1}, "'config.Labels.a' is not a string"),
        ("config", ("config", "WorkingDir"), "/a\0b", "holds a NUL"),
    ],
)
def test_the_field_that_is_wrong_is_named(
    kind: str, at: tuple[Any, ...], new: Any, words: str
) -> None:
    document, parse = PARSERS[kind]
    with pytest.raises(ImageMetadataError, match=words):
        parse(json.dumps(replaced(document, at, new)).encode(), "somewhere")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, 0),
        ("", 0),
        ("1969-12-31T00:00:00Z", 0),
        ("0001-01-01T00:00:00Z", 0),
        ("9999-12-31T23:59:59Z", TIME_MAX),
        ("2024-01-02T03:04:05+01:00", 1704161045),
    ],
)
def test_times_stay_in_what_squashfs_can_say(text: str | None, seconds: int) -> None:
    assert timestamp_seconds(text) == seconds


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+23:59", "2024-13-01T00:00:00Z", "x", "2024"])
def test_other_times_are_read_or_refused(text: str) -> None:
    with contextlib.suppress(ImageMetadataError):
        assert 0 <= timestamp_seconds(text) <= TIME_MAX


def test_lists_and_sizes_are_bounded() -> None:
    with pytest.raises(ImageMetadataError, match="not a list of objects"):
        parse_list(b"{}", "x", "manifest.json")
    with pytest.raises(ImageMetadataError, match="not JSON"):
        parse_list(b"]", "x", "manifest.json")
    with pytest.raises(ImageMetadataError, match="bytes"):
        parse_document(b" " * (CONFIG_MAX + 1), "x", CONFIG_MAX)


def test_half_a_character_becomes_the_mark_for_it() -> None:
    config = ImageConfig.from_inspect({"Env": ["A=\ud800x"], "WorkingDir": "/\udfff"})
    assert config.env == ("A=\ufffdx",)
    assert config.working_dir == "/\ufffd"


@given(text=st.text())
def test_errors_hold_no_control_characters(text: str) -> None:
    for shown in (str(SlipwayError(text, where=text, cure=text)), printable(text)):
        assert all(character.isprintable() or character in "\n\t" for character in shown)


def test_text_that_is_fit_stays_as_it_is() -> None:
    assert printable("naïve 日本語 \t\n") == "naïve 日本語 \t\n"
    assert printable("\x1b]0;owned\x07\x9b2J\u202e") == "\\x1b]0;owned\\x07\\x9b2J\\u202e"
