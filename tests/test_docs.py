"""The documentation says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cli import generate_docs
from cli.main import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "simulator").glob("*.md")])
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def test_configuration_is_generated_from_the_settings():
    """docs/configuration.md is what `python -m cli.generate_docs` writes."""
    assert generate_docs.CONFIGURATION.read_text(encoding="utf-8") == generate_docs.configuration()


def test_tables_of_the_protocol_are_generated_from_the_code():
    """Close codes, events, notices and voices in docs/protocol.md are the code's."""
    page = generate_docs.PROTOCOL.read_text(encoding="utf-8")
    assert page == generate_docs.filled(page)


def test_a_page_without_its_markers_is_refused():
    """A generated part cannot vanish from the page unnoticed."""
    with pytest.raises(ValueError, match="lacks the markers"):
        generate_docs.filled("# Protocol\n")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    """Every relative link of a page leads to a file of the repository."""
    targets = [target for target in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in target]
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert missing == []


def test_readme_names_every_command_and_no_other():
    """The commands of the README are those of `./voice --help`."""
    named = set(re.findall(r"`\./voice ([a-z]+)", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert named == set(COMMANDS)


def test_readme_is_short():
    """The README stays under 120 lines."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 120


def test_changelog_names_the_next_version():
    """The changelog has a place for what is not released yet."""
    assert "## Unreleased" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
