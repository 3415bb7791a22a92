"""Handing a call over to a person: one of the numbers the agent's owner allowed, after the last word was heard."""

from __future__ import annotations

import json
import re
from xml.sax.saxutils import escape

from core.commands import Command, Note, Redirect, RunTool
from core.conversation import Conversation

TAKE_OVER_S = 8.0
"""How long the stream may live on after the redirect before it counts as failed; it usually ends within a second."""

AFTER_SPEECH_S = 0.3
"""Silence after the sentence that announces the transfer."""

NUMBER = re.compile(r"\+[1-9][0-9]{6,14}")
"""E.164. Source: Twilio reference, section 2."""

_WRITTEN = re.compile(r"[\s().\-/]")
"""What people and models put between the digits of a number."""

NOT_CONNECTED = "The call could not be connected. Tell the caller and offer something else."
CALLED_OFF = "The caller cut in before the call was handed over, so it was not. Transfer again if that is still wanted."
UNDER_WAY = "The call is being transferred already."
NOT_ALLOWED = "Use one of the numbers you may transfer to."
NO_NUMBERS = "This agent may not transfer calls."


class Transfer:
    """The transfer of one call; at most one at a time.

    Args:
        numbers: Allowed numbers; those that are not E.164 without the spaces people write are left out.

    Attributes:
        due_at: When `due` wants to be called; None when nothing waits.
        is_under_way: Whether the call is being handed over, so that the end of the stream is a success.
    """

    __slots__ = ("_call_id", "_number", "_numbers", "due_at", "is_under_way")

    def __init__(self, numbers: tuple[str, ...]) -> None:
        plain = (_WRITTEN.sub("", number) for number in numbers)
        self._numbers = tuple(number for number in plain if NUMBER.fullmatch(number))
        self._call_id = ""
        self._number = ""
        self.due_at: float | None = None
        self.is_under_way = False

    def begin(self, command: RunTool, conversation: Conversation, now: float) -> list[Command]:
        """Begin a transfer when what was said has been heard; a number that is not allowed is refused to the model."""
        number = _number(command.arguments) or (self._numbers[0] if len(self._numbers) == 1 else "")
        if self.due_at is not None or number not in self._numbers:
            return conversation.tool_finished(command.call_id, _error(self._refusal()), now)
        self._call_id, self._number = command.call_id, number
        self.due_at = conversation.exchange.playback.ends_at(now) + AFTER_SPEECH_S
        return []

    def interrupted(self, conversation: Conversation, now: float) -> list[Command]:
        """Call a transfer off because the caller cut in; one whose redirect was sent goes on."""
        if self.due_at is None or self.is_under_way:
            return []
        self.due_at = None
        return conversation.tool_finished(self._call_id, _error(CALLED_OFF), now)

    def due(self, conversation: Conversation, now: float, *, heard_at: float) -> list[Command]:
        """Redirect the call when the last word was heard; tell the model when the redirect had no effect.

        A transfer that is not wanted any more, because its response was cancelled or its link is lost, is dropped.

        Args:
            heard_at: When everything said will have been heard; not after `now` when it was.
        """
        self.due_at = None
        if self.is_under_way:
            self.is_under_way = False
            return conversation.tool_finished(self._call_id, _error(NOT_CONNECTED), now)
        if self._call_id not in conversation.exchange.calls:
            return []
        if heard_at > now:
            self.due_at = heard_at + AFTER_SPEECH_S
            return []
        self.is_under_way = True
        self.due_at = now + TAKE_OVER_S
        twiml = f"<Response><Dial>{escape(self._number)}</Dial></Response>"
        return [Note("call transferred"), Redirect(twiml)]

    def _refusal(self) -> str:
        if self.due_at is not None:
            return UNDER_WAY
        return NOT_ALLOWED if self._numbers else NO_NUMBERS


def _number(arguments: str) -> str:
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        return ""
    number = value.get("number") if isinstance(value, dict) else None
    return _WRITTEN.sub("", number) if isinstance(number, str) else ""


def _error(sentence: str) -> str:
    return json.dumps({"error": sentence})
