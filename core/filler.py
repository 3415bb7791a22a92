"""A few words while a tool takes its time, so that the caller does not hear a dead line."""

from __future__ import annotations

from core.agent import Agent
from core.commands import Command
from core.exchange import Exchange
from core.instructions import say_exactly

WAIT_S = 1.2
"""Silence after which a caller wonders (Twilio reference, section 6.2: a filler line after 1 to 1.5 s)."""


class Filler:
    """The filler sentence of the tool that runs; each run is filled once.

    Args:
        agent: Whose tools may have such a sentence.

    Attributes:
        due_at: When `due` wants to be called; None when nothing waits.
    """

    __slots__ = ("_sentence", "_sentences", "due_at")

    def __init__(self, agent: Agent) -> None:
        self._sentences = {tool.name: tool.filler.strip() for tool in agent.tools if tool.filler.strip()}
        self._sentence = ""
        self.due_at: float | None = None

    def tool_began(self, name: str, now: float) -> None:
        """Take note that a tool runs."""
        if self.due_at is None and name in self._sentences:
            self._sentence, self.due_at = self._sentences[name], now + WAIT_S

    def due(self, exchange: Exchange, now: float) -> list[Command]:
        """Have the sentence spoken if the tool still runs and the caller hears nothing else."""
        self.due_at = None
        if not exchange.calls or exchange.user_is_speaking:
            return []
        if exchange.sequencer.is_busy or exchange.answers.is_speaking(now):
            self.due_at = exchange.playback.ends_at(now) + WAIT_S
            return []
        return exchange.speak(say_exactly(self._sentence), now)
