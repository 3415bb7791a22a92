"""Commands are built alike everywhere."""

from __future__ import annotations

import json

import pytest

from core.commands import URGENT, CheckToken, RunTool, SaveTurn, optional, saved, send, tell
from core.records import Turn


def test_an_event_becomes_one_frame() -> None:
    """Events go out as compact JSON in UTF-8."""
    assert send({"type": "x", "text": "ü"}).frame == '{"type":"x","text":"ü"}'.encode()
    assert json.loads(tell({"type": "y"}).frame) == {"type": "y"}


@pytest.mark.parametrize("kind", sorted(URGENT))
def test_what_does_not_depend_on_the_audio_overtakes_it(kind: str) -> None:
    """A slow line delivers interruptions, errors, notices and transcripts first."""
    assert tell({"type": kind}).urgent


def test_what_belongs_to_the_audio_keeps_its_place() -> None:
    """The end of a response never overtakes its audio."""
    assert not tell({"type": "response.done"}).urgent


def test_none_and_nothing_lead_to_nothing() -> None:
    """Helpers take the absence of an event or turn."""
    assert optional(None) == []
    assert optional({"type": "x"}) == [send({"type": "x"})]
    turn = Turn("i1", 0, "user", "hi")
    assert saved([turn]) == [SaveTurn(turn)]


def test_secrets_are_in_no_repr() -> None:
    """Tokens and tool arguments cannot slip into a log through a repr."""
    assert "s3cret" not in repr(CheckToken("s3cret")) + repr(RunTool("c1", "pay", "s3cret"))
