"""The documents as a site: links lead somewhere, and each key and task has its place."""

from __future__ import annotations

import json
import posixpath
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tasks
from slipway.core import SlipwayError
from slipway.report import stage_pages
from slipway.tasks import settings_page, versions_page

ROOT = Path(__file__).parents[3]
_LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)(?:#[^)]*)?\)")


def test_every_link_of_every_page_leads_to_a_page_or_a_file() -> None:
    site = stage_pages(ROOT)
    for name, text in site.pages.items():
        shown = re.sub(r"^```.*?^```|^    .*$", "", text, flags=re.MULTILINE | re.DOTALL)
        for target in _LINK.findall(shown):
            place = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
            assert place in site.pages or place in site.files, f"{name}: {target}"


def test_every_document_of_docs_is_a_page_and_in_the_menu_once() -> None:
    site = stage_pages(ROOT)
    documents = {p.relative_to(ROOT / "docs").as_posix() for p in (ROOT / "docs").rglob("*.md")}
    assert documents | {"demo.md"} <= set(site.pages)
    listed = [name for pages in site.menu.values() for _, name in pages]
    assert sorted(listed) == sorted(site.pages)


def repository(root: Path, **documents: str) -> Path:
    for name, text in documents.items():
        path = root / name.replace("__", "/").replace("_md", ".md")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_links_are_written_anew_outside_of_code_only(tmp_path: Path) -> None:
    page = "\n".join(
        ["# A", "[start](../README.md#x) [b](lab/b.md) [file](../f.txt) [web](https://a/b.md)",
         "```", "[start](../README.md)", "```", "    [start](../README.md)", "[own](#a)"]
    )  # fmt: skip
    root = repository(tmp_path, README_md="# R\n[a](docs/a.md)", docs__a_md=page,
                      docs__lab__b_md="# B\n[up](../a.md) [r](../../README.md)")  # fmt: skip
    (root / "f.txt").write_text("text")
    site = stage_pages(root)
    assert site.pages["index.md"] == "# R\n[a](a.md)"
    assert site.pages["lab/b.md"] == "# B\n[up](../a.md) [r](../index.md)"
    lines = site.pages["a.md"].split("\n")
    assert lines[1] == "[start](index.md#x) [b](lab/b.md) [file](files/f.txt) [web](https://a/b.md)"
    assert lines[2:] == page.split("\n")[2:]
    assert dict(site.files) == {"files/f.txt": root / "f.txt"}


@pytest.mark.parametrize("link", ["gone.md", "../../outside.txt", "/etc/passwd", "../docs"])
def test_a_link_that_leads_nowhere_is_named(tmp_path: Path, link: str) -> None:
    root = repository(tmp_path / "in", docs__a_md=f"[x]({link})")
    (tmp_path / "outside.txt").write_text("not ours")
    with pytest.raises(SlipwayError, match=re.escape(link)):
        stage_pages(root)


def test_every_task_has_its_section() -> None:
    text = (ROOT / "docs" / "tasks.md").read_text()
    for name in tasks.ns.task_names:
        assert f"\n## {name}\n" in text


def test_every_key_of_the_schema_has_its_row_and_every_reference_its_section() -> None:
    schema = json.loads((ROOT / "versions.schema.json").read_text())
    page = versions_page(json.dumps(schema))
    for kind in [schema, *schema["$defs"].values()]:
        for key in kind.get("properties", {}):
            assert f"| `{key}` |" in page
    sections = set(re.findall(r"^## (.+)$", page, re.MULTILINE))
    assert set(re.findall(r"\]\(#([^)]+)\)", page)) <= sections


def test_every_setting_has_its_row() -> None:
    text = (ROOT / "invoke.yaml").read_text()
    keys = re.findall(r"^  (\w+):", text, re.MULTILINE)
    page = settings_page(text)
    assert len(keys) > 5
    assert [key for key in keys if f"| `slipway.{key}` |" not in page] == []


@given(key=st.from_regex(r"[a-z_]{1,12}", fullmatch=True), value=st.sampled_from(["1", '""', "a"]))
def test_a_setting_that_does_not_say_what_it_is_for_is_an_error(key: str, value: str) -> None:
    with pytest.raises(SlipwayError, match=key):
        settings_page(f"slipway:\n  {key}: {value}\n")
