"""The documentation's site builds offline, its links lead somewhere, and its pages load nothing from elsewhere."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from conftest import ROOT, missing


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built in strict mode: a broken link or anchor, or a page that is not in the navigation, is an error."""
    if importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("material") is None:
        missing("mkdocs-material")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=env)
    assert built.returncode == 0, built.stderr
    return folder


class Page(HTMLParser):
    """What a page links to, and what a browser loads to show it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        fields = dict(attrs)
        if tag == "a" and fields.get("href"):
            self.links.append(str(fields["href"]))
        elif tag == "link" and fields.get("rel") not in {"canonical", "prev", "next"}:
            self.loaded.append(str(fields.get("href")))
        elif fields.get("src"):
            self.loaded.append(str(fields["src"]))


def test_every_page_is_there_and_the_readme_is_the_first(site: Path) -> None:
    names = {f"{page.stem}.html" for page in (ROOT / "docs").glob("*.md")}
    assert names <= {path.name for path in site.glob("*.html")}
    assert "uwbench run -m logmel -m mfcc -s mini" in re.sub(r"<[^>]+>", "", (site / "index.html").read_text())


def test_a_page_loads_nothing_from_elsewhere_and_its_links_lead_somewhere(site: Path) -> None:
    pages = [path for path in site.rglob("*.html") if path.name != "404.html"]
    assert len(pages) > 20
    for path in pages:
        page = Page(path)
        assert page.loaded
        assert not [address for address in page.loaded if re.match(r"([a-z]+:)?//", address)], path
        for address in (*page.links, *page.loaded):
            file = address.partition("#")[0]
            assert not file or "://" in file or (path.parent / file).exists(), f"{path.name}: {address}"
    for path in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//|@import", path.read_text(encoding="utf-8")), path
