"""The single-flight sequencer of `response.create`.

The API runs one response at a time on a conversation; a create that races the server's own voice activity detection or
a second tool result is refused. Source: OpenAI Realtime reference, sections 8.3 and 13 (P8).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from core.realtime import Event

State = Literal["free", "requested", "active", "cancelling"]

Why = Literal["client", "tools", "greeting", "goodbye", "retry", "resume"]
"""Who wants a response."""


class ResponseSequencer:
    """Sends at most one `response.create` at a time and keeps at most one waiting.

    Methods return the event to send now, or None.
    """

    __slots__ = ("_asked", "_counter", "_waiting", "active_id", "state")

    def __init__(self) -> None:
        self.state: State = "free"
        self.active_id: str | None = None
        self._waiting: tuple[Why, Mapping[str, Any]] | None = None
        self._asked: tuple[Why, Mapping[str, Any]] | None = None
        self._counter = 0

    @property
    def is_busy(self) -> bool:
        """True while a response is asked for, runs or is being cancelled."""
        return self.state != "free"

    @property
    def asked_for(self) -> Why | None:
        """Who asked for the response that runs or is awaited; None when the server began it."""
        return self._asked[0] if self._asked else None

    @property
    def next_event_id(self) -> str:
        """Id of the `response.create` that was sent last, or that waits."""
        return f"gw_rc_{self._counter + 1 if self._waiting else self._counter}"

    def request(self, why: Why, fields: Mapping[str, Any] | None = None) -> Event | None:
        """Ask for a response; when one is running it is asked for as soon as that ends."""
        wanted = (why, fields or {})
        if self.state != "free":
            self._waiting = wanted
            return None
        return self._create(wanted)

    def _create(self, wanted: tuple[Why, Mapping[str, Any]]) -> Event:
        self.state, self._asked, self._waiting = "requested", wanted, None
        self._counter += 1
        event: Event = {"type": "response.create", "event_id": f"gw_rc_{self._counter}"}
        if wanted[1]:
            event["response"] = dict(wanted[1])
        return event

    def cancel(self) -> bool:
        """Take note that a cancel is sent; returns whether there is anything to cancel."""
        if self.state == "free":
            return False
        self.state = "cancelling"
        return True

    def created(self, response_id: str) -> None:
        """Take `response.created`, of one of our creates or of one the server began by itself."""
        if self.state != "cancelling":
            self.state = "active"
        self.active_id = response_id

    def done(self, response_id: str) -> Event | None:
        """Take `response.done`; returns the waiting create, if there is one."""
        if self.active_id is not None and response_id != self.active_id:
            return None
        self.state, self.active_id, self._asked = "free", None, None
        return self._create(self._waiting) if self._waiting else None

    def refused(self, event_id: str | None, code: str) -> bool:
        """Take an error about one of our creates; returns whether it was about the latest one.

        A create refused because another response runs waits for that one's end.
        """
        if self._asked is None or event_id != f"gw_rc_{self._counter}":
            return False
        asked, self._asked = self._asked, None
        if code == "conversation_already_has_active_response":
            self._waiting = self._waiting or asked
            self.state = "active"
        elif self.active_id is None:
            self.state = "free"
        return True

    def not_active(self) -> Event | None:
        """Take `response_cancel_not_active`: nothing runs; returns the waiting create, if there is one."""
        if self.state != "cancelling":
            return None
        self.state, self.active_id, self._asked = "free", None, None
        return self._create(self._waiting) if self._waiting else None
