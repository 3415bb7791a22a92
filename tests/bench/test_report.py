"""docs/performance.md is what the committed run says."""

from __future__ import annotations

import json

from bench import report


def test_the_page_is_made_of_the_committed_run() -> None:
    """The page is what `python -m bench.report` writes."""
    run = json.loads(report.RESULT.read_text(encoding="utf-8"))
    assert report.PAGE.read_text(encoding="utf-8") == report.page(run)


def test_a_missed_bar_is_named_in_words() -> None:
    """A page does not hide what is not met."""
    run = json.loads(report.RESULT.read_text(encoding="utf-8"))
    for part in run["start"]:
        for measured in part["rounds"]:
            measured["ours"]["start_kib"] = 900_000
    page = report.page(run)
    assert "| **not met** |" in page
    assert "process at start" in page.split("Not met: ")[1].splitlines()[0]


def test_a_run_without_costs_still_makes_a_page() -> None:
    """What was not measured stands as such."""
    run = json.loads(report.RESULT.read_text(encoding="utf-8"))
    page = report.page({**run, "start": [], "memory": [], "setup": [], "latency": []})
    assert "not measured" in page
    assert "{{" not in page
