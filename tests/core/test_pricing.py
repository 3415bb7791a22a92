"""Usage becomes cost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.pricing import PRICES, Usage, price_of

REFERENCE_USAGE = {
    "total_tokens": 253,
    "input_tokens": 132,
    "output_tokens": 121,
    "input_token_details": {
        "text_tokens": 119,
        "audio_tokens": 13,
        "image_tokens": 0,
        "cached_tokens": 64,
        "cached_tokens_details": {"text_tokens": 64, "audio_tokens": 0, "image_tokens": 0},
    },
    "output_token_details": {"text_tokens": 30, "audio_tokens": 91},
}
"""Source: OpenAI Realtime reference, section 8.7."""


@pytest.mark.parametrize(
    ("model", "usd"),
    [("gpt-realtime-2.1", 0.0072056), ("gpt-realtime-2.1-mini", 0.0020588), ("gpt-realtime-1.5", 0.0069656)],
)
def test_the_references_example_costs_what_it_says(model: str, usd: float) -> None:
    """Test vectors of the OpenAI Realtime reference, section 10."""
    usage = Usage()
    usage.add_response(model, REFERENCE_USAGE)
    assert usage.cost_usd == pytest.approx(usd, abs=5e-8)


@pytest.mark.parametrize(
    ("model", "like"),
    [
        ("gpt-realtime-2.1-mini-2026-08-01", "gpt-realtime-2.1-mini"),
        ("gpt-realtime-mini-2025-12-15", "gpt-realtime-mini"),
        ("gpt-realtime-2025-08-28", "gpt-realtime-1.5"),
        ("gpt-realtime", "gpt-realtime-1.5"),
        ("gpt-realtime-2-2026-05-01", "gpt-realtime-2"),
        ("somebody-elses-model", "gpt-realtime-2.1"),
    ],
)
def test_a_dated_model_costs_as_its_family(model: str, like: str) -> None:
    """The longest name that begins the model's decides; an unknown model costs as much as the dearest."""
    assert price_of(model) is PRICES[like]


def test_an_image_is_billed() -> None:
    """Image tokens have their own price, fresh and cached."""
    usage = Usage()
    details = {"image_tokens": 2_000_000, "cached_tokens_details": {"image_tokens": 1_000_000}}
    usage.add_response("gpt-realtime-2.1", {"input_token_details": details})
    assert usage.cost_usd == pytest.approx(5.50)


@pytest.mark.parametrize("usage", [None, {}, "x", {"input_token_details": None, "output_token_details": 5}])
def test_missing_usage_costs_nothing_and_counts(usage: Any) -> None:
    """Usage may be null or lack fields; the response is counted."""
    totals = Usage()
    totals.add_response("gpt-realtime-2.1", usage)
    assert (totals.responses, totals.cost_usd) == (1, 0.0)


@pytest.mark.parametrize(
    ("model", "usage", "usd"),
    [
        ("gpt-transcribe", {"type": "duration", "seconds": 60}, 0.0045),
        ("gpt-live-transcribe", {"type": "duration", "seconds": 30}, 0.0085),
        ("whisper-1", {"type": "duration", "seconds": 120}, 0.012),
        ("unknown", {"type": "duration", "seconds": 60}, 0.017),
        ("gpt-4o-transcribe", {"type": "tokens", "input_tokens": 1_000_000, "output_tokens": 100_000}, 3.50),
        ("gpt-4o-mini-transcribe", {"type": "tokens", "input_tokens": 1_000_000, "output_tokens": 100_000}, 1.75),
        ("gpt-transcribe", None, 0.0),
        ("gpt-transcribe", {"type": "duration", "seconds": "x"}, 0.0),
    ],
)
def test_transcription_is_billed_by_time_or_tokens(model: str, usage: Any, usd: float) -> None:
    """As the event's own usage says; an unknown model costs as much as the dearest."""
    totals = Usage()
    totals.add_transcription(model, usage)
    assert totals.cost_usd == pytest.approx(usd)


def test_a_resumed_conversation_goes_on_counting() -> None:
    """Totals survive storing and reading."""
    first = Usage()
    first.add_response("gpt-realtime-2.1", REFERENCE_USAGE)
    first.add_transcription("gpt-transcribe", {"type": "duration", "seconds": 60})
    stored = json.loads(json.dumps(first.as_json()))
    assert Usage.from_json(stored, first.cost_usd) == first


@pytest.mark.parametrize("stored", [{}, {"tokens": []}, {"tokens": {"a": "x", "b": 1.5}, "responses": "many"}])
def test_stored_nonsense_counts_from_zero(stored: dict[str, Any]) -> None:
    """Totals that cannot be read do not end a conversation."""
    assert Usage.from_json(stored, 0.5) == Usage(cost_usd=0.5)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["input_token_details", "cached_tokens_details", "audio_tokens", "seconds", "type"]), inner
        )
    ),
    max_leaves=8,
)


@given(JSON)
def test_no_usage_makes_a_conversation_cheaper(usage: Any) -> None:
    """Whatever a service reports, the cost is a number and never falls."""
    totals = Usage()
    totals.add_response("gpt-realtime-2.1", usage)
    totals.add_transcription("gpt-transcribe", usage)
    assert 0 <= totals.cost_usd < 1e9
