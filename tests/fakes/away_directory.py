"""A live-session directory that can never be asked, as on a disk that fails.

It misleads in that it says so at once, where a locked file takes 25 ms.
"""

from __future__ import annotations

from services.directory import Counts, DirectoryUnavailable, Noted


class AwayDirectory:
    """Raises DirectoryUnavailable whatever it is asked."""

    async def take(self, session: int, channel: str) -> bool:
        """Raise."""
        raise DirectoryUnavailable

    async def take_for(self, session: int, user_id: str, *, follows: bool = False) -> bool:
        """Raise."""
        raise DirectoryUnavailable

    async def note(self, session: int, conversation_id: str) -> Noted:
        """Raise."""
        raise DirectoryUnavailable

    def release(self, session: int) -> None:
        """Do nothing."""

    async def has_room(self, user_id: str | None = None) -> bool:
        """Raise."""
        raise DirectoryUnavailable

    async def counts(self) -> Counts:
        """Raise."""
        raise DirectoryUnavailable

    async def put_ticket(self, key: str, holder: str, life_s: float) -> None:
        """Raise."""
        raise DirectoryUnavailable

    async def take_ticket(self, key: str) -> str | None:
        """Raise."""
        raise DirectoryUnavailable

    def close(self) -> None:
        """Do nothing."""
