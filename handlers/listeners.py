"""A server that listens: its HTTP servers, and how they stop."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.web import Application

from handlers.admin import AdminPage
from handlers.context import Context
from services.workers import Seat

MAX_HEADER_BYTES = 16_384
"""Longest request head: a token of 8 KiB in the address and as much for everything else."""

IDLE_CONNECTION_S = 10.0
"""A handshake fed drop by drop is cut after this (operations reference, section 1.1)."""

CLOSE_S = 5.0
"""How long a stop waits for HTTP connections that are kept alive; closing one takes no round trip."""

SETTLE_S = 0.1
"""What handshakes that are just being answered need to take their places: a few turns of the event loop."""

DOORS = 1
"""Place of PORT's server among those of a process: control socket, PORT, HEALTH_PORT."""

SPOOL_DRAIN_S = 10.0
"""How long a stop waits for transcripts to reach the database; the rest stays on disk (operations reference,
section 5)."""


def http_server(application: Application) -> HTTPServer:
    """Return a server for a URL table, with the bounds every table has."""
    return HTTPServer(
        application,
        xheaders=False,
        idle_connection_timeout=IDLE_CONNECTION_S,
        max_header_size=MAX_HEADER_BYTES,
        max_body_size=65_536,  # the JSON doors take small bodies only
    )


@dataclass(slots=True)
class Server:
    """A server that listens; stop it with `stop`."""

    context: Context
    port: int
    health_port: int
    seat: Seat
    _servers: list[HTTPServer]
    _closing: list[Any]
    admin: AdminPage

    async def stop(self, *, drain_s: float = 0.0, force: asyncio.Event | None = None) -> None:
        """Take no new sessions, let the live ones end, write the transcripts, close everything."""
        connections, log = self.context.connections, self.context.logger
        log.info("draining", sessions=connections.active, deadline_s=drain_s)
        if self._is_served_elsewhere():
            connections.is_draining = connections.is_handed_over = True
            self._servers[DOORS].stop()  # nginx goes to the other instance at once; HEALTH_PORT goes on saying no
            await asyncio.sleep(SETTLE_S)
        cut = await connections.drain(drain_s, force or asyncio.Event())
        for server in self._servers:
            server.stop()
        try:
            async with asyncio.timeout(CLOSE_S):
                await asyncio.gather(*(server.close_all_connections() for server in self._servers))
        except TimeoutError:
            log.warning("requests cut off")
        await self.context.spool.close(SPOOL_DRAIN_S)
        while self._closing:  # each once, however often it is stopped
            await self._closing.pop(0)()
        log.info("stopped", sessions_cut=cut)

    def leave_port(self) -> None:
        """Listen no more on PORT and HEALTH_PORT, which the other workers of this server serve; the live sessions and
        the control socket go on.
        """
        for server in self._servers[DOORS:]:
            server.stop()

    def _is_served_elsewhere(self) -> bool:
        """Return whether another instance of this machine takes new sessions, on a port of its own behind nginx."""
        try:
            names = self.context.siblings.names()
        except OSError:
            return False
        return any(name.rpartition("-")[0] != str(self.port) for name in names)
