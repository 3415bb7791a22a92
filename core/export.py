"""A stored conversation as a document: JSON for programs, text for people. It holds what was said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from core.records import ListedConversation, Turn
from core.redaction import one_line

EXPORTED_TURNS = 1_000
"""Turns of one document, the newest: what a hosted project's data API gives in one answer. A talk of five hours."""

SPEAKERS = {"user": "Person", "assistant": "Agent", "tool": "Tool", "system": "System"}


def as_json(of: ListedConversation, turns: Sequence[Turn]) -> dict[str, Any]:
    """Return the conversation's columns and its `messages`, oldest first."""
    return {**asdict(of), "messages": [asdict(turn) for turn in turns]}


def as_text(of: ListedConversation, turns: Sequence[Turn]) -> str:
    """Return the conversation for reading, in plain lines: control characters, which could colour a terminal or forge
    a line, are written as escapes."""
    call = f", call {of.call_sid}" if of.call_sid else ""
    head = [
        f"Conversation {of.id}",
        f"{of.agent_name or 'Agent'} ({of.agent_id}) with user {of.user_id}, {of.channel}{call}",
        f"{of.started_at} to {of.ended_at or of.last_active_at}, {of.end_reason or 'open'}",
        f"{of.turn_count} turns, {of.cost_usd:.4f} USD",
        "",
    ]
    return "\n".join([*map(one_line, head), *(line for turn in turns for line in _lines(turn))]) + "\n"


def _lines(turn: Turn) -> list[str]:
    speaker = SPEAKERS[turn.role]
    if turn.role == "tool":
        speaker = f"{speaker} {turn.metadata.get('name') or ''}".strip()
    first, *rest = turn.content.split("\n")
    mark = "" if turn.status == "complete" else f" [{turn.status}{_heard(turn)}]"
    lines = [f"{speaker}: {first}", *(f"  {line}" for line in rest)]
    lines[-1] += mark
    return [one_line(line) for line in lines]


def _heard(turn: Turn) -> str:
    if turn.heard_ms is None or turn.spoken_ms is None:
        return ""
    return f", {turn.heard_ms / 1000:.1f} of {turn.spoken_ms / 1000:.1f} s heard"
