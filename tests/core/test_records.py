"""Rows are complete, and survive the way through the spool."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.records import (
    MAX_CONTENT_CHARS,
    ConversationProgress,
    ConversationRow,
    MessageRow,
    Record,
    StoredConversation,
    clean_text,
    in_store_order,
    record_from_dict,
    record_kind,
    record_to_dict,
)

AT = "2026-11-20T12:00:00.000000+00:00"
RECORDS: list[tuple[str, Record]] = [
    ("conversation", ConversationRow("c1", "u1", "a1", "phone", AT, call_sid="CA1")),
    ("progress", ConversationProgress("c1", "u1", AT, 3, {"responses": 2}, 0.5, AT, "client_left")),
    ("message", MessageRow("m1", "c1", "u1", "i1", 0, "user", "hi", "complete", None, None, {"a": 1}, AT)),
]


@pytest.mark.parametrize(("kind", "record"), RECORDS)
def test_a_record_comes_back_from_the_spool_as_it_was(kind: str, record: Record) -> None:
    """Kind and columns are all that is needed, also after JSON."""
    assert record_kind(record) == kind
    assert record_from_dict(kind, json.loads(json.dumps(record_to_dict(record)))) == record


def test_a_kind_nobody_knows_is_an_error() -> None:
    """A spool of a later version is not taken for something else."""
    with pytest.raises(KeyError):
        record_from_dict("telegram", {})


@given(st.text(st.characters(codec=None), max_size=50))
def test_every_text_can_be_stored(text: str) -> None:
    """What is stored has no NUL, no half of a surrogate pair and no more than the limit."""
    clean = clean_text(text, 20)
    assert "\x00" not in clean
    assert len(clean.encode("utf-8").decode("utf-8")) <= 20


def test_ordinary_text_is_stored_as_it_is() -> None:
    """Only an attack is cut or changed."""
    assert clean_text("Grüß Gott 😀") == "Grüß Gott 😀"
    assert len(clean_text("x" * (MAX_CONTENT_CHARS + 5))) == MAX_CONTENT_CHARS
    assert clean_text("a\x00b\ud800c") == "ab?c"


def test_a_stored_conversation_holds_what_a_resume_needs() -> None:
    """Owner, agent and totals are at hand when somebody comes back."""
    stored = StoredConversation("c1", "u1", "a1", "browser", 3, {"responses": 2}, 0.5)
    assert (stored.user_id, stored.turn_count, stored.cost_usd) == ("u1", 3, 0.5)


def test_records_are_put_in_an_order_of_few_statements() -> None:
    """Conversations come first, each kind keeps its order, and only a conversation's last progress is left."""

    def message(number: int) -> MessageRow:
        return MessageRow(str(number), "c1", "u1", f"i{number}", number, "user", "x", "complete", None, None, {}, "t")

    def progress(conversation_id: str, turns: int) -> ConversationProgress:
        return ConversationProgress(conversation_id, "u1", f"t{turns}", turns, {}, 0.0)

    first = ConversationRow("c1", "u1", "a1", "browser", "t")
    second = ConversationRow("c2", "u1", "a1", "browser", "t")
    given_ones = [first, message(1), progress("c1", 1), second, message(2), progress("c2", 1), progress("c1", 2)]
    assert in_store_order(given_ones) == [
        first, second, message(1), message(2), progress("c1", 2), progress("c2", 1),
    ]  # fmt: skip
    assert in_store_order([]) == []
