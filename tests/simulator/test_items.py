"""The conversation: the chain, what is kept of the sound, truncation."""
from __future__ import annotations

import pytest

from simulator.items import KEPT_AUDIO_BYTES, Conversation, Item, item_from_client, new_id
from simulator.schema import Invalid


def spoken(role: str, ms: int) -> Item:
    """Return an item with so much sound and a transcript."""
    kind = "output_audio" if role == "assistant" else "input_audio"
    content = [{"type": kind, "transcript": "words"}]
    return Item({"id": new_id("item"), "type": "message", "role": role, "content": content}, bytearray(48 * ms))


def test_ids_are_short_and_different():
    """Ids have the prefix and 21 characters, under the limit of 32, and do not repeat."""
    ids = {new_id("item") for _ in range(1_000)}
    assert len(ids) == 1_000
    assert {len(item_id) for item_id in ids} == {26}


def test_truncation_cuts_sound_and_words():
    """What is left is exactly the milliseconds heard, and no transcript."""
    conversation, item = Conversation(), spoken("assistant", 1_000)
    conversation.add(item)
    conversation.truncate(item.id, 400, 0)
    assert (item.audio_ms, item.truncated, item.data["content"]) == (400, True, [{"type": "output_audio"}])
    conversation.truncate(item.id, 400, 0)


@pytest.mark.parametrize(("role", "end_ms", "index", "code"), [
    ("assistant", 1_001, 0, "invalid_value"), ("assistant", 0, 0, "unsupported_content_type"),
    ("user", 500, 0, "unsupported_content_type"), ("assistant", 500, 1, "invalid_value"),
])
def test_impossible_truncation_is_refused(role, end_ms, index, code):
    """Beyond the end, to nothing, of a user's audio, or of a part that is not there."""
    conversation, item = Conversation(), spoken(role, 1_000)
    conversation.add(item)
    with pytest.raises(Invalid) as refused:
        conversation.truncate(item.id, end_ms, index)
    assert refused.value.code == code
    assert item.audio_ms == 1_000


def test_old_sound_is_forgotten_first():
    """A long session keeps its items and its newest sound, within a bound."""
    conversation = Conversation()
    items = [spoken("user", 60_000) for _ in range(8)]
    for item in items:
        conversation.add(item)
    assert len(conversation) == 8
    assert sum(len(item.audio) for item in conversation) <= KEPT_AUDIO_BYTES
    assert items[0].audio_ms == 0
    assert items[-1].audio_ms == 60_000


def test_client_items_are_completed():
    """An item gets id, object and status; its audio leaves the visible part; a call gets a call id."""
    item = item_from_client({"type": "message", "role": "user", "content": [
        {"type": "input_audio", "audio": "AAAA" * 64}, {"type": "input_text", "text": "and this"}]}, "audio/pcmu")
    assert item.data["content"][0] == {"type": "input_audio", "transcript": None}
    assert item.data["content"][1] == {"type": "input_text", "text": "and this"}
    assert (item.audio_ms, item.data["status"], item.data["object"]) == (24, "completed", "realtime.item")
    assert item.text() == "and this"
    call = item_from_client({"type": "function_call", "name": "f", "arguments": "{}"}, "audio/pcm")
    assert call.data["call_id"].startswith("call_")
