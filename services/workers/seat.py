"""A worker's place in its server: number, sockets, and the link to the parent.

A process without a parent has seat 0 and sockets of its own. One that has a parent finds its seat in the environment,
as JSON with numbers of inherited file descriptors.

The link carries lines. From the parent: `drain`, `force`, `forget`, `leave`; its end means that the parent is gone. To
the parent: `ready`, each second `beat` with the live sessions by channel as JSON, and `leaving` from a worker that was
told to stop by somebody else; `leave` is the answer while another worker takes what comes.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field

from .sockets import bind, bind_again, close

VARIABLE = "VOICE_SEAT"
"""Environment variable that names a worker's seat; for the parent to set, not for operators."""

BEAT_S = 1.0
"""Between two signs of life."""

DRAIN, FORCE, FORGET, LEAVE = "drain", "force", "forget", "leave"
ORPHANED = "orphaned"
"""What the end of the link means."""

Counts = Callable[[], Mapping[str, int]]


@dataclass(slots=True)
class Seat:
    """A worker's place.

    Attributes:
        number: From 0.
        doors: Sockets of PORT, bound.
        health: Sockets of HEALTH_PORT, bound.
        link: To the parent; None when there is none.
        port, health_port: The sockets' ports, known also after they are closed.
    """

    number: int
    doors: list[socket.socket]
    health: list[socket.socket]
    link: socket.socket | None = None
    port: int = field(init=False)
    health_port: int = field(init=False)
    _beating: asyncio.Task[None] | None = field(default=None, init=False)
    _away: list[list[tuple[int, tuple[object, ...]]]] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.port, self.health_port = self.doors[0].getsockname()[1], self.health[0].getsockname()[1]

    @classmethod
    def alone(cls, port: int, health_port: int, host: str) -> Seat:
        """Return the seat of a process without a parent.

        Raises:
            OSError: If somebody listens on a port.
        """
        doors = bind(port, host)
        try:
            return cls(0, doors, bind(health_port, host))
        except OSError:
            close(doors)
            raise

    @classmethod
    def inherited(cls, environ: MutableMapping[str, str]) -> Seat | None:
        """Return the seat a parent gave to this process, and remove it from the environment; None without a parent.

        Raises:
            OSError: If the descriptors are not there.
        """
        text = environ.pop(VARIABLE, "")
        if not text:
            return None
        told = json.loads(text)
        link = _adopt(told["link"])
        return cls(told["number"], [_adopt(n) for n in told["doors"]], [_adopt(n) for n in told["health"]], link)

    def leave_port(self) -> None:
        """Close the sockets, so that new connections go to the other seats; `take_port` brings them back."""
        if self._away is None:
            self._away = [[(one.family, one.getsockname()) for one in group] for group in (self.doors, self.health)]
            close([*self.doors, *self.health])

    def take_port(self) -> None:
        """Bind the sockets again that `leave_port` closed; nothing if it was not called.

        Raises:
            OSError: If somebody who does not share has taken a port meanwhile.
        """
        if self._away is not None:
            self.doors = bind_again(self._away[0])
            self.health = bind_again(self._away[1])
            self._away = None

    def describe(self) -> str:
        """Return the text for `VARIABLE` of a child that inherits these sockets and this link."""
        assert self.link is not None
        return json.dumps(
            {
                "number": self.number,
                "doors": [one.fileno() for one in self.doors],
                "health": [one.fileno() for one in self.health],
                "link": self.link.fileno(),
            }
        )

    @property
    def worker(self) -> str:
        """The worker's name, unique among all that share a STATE_DIR."""
        return f"{self.port}-{self.number}"

    # ------------------------------------------------------------------ the link, in the worker

    def report_to_parent(self, counts: Counts, orders: Mapping[str, Callable[[], None]]) -> None:
        """Tell the parent that this worker listens, beat from now on, and take orders; nothing without a parent.

        Args:
            counts: Live sessions by channel.
            orders: What to do at `drain`, `force`, `forget`, `leave`, and `orphaned`, which the parent's end says.
        """
        link = self.link
        if link is None:
            return
        link.setblocking(False)
        loop = asyncio.get_running_loop()
        left = b""

        def take() -> None:
            nonlocal left
            with suppress(BlockingIOError):
                try:
                    data = link.recv(4096)
                except ConnectionError:
                    data = b""
                *lines, left = (left + data).split(b"\n")
                if not data:
                    loop.remove_reader(link)
                for line in lines if data else [ORPHANED.encode()]:
                    orders.get(line.decode(), _nothing)()

        loop.add_reader(link, take)
        self._beating = loop.create_task(self._beat(link, counts), name="beat")

    async def _beat(self, link: socket.socket, counts: Counts) -> None:
        """Sign on, then beat: from the event loop, so that a loop that is blocked is silent."""
        with suppress(OSError):  # a parent that is gone or does not read is none of a live session's business
            link.send(b"ready\n")
        while True:
            with suppress(OSError):
                link.send(f"beat {json.dumps(dict(counts()))}\n".encode())
            await asyncio.sleep(BEAT_S)

    def ask_to_leave(self) -> None:
        """Tell the parent that this worker ends by itself; `leave` comes back when the others serve the port without
        it. Nothing without a parent.
        """
        if self.link is not None:
            with suppress(OSError):  # the parent is gone: there is nobody to serve in its stead
                self.link.send(b"leaving\n")

    def close(self) -> None:
        """Close sockets and link; the parent sees the process's end by itself."""
        close([*self.doors, *self.health])
        if self._beating is not None:
            self._beating.cancel()
        if self.link is not None:
            with suppress(RuntimeError, ValueError, OSError):
                asyncio.get_running_loop().remove_reader(self.link)
            self.link.close()


def _nothing() -> None:
    """Leave an order undone that nobody here knows."""


def _adopt(number: int) -> socket.socket:
    """Return an inherited socket, not to be inherited any further."""
    one = socket.socket(fileno=number)
    one.set_inheritable(False)
    return one
