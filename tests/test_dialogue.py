"""The test tool itself: a dialogue that differs fails with both sides."""

from __future__ import annotations

import pytest

from core.commands import SendUpstream
from core.session import BrowserSession
from tests.dialogue import Dialogue, told


def test_a_mismatch_shows_both_dialogues() -> None:
    """What was expected and what came are both in the failure, with everything before them."""
    talk = Dialogue()
    talk.begins().gives("open 1")
    with pytest.raises(AssertionError) as failed:
        talk.opened().gives("model: something else")
    wanted, got = str(failed.value).split("--- the dialogue as it was")
    assert "the session begins\n    open 1\nthe link is open\n    model: something else" in wanted
    assert "model: session.update gw_cfg_1" in got


def test_a_command_nobody_expected_fails() -> None:
    """A step that should give nothing, and gives something, is a failure; notes and progress may be left out."""
    with pytest.raises(AssertionError):
        Dialogue().begins().gives()
    Dialogue().live().lost().gives("close upstream", "client: notice reconnecting", "open 2 after 0.4 s")


def test_an_endless_deadline_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deadline that is set again and again for the same time does not hang the test."""
    talk = Dialogue().live()
    monkeypatch.setattr(BrowserSession, "time_passed", lambda session, now: [])
    with pytest.raises(AssertionError, match="deadlines"):
        talk.later(9999)


def test_a_command_without_a_notation_is_an_error() -> None:
    """A new command must get a word before it can be tested."""
    with pytest.raises(TypeError):
        told(object())
    assert told(SendUpstream(b'{"type":"x"}')) == "model: x"
