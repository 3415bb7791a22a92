"""A process of the load and the pipe to it: one JSON line asks, one answers.

The parent's side is `Child`; the child's is `serve`. A child ends when its parent closes the pipe, also by dying.
"""

from __future__ import annotations

import asyncio
import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import uvloop

from bench import cores

REPOSITORY = Path(__file__).resolve().parent.parent

ANSWER_S = 60.0
"""Longest wait for an answer: opening a thousand sessions at 20 ms each takes 20 s."""

STOP_S = 5.0

Handler = Callable[[Mapping[str, Any]], Awaitable[Any]]


class ChildError(Exception):
    """Raised when a process of the load ended, did not answer in time, or said that something failed."""


class Child:
    """A running module of this package; use it as a context manager."""

    def __init__(self, module: str, *, environment: Mapping[str, str] | None = None) -> None:
        self._module = module
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = b""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", self._module], cwd=REPOSITORY, env=self._environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,  # Ctrl-C is the parent's
        )  # fmt: skip
        cores.bind([self._process.pid], cores.of_load())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    def ask(self, command: str, *, timeout_s: float = ANSWER_S, **fields: Any) -> Any:
        """Send a command and return the answer.

        Raises:
            ChildError: If there is none in time, or it is an error.
        """
        process = self._process
        assert process is not None and process.stdin is not None
        try:
            process.stdin.write(json.dumps({"command": command, **fields}).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise ChildError(f"{self._module} has ended") from None
        answer = json.loads(self._line(time.monotonic() + timeout_s))
        if "error" in answer:
            raise ChildError(f"{self._module}: {answer['error']}")
        return answer["answer"]

    def _line(self, until: float) -> bytes:
        assert self._process is not None and self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(max(until - time.monotonic(), 0.0)):
                    raise ChildError(f"{self._module} did not answer in time")
                data = os.read(pipe, 1 << 20)
                if not data:
                    raise ChildError(f"{self._module} has ended")
                self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line


async def serve(handlers: Mapping[str, Handler]) -> None:
    """Answer the parent's commands until it closes the pipe."""
    reader = asyncio.StreamReader(limit=1 << 24)  # a thousand calls with their tokens fit
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        request = json.loads(line)
        try:
            answer: dict[str, Any] = {"answer": await handlers[request["command"]](request)}
        except (OSError, TimeoutError, ChildError) as error:
            answer = {"error": str(error) or type(error).__name__}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a child's coroutine on uvloop until its parent is gone."""

    uvloop.run(main())
