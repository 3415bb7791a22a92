"""The single-flight sequencer of `response.create`.

The API runs one response at a time on a conversation; a create that races the server's own voice activity detection or
a second tool result is refused. Source: OpenAI Realtime reference, sections 8.3 and 13 (P8).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from core.realtime import Event

State = Literal["free", "requested", "active", "cancelling"]

Why = Literal["client", "tools", "greeting", "goodbye", "retry", "resume", "say"]
"""Who wants a response."""

_Wanted = tuple[Why, Mapping[str, Any]]

_RANK: Mapping[Why, int] = {"retry": 0, "resume": 0, "tools": 1, "greeting": 1, "say": 2, "client": 2, "goodbye": 3}
"""Which of two waiting wishes is kept: one response answers both, but a client's and a goodbye have fields."""


class ResponseSequencer:
    """Sends at most one `response.create` at a time and keeps at most one waiting.

    Methods return the event to send now, or None.
    """

    __slots__ = ("_asked", "_counter", "_waiting", "active_id", "state")

    def __init__(self) -> None:
        self.state: State = "free"
        self.active_id: str | None = None
        self._waiting: _Wanted | None = None
        self._asked: _Wanted | None = None
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
    def asked_fields(self) -> Mapping[str, Any]:
        """Fields of the response that runs or is awaited; empty when the server began it."""
        return self._asked[1] if self._asked else {}

    @property
    def next_event_id(self) -> str:
        """Id of the `response.create` that was sent last, or of the one that waits."""
        return f"gw_rc_{self._counter + 1 if self._waiting else self._counter}"

    def request(self, why: Why, fields: Mapping[str, Any] | None = None) -> Event | None:
        """Ask for a response; when one is running it is asked for as soon as that ends."""
        wanted = (why, fields or {})
        if self.state == "free":
            return self._create(wanted)
        self._wait(wanted)
        return None

    def _wait(self, wanted: _Wanted) -> None:
        """Keep one wish; one that asks for something particular is not lost to one that any response fulfils."""
        if self._waiting is None or _RANK[wanted[0]] >= _RANK[self._waiting[0]]:
            self._waiting = wanted

    def _create(self, wanted: _Wanted) -> Event:
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
        return self._freed()

    def refused(self, event_id: str) -> Event | None:
        """Take an error about one of our creates; returns the waiting create, if there is one."""
        if self._asked is None or event_id != f"gw_rc_{self._counter}":
            return None
        self._asked = None
        return self._freed() if self.active_id is None else None

    def collided(self, event_id: str | None) -> bool:
        """Take the refusal of a create because another response runs: it waits for that one's end.

        When it was none of ours, the server's own attempt to answer failed and a create of ours stands in for it.

        Returns:
            False when nothing runs that could have been in the way, so that nothing waits.
        """
        if self.state == "free":
            return False
        is_ours = self._asked is not None and (event_id == f"gw_rc_{self._counter}" or self.state == "requested")
        if self._asked is not None and is_ours:
            self._wait(self._asked)
            self._asked = None
        else:
            self._wait(("retry", {}))
        if self.state == "requested":
            self.state = "active"
        return True

    def not_active(self) -> Event | None:
        """Take `response_cancel_not_active`: nothing runs; returns the waiting create, if there is one."""
        return self._freed() if self.state == "cancelling" else None

    def _freed(self) -> Event | None:
        self.state, self.active_id, self._asked = "free", None, None
        return self._create(self._waiting) if self._waiting else None
