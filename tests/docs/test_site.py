"""The documentation as a site: built strictly, complete, and without anything from other hosts."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from support.docs_reader import blocks

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "models" / "README.md", *ROOT.glob("docs/**/*.md")]
# Those of sh, console and python are executed, see test_commands.py; the others are looked at.
LANGUAGES = {
    *("sh", "console", "python"),
    *("c", "csv", "hexdump", "json", "matlab", "powershell", "promql", "text", "toml", "yaml"),
}
ELSEWHERE = re.compile(r"^(https?:)?//")


class Loads(HTMLParser):
    """What a browser fetches by itself to show a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        if tag == "link" and not {"canonical", "next", "prev"} & set((told.get("rel") or "").split()):
            self.found.append(told.get("href") or "")
        elif tag in {"audio", "embed", "iframe", "img", "script", "source", "video"}:
            self.found += [told.get(name) or "" for name in ("src", "srcset") if told.get(name)]
        elif tag == "object":
            self.found.append(told.get("data") or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a link that leads nowhere, or a page that is in no menu, is a failure."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.full
def test_nothing_is_fetched_from_other_hosts(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        loads = Loads(page.read_text(encoding="utf-8")).found
        assert any(name.endswith(".css") for name in loads), page
        assert [name for name in loads if ELSEWHERE.match(name)] == [], page
    for sheet in site.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        named = re.findall(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)", text)
        assert [name for names in named for name in names if ELSEWHERE.match(name)] == [], sheet


def test_the_check_would_notice() -> None:
    page = '<link rel="stylesheet" href="//a.example/x.css"><script src="https://b.example/y.js"></script>'
    assert [name for name in Loads(page).found if ELSEWHERE.match(name)] == [
        "//a.example/x.css",
        "https://b.example/y.js",
    ]


def test_links_of_the_readme_lead_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "models" / "README.md"):
        for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
            assert ELSEWHERE.match(target) or (page.parent / target).exists(), f"{page}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_command_hides_in_a_block_of_another_language(page: Path) -> None:
    shown = re.compile(r"^\s*(\$ |(sudo|pip|python|curl|docker|senoscope\S*)\s)", re.MULTILINE)
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{page}:{block.line}: say which language this is"
        if block.language == "text":
            assert not shown.search(block.text), f"{page}:{block.line}"
