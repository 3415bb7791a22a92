"""An HTTP client that reaches public addresses only: for addresses that agents' owners typed in.

A name is resolved once per connection, every address it has must be public, and the connection goes to the very
address that was checked, so that a name cannot answer differently the second time (DNS rebinding). Redirects are not
followed, and proxies of the environment are not used: both would connect to what was not checked.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import httpcore
import httpx

MAX_CONNECTIONS = 128
"""Tool calls under way at a time in one process; further ones wait within their own deadline."""

MAX_IDLE_CONNECTIONS = 32
IDLE_S = 30.0
"""How long an idle connection is kept: an agent that asks again within a conversation saves the TLS handshake."""

RESOLVER_THREADS = 8
"""Threads for these names alone: a name server that never answers must not hold up other look-ups of the process."""

_NOT_PUBLIC = tuple(
    map(
        ip_network,
        (
            "192.0.0.0/24",  # RFC 6890, protocol assignments
            "192.88.99.0/24",  # RFC 7526, 6to4 relays
            "64:ff9b::/96",  # RFC 6052, NAT64: carries an IPv4 address
            "64:ff9b:1::/48",  # RFC 8215, local NAT64
            "2001::/23",  # RFC 2928, with Teredo (carries an IPv4 address) and ORCHID
            "2002::/16",  # RFC 3056, 6to4: carries an IPv4 address
            "3fff::/20",  # RFC 9637, documentation
        ),
    )
)
"""Networks Python's `is_global` lets pass, in some versions, although they lead elsewhere than they say."""

_IPV6_UNICAST = ip_network("2000::/3")
"""All global unicast that is assigned. Source: IANA IPv6 address space registry."""


class AddressRefused(httpx.ConnectError):
    """Raised when a name leads to an address that is not public; the text names neither."""


def is_public(address: str) -> bool:
    """Return whether an address as `getaddrinfo` gives it is global unicast; a mapped IPv4 address counts as itself."""
    try:
        parsed: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return is_public(str(parsed.ipv4_mapped))
        if parsed not in _IPV6_UNICAST:
            return False
    if parsed.is_multicast or parsed.is_private or parsed.is_reserved or not parsed.is_global:
        return False
    return not any(parsed.version == network.version and parsed in network for network in _NOT_PUBLIC)


def guarded_client(*, allow_private: bool = False, tls: ssl.SSLContext | None = None) -> httpx.AsyncClient:
    """Return a client for addresses that owners of agents chose; close it with `aclose`.

    Args:
        allow_private: Also connect to private addresses and loopback; for tests and the demo only.
        tls: Context for https; default verifies with httpx's own trust store.
    """
    return httpx.AsyncClient(
        # owners share the client: what one owner's service sets must not be sent for another
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        transport=_GuardedTransport(allow_private=allow_private, tls=tls or httpx.create_ssl_context(trust_env=False)),
        follow_redirects=False,
        trust_env=False,
        headers={"User-Agent": "voice-server", "Accept-Encoding": "identity"},
    )


class _GuardedBackend(httpcore.AsyncNetworkBackend):
    """Opens TCP connections to checked addresses only."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._network = httpcore.AnyIOBackend()
        self._resolver = ThreadPoolExecutor(RESOLVER_THREADS, thread_name_prefix="tool-names")

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Return a connection to the first address of the host that answers."""
        addresses = await self._resolve(host, port)
        for address in addresses[:-1]:
            try:
                return await self._network.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._network.connect_tcp(addresses[-1], port, timeout, local_address, socket_options)

    def close(self) -> None:
        """Let the resolver's threads end."""
        self._resolver.shutdown(wait=False, cancel_futures=True)

    async def sleep(self, seconds: float) -> None:
        """Return after so many seconds."""
        await self._network.sleep(seconds)

    async def _resolve(self, host: str, port: int) -> list[str]:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._resolver, _addresses, host, port)
        except (OSError, UnicodeError):
            raise httpcore.ConnectError("name not found") from None
        if not found:
            raise httpcore.ConnectError("name not found")
        if not self._allow_private and not all(map(is_public, found)):
            raise AddressRefused("address is not public")
        return found


def _addresses(host: str, port: int) -> list[str]:
    """Return the addresses of a host in the resolver's order, each once."""
    return list(dict.fromkeys(str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))


class _GuardedTransport(httpx.AsyncBaseTransport):
    """httpx over a connection pool with the guarded backend; httpx's own transport takes no backend."""

    def __init__(self, *, allow_private: bool, tls: ssl.SSLContext) -> None:
        self._backend = _GuardedBackend(allow_private=allow_private)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls,
            max_connections=MAX_CONNECTIONS,
            max_keepalive_connections=MAX_IDLE_CONNECTIONS,
            keepalive_expiry=IDLE_S,
            network_backend=self._backend,
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request and return its response with the body still to be read."""
        url = request.url
        if not isinstance(request.stream, httpx.AsyncByteStream):
            raise httpx.UnsupportedProtocol("the body must be asynchronous")
        with _as_httpx_errors():
            response = await self._pool.handle_async_request(
                httpcore.Request(
                    method=request.method,
                    url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        return httpx.Response(
            response.status,
            headers=response.headers,
            stream=_Body(response),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._pool.aclose()
        self._backend.close()


class _Body(httpx.AsyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _as_httpx_errors():
            async for part in self._response.aiter_stream():
                yield part

    async def aclose(self) -> None:
        with _as_httpx_errors():
            await self._response.aclose()


@contextmanager
def _as_httpx_errors() -> Iterator[None]:
    """Give callers httpx's exceptions only, with the type as text: httpcore's may name the peer."""
    try:
        yield
    except (httpcore.TimeoutException, TimeoutError) as error:
        raise httpx.ReadTimeout(type(error).__name__) from error
    except httpcore.ConnectError as error:
        raise httpx.ConnectError(type(error).__name__) from error
    except (httpcore.NetworkError, OSError) as error:
        raise httpx.NetworkError(type(error).__name__) from error
    except httpcore.UnsupportedProtocol as error:
        raise httpx.UnsupportedProtocol(type(error).__name__) from error
    except (httpcore.ProtocolError, ValueError) as error:
        raise httpx.ProtocolError(type(error).__name__) from error
