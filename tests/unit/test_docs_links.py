"""Links inside the documentation lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")
NAMED_PAGE = re.compile(r'\b(docs/[\w/-]+(?:\.(?:md|json)\b)?)(?:, "([^"]+)")?')
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def _anchors(page: Path) -> set[str]:
    """Return the anchors that a forge makes of the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", page.read_text()), re.MULTILINE)
    words = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {word.replace(" ", "-") for word in words}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file that is there, and a heading in it."""
    broken = []
    for target in LINK.findall(FENCED.sub("", page.read_text())):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or (anchor and anchor not in _anchors(file)):
            broken.append(target)
    assert broken == []


def test_every_page_can_be_found() -> None:
    """Every page of docs/ is linked from another one."""
    linked = {
        (page.parent / target.partition("#")[0]).resolve()
        for page in PAGES
        for target in LINK.findall(page.read_text())
        if "://" not in target
    }
    lost = [page for page in PAGES if "docs" in page.parts and page.resolve() not in linked]
    assert lost == []


def test_pages_that_the_code_names_are_there() -> None:
    """A docstring or comment that points to docs/ points to a page, and to a heading in it."""
    rooms = [path for path in ROOT.iterdir() if (path / "__init__.py").is_file()]
    broken = []
    for file in [file for room in rooms for file in room.rglob("*.py")]:
        for name, heading in NAMED_PAGE.findall(file.read_text()):
            page = ROOT / name
            is_there = page.is_file() or any(page.parent.glob(f"{page.name}-*.md"))
            if not is_there or (heading and f"# {heading}\n" not in page.read_text()):
                broken.append(f"{file.relative_to(ROOT)}: {name} {heading}")
    assert broken == []
