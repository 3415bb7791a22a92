"""The listening sockets of a server: one for each worker, all on the same port.

Each worker has a socket of its own in the port's SO_REUSEPORT group, so the kernel spreads connections evenly; the
parent keeps a copy of it open, so that connections which wait in it outlive a crash and are taken by the successor.
Measured: docs/decisions/0006-several-processes.md.
"""

from __future__ import annotations

import errno
import socket

BACKLOG = 1024
"""Connections that may wait for a worker: a burst of callers after a restart."""


def bind(port: int, host: str, *, shared: bool = False) -> list[socket.socket]:
    """Return non-blocking sockets bound to a port on every address of the host; `listen` makes them listen.

    Args:
        port: 0 takes a free one, the same for all of them.
        host: Name or address; empty for all addresses.
        shared: Whether further sockets may be bound to the port.

    Raises:
        OSError: If somebody listens on the port, or the host has no address here.
    """
    found = socket.getaddrinfo(host or None, port, socket.AF_UNSPEC, socket.SOCK_STREAM, 0, socket.AI_PASSIVE)
    opened: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in sorted(set(found)):
            if family not in {socket.AF_INET, socket.AF_INET6}:
                continue
            own = (address[0], opened[0].getsockname()[1] if opened else port, *address[2:])
            bound = _bound(family, kind, protocol, own, shared=shared)
            if bound is not None:
                opened.append(bound)
    except OSError:
        close(opened)
        raise
    if not opened:
        raise OSError(errno.EADDRNOTAVAIL, f"HOST {host} has no address on this machine")
    return opened


def _bound(
    family: int, kind: int, protocol: int, address: tuple[object, ...], *, shared: bool
) -> socket.socket | None:
    """Return a bound socket; None for an IPv6 loopback the machine has switched off."""
    one = socket.socket(family, kind, protocol)
    try:
        one.setblocking(False)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:  # IPv4 has a socket of its own
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind(address)
    except OSError as error:
        one.close()
        if error.errno == errno.EADDRNOTAVAIL and address[0] == "::1":
            return None
        raise
    return one


def listen(sockets: list[socket.socket]) -> None:
    """Have bound sockets listen; those that do already go on.

    Raises:
        OSError: If somebody else has come to listen on the port since it was bound.
    """
    for one in sockets:
        one.listen(BACKLOG)


def open_groups(port: int, host: str, count: int) -> list[list[socket.socket]]:
    """Return for each of `count` workers its sockets on one port, bound and not listening.

    Raises:
        OSError: If the port is taken, also by another server that would share it.
    """
    for probe in bind(port, host):  # a shared port would let a second server in without a word
        port = probe.getsockname()[1]
        probe.close()
    return [bind(port, host, shared=True) for _ in range(count)]


def bind_again(addresses: list[tuple[int, tuple[object, ...]]]) -> list[socket.socket]:
    """Return sockets bound to addresses that were shared before, as family and address; not listening.

    Raises:
        OSError: If somebody who does not share has taken one.
    """
    opened: list[socket.socket] = []
    try:
        for family, address in addresses:
            bound = _bound(family, socket.SOCK_STREAM, 0, address, shared=True)
            if bound is not None:
                opened.append(bound)
    except OSError:
        close(opened)
        raise
    return opened


def close(sockets: list[socket.socket]) -> None:
    """Close sockets; closed ones stay closed."""
    for one in sockets:
        one.close()
