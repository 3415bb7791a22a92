"""Who else lives on this machine, and asking them: the workers of one server and of its instances.

All that share a STATE_DIR meet in `{STATE_DIR}/run/`, a folder of its owner's alone. There each worker has

    {worker}.lock    locked by the kernel while the process lives, however it ends
    {worker}.sock    its control socket: HTTP, see `handlers.control` for what it answers

A worker is named `{port}-{n}`, n counting from 0 within its server.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import socket
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import httpx

LOCK, SOCKET = ".lock", ".sock"

TAKEN_AFTER_S = 0.5
"""A lock that is held longer has an owner; who only looks whether there is one holds it for microseconds."""

BACKLOG = 64
"""Questions that may wait: every worker (at most 64) may ask at once."""

_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Never used on a Unix socket; handed over because httpx would load all certificates for each client (20 ms)."""


class WorkerTaken(Exception):
    """Raised when a living process has the name already: the same port over the same STATE_DIR."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a worker answered."""

    status: int
    body: bytes

    def json(self) -> Any:
        """Return the body's value; None when the worker did not answer 200 or not in JSON."""
        try:
            return json.loads(self.body) if self.status == 200 else None
        except ValueError:
            return None


class Siblings:
    """The living workers but oneself.

    Args:
        run_dir: From `run_folder`.
        me: The worker that asks, left out of every answer; None asks all.
    """

    def __init__(self, run_dir: Path, me: str | None) -> None:
        self.run_dir = run_dir
        self.me = me

    def names(self, *, port: int | None = None) -> list[str]:
        """Return the workers that live, but oneself; with `port` only those of the server on that port.

        What dead ones left behind is removed.

        Raises:
            OSError: If the folder may not be read.
        """
        found = (name for name in living(self.run_dir) if name != self.me)
        return [name for name in found if port is None or name.rpartition("-")[0] == str(port)]

    async def ask(
        self, method: str, path: str, body: Any = None, *, timeout_s: float = 2.0, port: int | None = None
    ) -> dict[str, Answer]:
        """Ask all of `names(port=port)` at once; return what came within `timeout_s`, by worker. Never raises.

        Who is missing died meanwhile or is too busy to answer.
        """
        try:
            names = self.names(port=port)
        except OSError:
            return {}
        answers = await asyncio.gather(*(self.ask_one(n, method, path, body, timeout_s=timeout_s) for n in names))
        return {name: answer for name, answer in zip(names, answers, strict=True) if answer is not None}

    async def ask_one(
        self, worker: str, method: str, path: str, body: Any = None, *, timeout_s: float = 2.0
    ) -> Answer | None:
        """Ask one worker; None when there is no such worker or no answer within `timeout_s`. Never raises."""
        try:
            async with asyncio.timeout(timeout_s):
                with _address(self.run_dir, worker) as address:
                    transport = httpx.AsyncHTTPTransport(uds=address, verify=_NO_TLS)
                    async with httpx.AsyncClient(transport=transport, timeout=timeout_s, trust_env=False) as client:
                        answer = await client.request(method, f"http://worker{path}", json=body)
        except (httpx.HTTPError, OSError):  # TimeoutError is an OSError
            return None
        return Answer(answer.status_code, answer.content)


def ask_all_sync(
    run_dir: Path, method: str, path: str, body: Any = None, *, timeout_s: float = 2.0
) -> dict[str, Answer]:
    """Ask all living workers at once, for the command line; return what came within `timeout_s`, by worker.

    Raises:
        OSError: If the folder is missing or may not be read: no server ever ran here, or it is another user's.
    """
    names = living(run_dir)
    with ThreadPoolExecutor(max_workers=max(1, len(names)), thread_name_prefix="ask") as threads:
        asked = {n: threads.submit(ask_one_sync, run_dir, n, method, path, body, timeout_s=timeout_s) for n in names}
    return {name: answer for name, future in asked.items() if (answer := future.result()) is not None}


