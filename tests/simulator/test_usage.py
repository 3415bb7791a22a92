"""Tokens: published rates, the cached subset, the rate limit."""
from __future__ import annotations

from simulator.items import Item, new_id
from simulator.usage import CACHE_STEP, TOKENS_PER_MINUTE, Meter, audio_tokens, text_tokens


def sound(role: str, ms: int) -> Item:
    """Return an item with so much PCM."""
    data = {"id": new_id("item"), "type": "message", "role": role, "content": []}
    return Item(data, bytearray(48 * ms))


def test_published_rates():
    """Assistant audio is one token per 50 ms, user audio one per 100 ms, text one per four characters."""
    assert (audio_tokens(1_000), text_tokens("12345")) == (20, 2)
    usage = Meter().usage([], [sound("user", 10_000), sound("assistant", 10_000)], output_text=3, output_audio=20)
    assert usage["input_token_details"]["audio_tokens"] == 100 + 200
    assert usage["output_token_details"] == {"text_tokens": 3, "audio_tokens": 20}
    assert usage["total_tokens"] == 323


def test_what_was_read_before_is_cached_in_steps():
    """The second response reads the unchanged prefix from the cache, in whole steps."""
    meter, prompt = Meter(), ["word " * 200]
    assert meter.usage(prompt, [], output_text=0, output_audio=0)["input_token_details"]["cached_tokens"] == 0
    details = meter.usage(prompt, [sound("user", 1_000)], output_text=0, output_audio=0)["input_token_details"]
    assert details["cached_tokens_details"]["text_tokens"] == 250 // CACHE_STEP * CACHE_STEP
    assert details["cached_tokens_details"]["audio_tokens"] == 0


def test_rate_limit_shrinks():
    """What was used is missing from the limit."""
    meter = Meter()
    meter.usage(["x" * 4_000], [], output_text=0, output_audio=0)
    (limit,) = meter.rate_limits()
    assert (limit["limit"], limit["remaining"]) == (TOKENS_PER_MINUTE, TOKENS_PER_MINUTE - 1_000)
