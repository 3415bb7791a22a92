"""The simulator's page names every rule and every fault."""
from __future__ import annotations

from pathlib import Path

import simulator
from simulator.faults import FAULTS
from simulator.script import RULES


def test_page_names_every_rule_and_fault():
    """No rule and no fault is missing from the page, and none is described that does not exist."""
    page = (Path(simulator.__file__).parent / "README.md").read_text(encoding="utf-8")
    for markers, _ in RULES:
        assert all(f"`{marker}`" in page for marker in markers)
    described = {line.split("`")[1] for line in page.partition("| fault |")[2].splitlines() if line.startswith("| `")}
    assert described == set(FAULTS)
