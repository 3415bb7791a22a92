"""One-time tickets: a way in for pages that want no JWT in a URL.

`POST /api/tickets` with a bearer JWT answers a ticket that stands for that user once, within a minute, as `token=`.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict

from services.auth import User
from services.directory import Directory, DirectoryUnavailable

LIFE_S = 60.0
"""Contract, section 2."""

PREFIX = "tkt_"
"""Tells a ticket from a JWT, which begins with `eyJ`."""

MAX_TICKETS = 10_000
"""Tickets this process keeps; beyond it the oldest goes. Two a second for every one of 1000 users need a tenth."""


class Tickets:
    """The tickets of all processes; only their hashes are kept.

    The directory has them, so that each is good in every process and for one use in all. This process keeps its own
    too, for the time when the directory is away.

    Args:
        clock: Monotonic seconds.
        directory: None when there is no other process.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, directory: Directory | None = None) -> None:
        self._clock = clock
        self._directory = directory
        self._tickets: OrderedDict[str, tuple[User, float]] = OrderedDict()

    async def issue(self, user: User) -> str:
        """Return a new ticket for the user."""
        ticket = PREFIX + secrets.token_urlsafe(32)
        self._tickets[_hash(ticket)] = (user, self._clock() + LIFE_S)
        while len(self._tickets) > MAX_TICKETS:
            self._tickets.popitem(last=False)
        if self._directory is not None:
            try:
                await self._directory.put_ticket(_hash(ticket), json.dumps(asdict(user)), LIFE_S)
            except DirectoryUnavailable:
                pass
        return ticket

    async def redeem(self, ticket: str) -> User | None:
        """Return the user of a ticket and forget it; None when it is unknown, used or too old."""
        own = self._tickets.pop(_hash(ticket), None)
        if self._directory is not None:
            try:
                holder = await self._directory.take_ticket(_hash(ticket))
            except DirectoryUnavailable:
                pass
            else:
                return User(**json.loads(holder)) if holder is not None else None
        if own is None or own[1] < self._clock():
            return None
        return own[0]


def is_ticket(token: str) -> bool:
    """True when the text is meant as a ticket."""
    return token.startswith(PREFIX)


def _hash(ticket: str) -> str:
    return hashlib.sha256(ticket.encode()).hexdigest()
