"""How Redis is reached."""

from __future__ import annotations

import asyncio
import secrets

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from .redis_script import SCRIPT

PREFIX = "voice:"
"""What all names in Redis begin with; two installations that share a Redis use databases of their own."""

ASK_S = 1.0
"""Longest answer of Redis. Beside it in one network takes under a millisecond; a caller waits for this at most."""

PING_S = 10.0
"""A connection that was quiet for so long is tried before it is used."""


def open_client(url: str) -> Redis:
    """Return a client, not connected yet; close it.

    Args:
        url: `redis://` or `rediss://`, with a password and the number of a database if need be.

    Raises:
        OSError: If the client does not understand the address.
    """
    try:
        client = Redis.from_url(
            url, decode_responses=True, socket_timeout=ASK_S, socket_connect_timeout=ASK_S, socket_keepalive=True,
            health_check_interval=PING_S, retry=Retry(NoBackoff(), 1),  # one: the connection a restart has cut
        )  # fmt: skip
        client.connection_pool.make_connection()  # type: ignore[no-untyped-call]  # only this looks at the options in the address
    except (TypeError, ValueError) as error:
        raise OSError("REDIS_URL has options that mean nothing to the client") from error
    return client


async def try_redis(url: str) -> str | None:
    """Return why the directory could not be in this Redis; None when it could. Nothing is left there."""
    try:
        client = open_client(url)
    except OSError:
        return "the address has options that mean nothing to the client"
    try:
        async with asyncio.timeout(3 * ASK_S):
            await client.register_script(SCRIPT)(keys=[PREFIX], args=["leave", secrets.token_hex(8)])
    except (RedisError, OSError) as error:  # TimeoutError is an OSError
        return type(error).__name__
    finally:
        await client.aclose()
    return None
