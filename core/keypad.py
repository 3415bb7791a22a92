"""The keys of the caller's telephone: collected for a tool that waits for digits, told to the model otherwise.

Digits may be a card number or a PIN: the model is told them, nothing else is.
"""

from __future__ import annotations

import json

from core.commands import Command, RunTool
from core.conversation import Conversation
from core.exchange import KEYS_PRESSED

BETWEEN_S = 6.0
"""Longest pause between two digits; people who read a number off a card pause for some seconds."""

FIRST_S = 15.0
"""Longest wait for the first digit, from the end of what the agent says: long enough to find a card."""

SETTLE_S = 2.0
"""Pause after which digits nobody asked for are told to the model, so that `12#` is one message and not three."""

MAX_DIGITS = 32
"""Most digits collected: a card number and its expiry are 20."""


class Keypad:
    """The keys pressed in one call.

    Attributes:
        due_at: When `due` wants to be called; None when nothing waits.
    """

    __slots__ = ("_call_id", "_digits", "_wanted", "due_at")

    def __init__(self) -> None:
        self._call_id: str | None = None
        self._wanted = 1
        self._digits = ""
        self.due_at: float | None = None

    def begin(self, command: RunTool, conversation: Conversation, now: float) -> list[Command]:
        """Wait for the digits a tool call asks for; digits pressed just before count.

        A call that waits already gets what was pressed until now.
        """
        commands = self._answer(conversation, now) if self._waits(conversation) else []
        early, self._digits = self._digits, ""
        self._call_id, self._wanted = command.call_id, _wanted(command.arguments)
        self.due_at = conversation.exchange.playback.ends_at(now) + FIRST_S
        for digit in early:
            commands += self.pressed(digit, conversation, now)
        return commands

    def pressed(self, digit: str, conversation: Conversation, now: float) -> list[Command]:
        """Take one key; `#` ends the input of a tool that waits."""
        if not self._waits(conversation):
            self._digits = (self._digits + digit)[-MAX_DIGITS:]
            self.due_at = now + SETTLE_S
            return []
        if digit != "#":
            self._digits += digit
        if digit == "#" or len(self._digits) >= self._wanted:
            return self._answer(conversation, now)
        self.due_at = now + BETWEEN_S
        return []

    def due(self, conversation: Conversation, now: float) -> list[Command]:
        """Give the digits to the tool that waits, or tell the model what was pressed as soon as there is one."""
        self.due_at = None
        if self._waits(conversation):
            return self._answer(conversation, now)
        if not self._digits:
            return []
        if not conversation.is_live:
            self.due_at = now + SETTLE_S
            return []
        digits, self._digits = self._digits, ""
        return conversation.exchange.keys_pressed(digits, now)

    def _waits(self, conversation: Conversation) -> bool:
        """True while a tool waits; a call whose result is not wanted any more, or whose link is lost, does not."""
        if self._call_id is not None and self._call_id not in conversation.exchange.calls:
            self._call_id = None
        return self._call_id is not None

    def _answer(self, conversation: Conversation, now: float) -> list[Command]:
        call_id, digits = self._call_id or "", self._digits
        self._call_id, self._digits, self.due_at = None, "", None
        output = json.dumps({"digits": digits})
        return conversation.exchange.tool_finished(call_id, output, now, stored=KEYS_PRESSED)


def _wanted(arguments: str) -> int:
    try:
        value = json.loads(arguments)
        digits = int(value.get("digits", 1))
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return 1
    return min(max(digits, 1), MAX_DIGITS)
