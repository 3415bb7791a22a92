"""What every line to a person offers: a browser's session, a phone call's bridge; `handlers/relay.py` performs."""

from __future__ import annotations

from typing import Protocol

from core.commands import Command
from core.conversation import Conversation
from core.errors import Ending
from core.realtime import Event
from core.recovery import Loss


class Line(Protocol):
    """Facts in, commands out; perform the commands in order and without waiting in between."""

    conversation: Conversation

    @property
    def next_deadline(self) -> float | None:
        """When `time_passed` wants to be called; None only when the line has ended."""

    def begin(self, now: float) -> list[Command]:
        """Begin; called once."""

    def forward_audio(self, frame: bytes, now: float) -> bytes | None:
        """Return a client's audio frame as the voice service takes it; None when `client_received` must read it."""

    def client_received(self, frame: bytes, now: float) -> list[Command]:
        """Take one text message of the client."""

    def refuse_binary(self, now: float) -> list[Command]:
        """Take note of a binary message."""

    def client_left(self, ending: Ending, now: float) -> list[Command]:
        """Take note that the client's socket is gone."""

    def end(self, ending: Ending, now: float) -> list[Command]:
        """End the line from our side."""

    def notice(self, event: Event) -> list[Command]:
        """Tell the client something of the server's, if it can be told."""

    def upstream_opened(self, generation: int, now: float) -> list[Command]:
        """Take note that a link to the voice service is open."""

    def upstream_lost(self, generation: int, loss: Loss, now: float) -> list[Command]:
        """Take note that a link is gone."""

    def pass_audio(self, frame: bytes, now: float) -> tuple[bytes, ...] | None:
        """Return the client's messages for the service's audio; None when `upstream_received` must read the frame.

        The first is audio and may be lost, a second one must not; there is none when nobody may hear it.
        """

    def pass_words(self, frame: bytes, now: float) -> bytes | None:
        """Return the client's message for a piece of transcript, empty for none; None when the frame must be read."""

    def upstream_received(self, generation: int, frame: bytes, now: float) -> list[Command]:
        """Take every other message of the voice service."""

    def tool_finished(self, call_id: str, output: str, now: float) -> list[Command]:
        """Take a tool's output."""

    def token_accepted(self, expires_at: float | None, now: float) -> list[Command]:
        """Take the expiry of a refreshed token of the same user."""

    def token_refused(self, now: float) -> list[Command]:
        """Take note that a refreshed token was not accepted."""

    def time_passed(self, now: float) -> list[Command]:
        """Act on every deadline that is over."""


class WithoutScreen:
    """What a line to a person without a screen and a token has to say about them: nothing."""

    def refuse_binary(self, now: float) -> list[Command]:
        """Ignore a binary message: Twilio sends none."""
        return []

    def notice(self, event: Event) -> list[Command]:
        """Tell nothing: a caller sees no notices."""
        return []

    def token_accepted(self, expires_at: float | None, now: float) -> list[Command]:
        """Change nothing: calls have no token of a user."""
        return []

    def token_refused(self, now: float) -> list[Command]:
        """Change nothing: calls have no token of a user."""
        return []
