"""What a session does, as spans: its links, its responses, its tools.

Looked at only when something other than audio has happened.
"""

from __future__ import annotations

from core.conversation import Conversation
from services.traces import NO_TRACE, Span, Trace


class ResponseSpans:
    """The responses of one conversation as spans: from the moment one runs to its end.

    Args:
        conversation: Whose responses they are.
    """

    __slots__ = ("_conversation", "_id", "_span", "trace")

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._id: str | None = None
        self._span: Span | None = None
        self.trace: Trace = NO_TRACE

    def look(self) -> None:
        """Begin or end a span when another response runs than at the last look."""
        exchange = self._conversation.exchange
        running = exchange.sequencer.active_id
        if running == self._id:
            return
        if self._span is not None:
            self._span.end(first_audio_s=exchange.last_audio_s, turns=exchange.transcript.turn_count)
        self._id, self._span = running, None
        if running is not None:
            model = self._conversation.plan.model
            self._span = self.trace.begin("response", gen_ai__request__model=model, gen_ai__response__id=running)
