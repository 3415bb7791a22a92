"""What is remembered of a session: bounded, and without keys."""
from __future__ import annotations

from simulator.records import KEPT_EVENTS, SessionRecord, masked_headers


def test_keys_are_masked_wherever_they_come():
    """Bearer, Azure and subprotocol keys keep only their first three characters."""
    masked = masked_headers([
        ("Authorization", "Bearer sk-verysecret"), ("api-key", "abcdefgh"), ("User-Agent", "x"),
        ("Sec-WebSocket-Protocol", "realtime, openai-insecure-api-key.ek_hidden"),
    ])
    assert masked == {
        "Authorization": "Bearer sk-***", "api-key": "abc***", "User-Agent": "x",
        "Sec-WebSocket-Protocol": "realtime, openai-insecure-api-key ek_***",
    }


def test_appends_in_a_row_are_one_entry():
    """Audio is counted, not kept; other events stand between the counts."""
    record = SessionRecord()
    append = {"type": "input_audio_buffer.append", "audio": "AAAA"}
    for event in (append, append, {"type": "response.create"}, append):
        record.took(event)
    assert [event["type"] for event in record.received] == [append["type"], "response.create", append["type"]]
    assert record.received[0] == {"type": append["type"], "count": 2, "audio_bytes": 6}
    assert append["audio"] == "AAAA"


def test_record_is_bounded():
    """Only the last events are kept."""
    record = SessionRecord()
    for number in range(KEPT_EVENTS + 5):
        record.took({"type": "response.create", "event_id": str(number)})
    assert len(record.received) == KEPT_EVENTS
    assert record.events("response.create")[0]["event_id"] == "5"
