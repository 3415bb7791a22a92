"""A stored conversation as a document."""

from __future__ import annotations

from dataclasses import replace

from core.export import as_json, as_text
from core.records import ListedConversation, Turn

TALK = ListedConversation(
    id="c1", user_id="u1", agent_id="a1", agent_name="Ada", channel="phone", call_sid="CA1", started_at="T1",
    last_active_at="T2", ended_at="T3", end_reason="agent_ended", turn_count=2, usage={"total_tokens": 7},
    cost_usd=0.01234,
)  # fmt: skip
TURNS = [
    Turn("i1", 0, "user", "Two\nlines"),
    Turn("i2", 1, "assistant", "Well, \x1b[31mred", "interrupted", heard_ms=640, spoken_ms=1800),
    Turn("i3", 2, "tool", "3 pairs", metadata={"name": "stock"}),
    Turn("i4", 3, "tool", "lost", "failed"),
]


def test_text_reads_like_a_play_and_cannot_colour_a_terminal() -> None:
    """Who said what, how much was heard; escape sequences are shown, not obeyed."""
    assert as_text(TALK, TURNS).splitlines() == [
        "Conversation c1",
        "Ada (a1) with user u1, phone, call CA1",
        "T1 to T3, agent_ended",
        "2 turns, 0.0123 USD",
        "",
        "Person: Two",
        "  lines",
        "Agent: Well, \\x1b[31mred [interrupted, 0.6 of 1.8 s heard]",
        "Tool stock: 3 pairs",
        "Tool: lost [failed]",
    ]


def test_open_conversation_has_its_last_sign_of_life() -> None:
    """Without an end the last activity stands in its place."""
    talk = replace(TALK, ended_at=None, end_reason=None, call_sid=None, agent_name="")
    assert as_text(talk, []).splitlines()[1:3] == ["Agent (a1) with user u1, phone", "T1 to T2, open"]


def test_json_holds_every_column() -> None:
    """A program gets the conversation's columns and the messages."""
    told = as_json(TALK, TURNS)
    assert told["call_sid"] == "CA1" and told["usage"] == {"total_tokens": 7}
    assert [message["role"] for message in told["messages"]] == ["user", "assistant", "tool", "tool"]
    assert told["messages"][1]["heard_ms"] == 640