def ask_one_sync(
    run_dir: Path, worker: str, method: str, path: str, body: Any = None, *, timeout_s: float = 2.0
) -> Answer | None:
    """Ask one worker, for the command line; None when there is no such worker or no answer within `timeout_s`."""
    try:
        with _address(run_dir, worker) as address, closing(_UnixConnection(address, timeout_s)) as connection:
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, {"Content-Type": "application/json"} if content else {})
            answer = connection.getresponse()
            return Answer(answer.status, answer.read())
    except (HTTPException, OSError):
        return None


class _UnixConnection(HTTPConnection):
    """A connection to a Unix socket. Unlike httpx's it also closes the socket that could not connect."""

    def __init__(self, address: str, timeout_s: float) -> None:
        super().__init__("worker", timeout=timeout_s)
        self._address = address

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._address)


def run_folder(state_dir: str | Path) -> Path:
    """Return the folder where workers meet, made if missing and closed to other users.

    Raises:
        OSError: If it cannot be made.
    """
    folder = Path(state_dir) / "run"
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder


# ---------------------------------------------------------------------- who lives


def living(run_dir: Path) -> list[str]:
    """Return the workers whose process lives, by name; what dead ones left behind is removed.

    Raises:
        OSError: If the folder is missing or may not be read.
    """
    names = sorted(path.name.removesuffix(LOCK) for path in run_dir.iterdir() if path.suffix == LOCK)
    return [name for name in names if _look(run_dir, name)]


def is_alive(run_dir: Path, worker: str) -> bool:
    """Return whether the worker's process lives."""
    try:
        return _look(run_dir, worker)
    except OSError:
        return False


def hold(run_dir: Path, worker: str) -> int:
    """Take a worker's name for this process until it ends or `let_go` is called with what is returned.

    Raises:
        WorkerTaken: If another process has it.
        OSError: If the folder cannot be written.
    """
    path = run_dir / (worker + LOCK)
    until = time.monotonic() + TAKEN_AFTER_S
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock).st_nlink:  # otherwise somebody tidied the file away while it was being opened
                return lock
        except BlockingIOError:
            if time.monotonic() > until:
                os.close(lock)
                raise WorkerTaken(f"another server with the same STATE_DIR and port runs: {worker}") from None
        os.close(lock)
        time.sleep(0.01)


def let_go(run_dir: Path, worker: str, lock: int) -> None:
    """Give the name back that `hold` took, and remove the worker's files."""
    _remove(run_dir, worker)
    os.close(lock)


def open_control_socket(run_dir: Path, worker: str) -> socket.socket:
    """Return a listening, non-blocking Unix socket at `{worker}.sock`, for its owner only; call `hold` first.

    It gets its name when it listens, so that nobody finds it deaf.

    Raises:
        OSError: If it cannot be made.
    """
    final = run_dir / (worker + SOCKET)
    first = final.with_name(f".{final.name}.new")
    first.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        with _reachable(run_dir) as folder:
            listener.bind(f"{folder}/{first.name}")
        first.chmod(0o600)
        listener.listen(BACKLOG)
        first.replace(final)
    except OSError:
        listener.close()
        raise
    return listener


def _look(run_dir: Path, worker: str) -> bool:
    """Return whether the worker's lock is held; if not, tidy up after it."""
    try:
        lock = os.open(run_dir / (worker + LOCK), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two that look must not take each other for the owner
        if not os.fstat(lock).st_nlink:  # somebody tidied up meanwhile; there may be a new file, with a new owner
            return _look(run_dir, worker)
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(run_dir, worker)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _remove(run_dir: Path, worker: str) -> None:
    """Remove a worker's files; for who holds its lock."""
    for ending in (SOCKET, LOCK):
        with suppress(OSError):
            (run_dir / (worker + ending)).unlink(missing_ok=True)


# ---------------------------------------------------------------------- addresses


@contextmanager
def _address(run_dir: Path, worker: str) -> Iterator[str]:
    """Give the address of a worker's socket."""
    with _reachable(run_dir) as folder:
        yield f"{folder}/{worker}{SOCKET}"


@contextmanager
def _reachable(folder: Path) -> Iterator[str]:
    """Give a name of the folder that is short: the address of a Unix socket has at most 107 bytes (unix(7))."""
    if not Path("/proc/self/fd").exists():
        yield str(folder)
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)
