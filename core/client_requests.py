"""What the client asked for and the Realtime API has not answered yet.

Such an event goes upstream under an id of ours, so that its answer or refusal is told apart from what this server asks
for by itself. Here stands which client event is behind each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.realtime import Event

MAX_UNANSWERED = 32
"""More can only be unanswered when the link is dead; then the oldest are forgotten."""


class ClientRequests:
    """The unanswered requests of one link, oldest first."""

    __slots__ = ("_requests",)

    def __init__(self) -> None:
        self._requests: dict[str, tuple[Event, str | None]] = {}

    def __contains__(self, own_id: str) -> bool:
        return own_id in self._requests

    def sent(self, own_id: str, event: Event) -> None:
        """Take note that a client's event goes upstream as `own_id`."""
        self._requests[own_id] = (event, event.get("event_id"))
        if len(self._requests) > MAX_UNANSWERED:
            del self._requests[next(iter(self._requests))]

    def deferred(self, own_id: str, new_id: str) -> None:
        """Take note that a request will be sent once more, as `new_id`."""
        if own_id in self._requests:
            self._requests[new_id] = self._requests.pop(own_id)

    def configured(self) -> Mapping[str, Any] | None:
        """Take note that a change of the session took effect; returns the oldest one asked for, or None."""
        own_id = self._oldest_change()
        return self._requests.pop(own_id)[0]["session"] if own_id is not None else None

    def refused(self, own_id: str | None, param: Any) -> tuple[bool, str | None]:
        """Take an upstream error.

        Args:
            own_id: Id the error names; some name none, then one about a session field is about the oldest change.
            param: Field the error names.

        Returns:
            Whether a request of the client was refused, and the id the client had given it.
        """
        if own_id is None and str(param).startswith("session"):
            own_id = self._oldest_change()
        if own_id not in self._requests:
            return False, None
        return True, self._requests.pop(own_id)[1]

    def forget_all(self) -> None:
        """Forget every request; the link they were sent on is gone."""
        self._requests.clear()

    def _oldest_change(self) -> str | None:
        return next((own_id for own_id, (event, _) in self._requests.items() if "session" in event), None)
