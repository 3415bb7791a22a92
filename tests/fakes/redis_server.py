"""A real Redis for the length of a test: random port, loopback only, nothing on the disk.

    with RedisServer() as redis:
        redis.url
        redis.stop(), redis.start()     # empty again, on the same port
        redis.freeze(), redis.thaw()    # there, and silent

Where only Debian's `redis-tools` is installed, it runs the server out of that package: `redis-check-rdb` is the same
program under another name, and the package starts no service of its own.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.fakes.server_process import free_port

PROGRAMS = ("redis-server", "redis-check-rdb")

START_S = 20.0

PASSWORD = "of-nobody"


def program() -> str | None:
    """Return the path of a program that is the server, or None."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


def redis_or_skip() -> Iterator[RedisServer]:
    """Yield a running server, for a fixture; skip where it is not installed."""
    if program() is None:
        pytest.skip("Redis is not installed: apt-get install redis-tools")
    with RedisServer() as running:
        yield running


class RedisServer:
    """One throw-away server with a password, a child process of the caller."""

    def __init__(self) -> None:
        self.port = free_port()
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What REDIS_URL is set to."""
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}/3"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, empty, and wait until it answers."""
        path = program()
        assert path is not None, "apt-get install redis-tools"
        words = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._child = subprocess.Popen(
            [*words, "--requirepass", PASSWORD, "--dir", str(Path(path).parent)], executable=path,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        until = time.monotonic() + START_S
        while self._said(b"PING\r\n") != b"+PONG\r\n":
            assert time.monotonic() < until and self._child.poll() is None, "Redis did not start"
            time.sleep(0.02)

    def stop(self) -> None:
        """End it; what it held is gone."""
        child, self._child = self._child, None
        if child is not None:
            child.send_signal(signal.SIGCONT)
            child.kill()
            child.wait()

    def freeze(self) -> None:
        """Have it accept connections and answer nothing."""
        assert self._child is not None
        self._child.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Have it go on."""
        assert self._child is not None
        self._child.send_signal(signal.SIGCONT)

    def _said(self, question: bytes) -> bytes:
        """Return the answer to one command."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as link:
                link.sendall(f"AUTH {PASSWORD}\r\n".encode())
                link.recv(64)
                link.sendall(question)
                return link.recv(64)
        except OSError:
            return b""
