"""Services that fail or wait on request, put in the place of the real ones."""

from __future__ import annotations

import asyncio
from typing import Any

from core.agent import Agent
from services.store import StoreUnavailable
from services.vault import EnvironmentKey, KeyUnavailable


class NoKey(EnvironmentKey):
    """A Vault without a key; misleads in that it answers at once."""

    def __init__(self) -> None:
        super().__init__("")

    async def key(self, secret_id: str | None = None) -> str:
        """Have none."""
        raise KeyUnavailable("no_row")


class HeldStore:
    """The real store, but an agent comes only when `go_on` is set, or never with `fails`."""

    def __init__(self, store: Any, *, fails: bool = False) -> None:
        self._store, self._fails = store, fails
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def agent(self, agent_id: str, user_id: str) -> Agent | None:
        """Wait, then do what the real one does."""
        self.reached.set()
        if self._fails:
            raise StoreUnavailable("fails on request")
        await self.go_on.wait()
        found: Agent | None = await self._store.agent(agent_id, user_id)
        return found

    async def ping(self) -> None:
        """Fail when it should."""
        if self._fails:
            raise StoreUnavailable("fails on request")
