"""`./inv docs` as a maintainer runs it, by the real zensical."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from urllib.parse import unquote

from tests.support.clones import Clone

_REFERENCE = re.compile(r'(?:href|src)="(?!\w+:|//|#|data:)([^"#?]+)[^"]*"')


def test_the_site_is_whole_and_asks_nothing_of_the_network(tmp_path: Path) -> None:
    clone = Clone.make(tmp_path / "clone", tmp_path / "state")
    clone.inv("docs", "--output", str(tmp_path / "site"))
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        text = page.read_text("utf-8")
        for target in map(unescape, _REFERENCE.findall(text)):
            if page.name == "404.html" and target.startswith("/"):
                continue  # a server's own, which may stand below any path
            assert (page.parent / unquote(target)).exists(), f"{page.name}: {target}"
        fetched = re.findall(
            r'<(?:script|img|link rel="stylesheet")[^>]*(?:src|href)="(https?:[^"]*)', text
        )
        assert fetched == []
    assert "sqsh.fetch" in (tmp_path / "site" / "tasks.html").read_text("utf-8")
    assert (tmp_path / "site" / "demo" / "index.html").exists()
    # Into a folder that holds something else it is not built.
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    refused = clone.inv("docs", "--output", str(tmp_path / "mine"), code=1)
    assert "holds something else" in refused.stderr
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
