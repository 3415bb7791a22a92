"""Asking the processes of all machines, over Redis: a talk that goes on elsewhere ends where it was."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from itertools import count
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

Answer = Callable[[Mapping[str, Any]], Awaitable[bool]]
"""Ends what this process has of what is asked about; returns whether it had anything."""

RETRY_S = 5.0
"""Pause after a failure before the messages are subscribed to again."""

LISTEN_S = 5.0
"""Time of one wait for a message; between two the connection is pinged when it was quiet."""

MOST_ANSWERS = 64
"""Questions answered at a time; those beyond stay unanswered, and whoever asked goes on after its deadline."""


class Messages:
    """Questions to all other processes, and their answers. Never raises: who is not reached does not answer.

    Args:
        redis: The client; closed by its owner.
        prefix: What the names of the channels begin with.
        process: This process.
    """

    def __init__(self, redis: Redis, prefix: str, process: str) -> None:
        self._redis = redis
        self._process = process
        self._to_all, self._to = f"{prefix}replace", f"{prefix}to:"
        self._numbers = count(1)
        self._asked: dict[str, asyncio.Queue[bool]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._is_listening = False

    async def ask(self, question: Mapping[str, Any], timeout_s: float) -> bool:
        """Ask every other process, and return when all have answered or the time is over: whether one said yes."""
        number = str(next(self._numbers))
        answers = self._asked[number] = asyncio.Queue()
        said: list[bool] = []
        try:
            async with asyncio.timeout(timeout_s):
                message = json.dumps({**question, "number": number, "from": self._process})
                reached = await self._redis.publish(self._to_all, message)
                for _ in range(int(reached) - 1 if self._is_listening else 0):  # one of those reached is this process
                    said.append(await answers.get())
        except (RedisError, OSError):  # TimeoutError is an OSError
            pass
        finally:
            del self._asked[number]
        return any(said)

    async def listen(self, answer: Answer) -> None:
        """Hear and answer, until cancelled; a lost connection is replaced."""
        try:
            while True:
                with suppress(RedisError, OSError):
                    await self._hear(answer)
                await asyncio.sleep(RETRY_S)
        finally:
            for task in list(self._answering):
                task.cancel()

    async def _hear(self, answer: Answer) -> None:
        async with self._redis.pubsub() as channels:
            await channels.subscribe(self._to_all, self._to + self._process)
            try:
                while True:
                    message = await channels.get_message(timeout=LISTEN_S)
                    if message is not None and message["type"] == "subscribe":
                        self._is_listening = True
                    elif message is not None and message["type"] == "message":
                        self._heard(message["channel"], message["data"], answer)
            finally:
                self._is_listening = False

    def _heard(self, channel: str, data: str, answer: Answer) -> None:
        """Take a message; what is none of ours is ignored."""
        with suppress(ValueError, KeyError, TypeError):
            message = json.loads(data)
            if channel != self._to_all:
                if (answers := self._asked.get(message["number"])) is not None:
                    answers.put_nowait(message["said"] is True)
            elif message["from"] != self._process and len(self._answering) < MOST_ANSWERS:
                task = asyncio.create_task(self._reply(message, answer), name="directory-answer")
                self._answering.add(task)
                task.add_done_callback(self._answering.discard)

    async def _reply(self, message: Mapping[str, Any], answer: Answer) -> None:
        said = await answer(message)
        with suppress(RedisError, OSError):
            await self._redis.publish(
                f"{self._to}{message['from']}", json.dumps({"number": message["number"], "said": said})
            )
