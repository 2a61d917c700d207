"""Every block of code of the documentation runs, and every link within it leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pages import DOCS, needs, pages, run

ALONE = [page for page in pages() if not needs(page)]
ROOT = DOCS.parent
# What somebody reads in the repository: the pages, and the README of each folder.
READ = [*DOCS.rglob("*.md"), *ROOT.glob("*.md"), *ROOT.glob("*/README.md")]
LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", ALONE, ids=lambda page: str(page.relative_to(DOCS)))
def test_runs_as_printed(page: Path, tmp_path: Path) -> None:
    run(page, tmp_path)


def anchors(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", sorted(READ), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text("utf-8")):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} leads nowhere"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{link}: {target.name} has no such heading"


@pytest.mark.parametrize("page", sorted(READ), ids=lambda page: str(page.relative_to(ROOT)))
def test_tables_have_headings(page: Path) -> None:
    assert not re.search(r"^\|(?: *\|)+$", page.read_text("utf-8"), re.MULTILINE)


def test_docstrings_are_in_the_markup_of_the_site() -> None:
    """The reference pages show them as Markdown, where the roles of reStructuredText are noise."""
    sources = [*(ROOT / "kest").rglob("*.py"), *(ROOT / "kest").rglob("*.pyi")]
    role = re.compile(r":(?:attr|class|data|exc|func|meth|mod|obj):`")
    assert [str(path) for path in sources if role.search(path.read_text("utf-8"))] == []
