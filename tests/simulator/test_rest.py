"""Search in the facts: scores, limits, several questions."""
from __future__ import annotations

from simulator.rest import search
from simulator.settings import DEMO_FACTS


def test_best_fact_comes_first():
    """The fact that shares most words with the question has the highest score."""
    page = search(DEMO_FACTS, {"query": "When are you open on Sunday?"})
    assert page["data"][0]["filename"] == "opening-hours.md"
    scores = [hit["score"] for hit in page["data"]]
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score <= 1 for score in scores)


def test_limits_are_kept():
    """Number of results, threshold, and a list of questions are respected."""
    everything = search(DEMO_FACTS, {"query": ["free parking", "free shipping"]})
    assert everything["search_query"] == ["free parking", "free shipping"]
    assert len(everything["data"]) >= 2
    assert len(search(DEMO_FACTS, {"query": "free parking", "max_num_results": 1})["data"]) == 1
    assert search(DEMO_FACTS, {"query": "free", "ranking_options": {"score_threshold": 1.0}})["data"]
    assert search(DEMO_FACTS, {"query": "the of and"})["data"] == []
