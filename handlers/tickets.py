"""One-time tickets: a way in for pages that want no JWT in a URL.

`POST /api/tickets` with a bearer JWT answers a ticket that stands for that user once, within a minute, as `token=`.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable

from services.auth import User

LIFE_S = 60.0
"""Contract, section 2."""

PREFIX = "tkt_"
"""Tells a ticket from a JWT, which begins with `eyJ`."""

MAX_TICKETS = 10_000
"""Tickets kept; beyond it the oldest goes. Two a second for every one of 1000 users would need a tenth of it."""


class Tickets:
    """The tickets of this process; only their hashes are kept."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tickets: OrderedDict[str, tuple[User, float]] = OrderedDict()

    def issue(self, user: User) -> str:
        """Return a new ticket for the user."""
        ticket = PREFIX + secrets.token_urlsafe(32)
        self._tickets[_hash(ticket)] = (user, self._clock() + LIFE_S)
        while len(self._tickets) > MAX_TICKETS:
            self._tickets.popitem(last=False)
        return ticket

    def redeem(self, ticket: str) -> User | None:
        """Return the user of a ticket and forget it; None when it is unknown, used or too old."""
        entry = self._tickets.pop(_hash(ticket), None)
        if entry is None or entry[1] < self._clock():
            return None
        return entry[0]


def is_ticket(token: str) -> bool:
    """True when the text is meant as a ticket."""
    return token.startswith(PREFIX)


def _hash(ticket: str) -> str:
    return hashlib.sha256(ticket.encode()).hexdigest()
