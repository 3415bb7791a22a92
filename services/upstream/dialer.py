"""The socket of one link, connected to the first address of its host that answers."""

from __future__ import annotations

import asyncio
import socket
from typing import Any


class Dialer:
    """Connects the socket of one link, so that it can be hung up at any moment.

    picows goes on with a handshake whose caller was cancelled: nobody would own the session that opens.
    """

    def __init__(self) -> None:
        self._socket: socket.socket | None = None

    async def dial(self, url: Any) -> socket.socket:
        """Return a socket connected to the first address of the host that answers.

        Raises:
            OSError: If none does.
        """
        loop = asyncio.get_running_loop()
        failure: OSError = OSError("the host has no address")
        for family, kind, protocol, address in await addresses_of(url.host, url.port):
            self._socket = socket.socket(family, kind, protocol)
            self._socket.setblocking(False)
            try:
                await loop.sock_connect(self._socket, address)
            except OSError as error:
                self._socket.close()
                failure = error
            except BaseException:
                self._socket.close()
                raise
            else:
                return self._socket
        raise failure

    def hang_up(self) -> None:
        """End the connection, whatever it was doing; its transport sees the end and closes the socket."""
        if self._socket is not None and self._socket.fileno() != -1:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it was not connected


async def addresses_of(host: str, port: int) -> list[tuple[int, int, int, Any]]:
    """Return family, kind, protocol and address of a host, the best first."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, kind, protocol, address) for family, kind, protocol, _, address in found]
