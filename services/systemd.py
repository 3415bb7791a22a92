"""What the service tells systemd: ready, how busy, still alive, reloading, stopping.

Source: sd_notify(3) and systemd.service(5), `Type=notify`: datagrams of `NAME=value` lines to the Unix socket that
`$NOTIFY_SOCKET` names; a name that begins with `@` lies in the abstract namespace. Without that variable every method
does nothing, so the server is the same under systemd, PM2 and a shell.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Mapping

STATUS_S = 5.0
"""Pause between two status lines: `systemctl status` is read by people."""

BEATS_PER_TIMEOUT = 3
"""The loop says that it lives this often within WatchdogSec: two beats may be late before it counts as blocked."""

EXTENSION_S = 30.0
"""While stopping, each beat asks for so much more time: what remains after a drain takes at most 27 s."""

Status = Callable[[], str]


class Systemd:
    """The manager that started this process, if there is one.

    Args:
        address: Path of the notification socket, `@…` for an abstract one; None when nobody listens.
        watchdog_s: Seconds of silence after which systemd restarts the service; None when it does not watch.
    """

    def __init__(self, address: str | None = None, watchdog_s: float | None = None) -> None:
        self._address = "\0" + address[1:] if address and address.startswith("@") else address
        self.watchdog_s = watchdog_s if address else None
        self._beating: asyncio.Task[None] | None = None
        self._told = ""
        self._is_stopping = False

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], pid: int) -> Systemd:
        """Return the manager that `environ` names.

        Args:
            environ: Of this process: NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID.
            pid: Of this process; systemd names the one it watches, and a child inherits the variables.
        """
        try:
            watchdog_s = int(environ.get("WATCHDOG_USEC", "")) / 1e6
        except ValueError:
            watchdog_s = 0.0
        is_watched = watchdog_s > 0 and environ.get("WATCHDOG_PID", str(pid)) == str(pid)
        return cls(environ.get("NOTIFY_SOCKET") or None, watchdog_s if is_watched else None)

    def ready(self, status: str = "") -> None:
        """Say that the service listens, or that it is done with a reload."""
        self._send("READY=1", *self._status(status))

    def reload(self, act: Callable[[], None]) -> None:
        """Do what a reload is, and say so before and after it: `systemctl reload` waits for it."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        act()
        self.ready()

    def stopping(self, status: str = "") -> None:
        """Say that the service takes no more work.

        The watchdog still wants to hear of it until it has ended. From here on every beat asks for more time, so that
        a drain longer than TimeoutStopSec is not killed in the middle of a talk: the drain has its own end.
        """
        self._is_stopping = True
        self._send("STOPPING=1", *self._status(status), *self._extension())

    def beat(self, status: str = "") -> None:
        """Say that the service lives, and how it is when that has changed."""
        lines = self._status(status) if status != self._told else []
        if self.watchdog_s is not None:
            lines.append("WATCHDOG=1")
        self._send(*lines, *self._extension())

    async def keep(self, status: Status, is_alive: Callable[[], bool] = lambda: True) -> None:
        """Beat from this event loop until cancelled: a loop that is blocked is silent and gets the service restarted.

        Args:
            status: One line of text for people, asked for every few seconds.
            is_alive: Whether to say so this time; a parent answers for its children.
        """
        pause_s = STATUS_S
        if self.watchdog_s is not None:
            pause_s = min(pause_s, self.watchdog_s / BEATS_PER_TIMEOUT)
        told_at = float("-inf")
        while True:
            now = time.monotonic()
            is_due = now - told_at >= STATUS_S
            if is_due:
                told_at = now
            if is_alive():
                self.beat(status() if is_due else self._told)
            await asyncio.sleep(pause_s)

    def start(self, status: Status, is_alive: Callable[[], bool] = lambda: True) -> None:
        """Say ready and `keep` on in a task of its own until `stop`; a no-op without a manager."""
        if self._address is None:
            return
        self.ready(status())
        self._beating = asyncio.get_running_loop().create_task(self.keep(status, is_alive), name="systemd")

    def stop(self) -> None:
        """End the task that `start` began."""
        if self._beating is not None:
            self._beating.cancel()
            self._beating = None

    def _extension(self) -> list[str]:
        return [f"EXTEND_TIMEOUT_USEC={EXTENSION_S * 1e6:.0f}"] if self._is_stopping else []

    def _status(self, status: str) -> list[str]:
        if not status:
            return []
        self._told = status
        return ["STATUS=" + " ".join(status.split())]

    def _send(self, *lines: str) -> None:
        """Send one datagram without ever waiting; one that cannot be sent is left out, the next beat follows soon."""
        if self._address is None or not lines:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto("\n".join(lines).encode(), self._address)
        except OSError:
            pass  # systemd is restarted itself, or its queue is full; nobody else could be told


def status_line(browser: int, phone: int, limit: int, *, is_draining: bool) -> str:
    """Return how a service that takes sessions is: `12 browser, 3 phone, 15 of 1000`, or `draining 15`."""
    if is_draining:
        return f"draining {browser + phone}"
    return f"{browser} browser, {phone} phone, {browser + phone} of {limit}"
