"""Resumption of TLS sessions towards one service, below a transport that takes no session.

The links' transport makes its TLS connections from the context's OpenSSL object and offers no way to hand one a session
(neither does `ssl.SSLContext`). OpenSSL asks the context, though: one callback is given each ticket that arrives,
another hears that a handshake begins, and may set a session before the first message is made. Both run within a
handshake only, never for a message.

Where OpenSSL cannot be reached beside Python's own use of it, every handshake is a full one and nothing else changes.
Source: OpenSSL manual, SSL_CTX_sess_set_new_cb(3), SSL_CTX_set_info_callback(3), SSL_set_session(3).
"""

from __future__ import annotations

import _ssl
import ctypes
import platform
import ssl
import time
import weakref
from typing import Any

MAX_TICKETS = 64
"""Kept of one service, a few KiB each: as many links may open at once without a full handshake."""

REST_S = 60
"""Without tickets after a link did not open: a service that cannot bear them costs an attempt or two in a minute."""

MAX_AGE_S = 3600
"""After the service's certificate was checked; tickets got by ticket do not prolong it. RFC 8446 allows a ticket seven
days (section 4.6.1) and recommends a limit to such chains, since a resumed handshake looks at no certificate."""

_SET_CACHE_MODE = 44
_CLIENT_WITHOUT_STORE = 0x0001 | 0x0300
"""Client sessions, kept by the callback alone. Source: SSL_CTX_set_session_cache_mode(3) and openssl/ssl.h."""

_HANDSHAKE_START = 0x10
_TLS_1_3 = 0x0304
_INDEX_SSL = 0
_VERIFY = {ssl.CERT_NONE: 0, ssl.CERT_OPTIONAL: 1, ssl.CERT_REQUIRED: 3}
"""Source: openssl/ssl.h, openssl/tls1.h, openssl/crypto.h."""

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Linux' monotonic clock stands still while the machine sleeps."""

_Pointer = ctypes.c_void_p
_OnTicket = ctypes.CFUNCTYPE(ctypes.c_int, _Pointer, _Pointer)
_OnState = ctypes.CFUNCTYPE(None, _Pointer, ctypes.c_int, ctypes.c_int)

_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "CRYPTO_get_ex_new_index": (ctypes.c_int, ctypes.c_int, ctypes.c_long, *[_Pointer] * 4),
    "SSL_CTX_ctrl": (ctypes.c_long, _Pointer, ctypes.c_int, ctypes.c_long, _Pointer),
    "SSL_CTX_get_options": (ctypes.c_uint64, _Pointer),
    "SSL_CTX_get_verify_mode": (ctypes.c_int, _Pointer),
    "SSL_CTX_sess_set_new_cb": (None, _Pointer, _OnTicket),
    "SSL_CTX_set_info_callback": (None, _Pointer, _OnState),
    "SSL_SESSION_free": (None, _Pointer),
    "SSL_SESSION_get_protocol_version": (ctypes.c_int, _Pointer),
    "SSL_SESSION_is_resumable": (ctypes.c_int, _Pointer),
    "SSL_get_SSL_CTX": (_Pointer, _Pointer),
    "SSL_get_ex_data": (_Pointer, _Pointer, ctypes.c_int),
    "SSL_in_before": (ctypes.c_int, _Pointer),
    "SSL_session_reused": (ctypes.c_int, _Pointer),
    "SSL_set_ex_data": (ctypes.c_int, _Pointer, ctypes.c_int, _Pointer),
    "SSL_set_session": (ctypes.c_int, _Pointer, _Pointer),
}
"""What is called of OpenSSL: what it returns, what it takes."""


class TlsTickets:
    """Keeps the tickets a service gives and offers them back: each once, the newest first.

    Args:
        context: Shared by all connections to the service, which must be one host: a ticket is no proof for another.

    Attributes:
        is_active: Whether OpenSSL could be reached; without, nothing is ever resumed.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._held: list[tuple[int, int]] = []  # a session of OpenSSL's, and when the certificate was checked
        self._rests_until = 0
        address = _openssl_context(context) if _openssl is not None else None
        self.is_active = address is not None
        if _openssl is None or address is None:
            return
        _by_context[address] = self
        weakref.finalize(self, _free_all, self._held).atexit = False
        _openssl.SSL_CTX_ctrl(address, _SET_CACHE_MODE, _CLIENT_WITHOUT_STORE, None)
        _openssl.SSL_CTX_sess_set_new_cb(address, _openssl.on_ticket)
        _openssl.SSL_CTX_set_info_callback(address, _openssl.on_state)

    @property
    def count(self) -> int:
        """Tickets kept now."""
        return len(self._held)

    @property
    def resumed(self) -> int:
        """TLS handshakes of this context that a ticket made shorter."""
        return self._context.session_stats()["hits"]

    def rest(self) -> None:
        """Drop all tickets and make full handshakes for `REST_S`."""
        self._rests_until = _now_s() + REST_S
        _free_all(self._held)

    def keep(self, connection: int, session: int) -> bool:
        """Own one session more, the oldest goes when there are too many; False while they rest."""
        now = _now_s()
        if now < self._rests_until:
            return False
        while len(self._held) >= MAX_TICKETS:
            _openssl.SSL_SESSION_free(self._held.pop(0)[0])
        since = _openssl.checked if _openssl.SSL_session_reused(connection) else _openssl.began
        self._held.append((session, _openssl.SSL_get_ex_data(connection, since) or now))
        return True

    def owns(self, session: int) -> bool:
        """Whether this is the session kept last."""
        return bool(self._held) and self._held[-1][0] == session

    def offer(self, connection: int) -> None:
        """Set the newest session that is good for the handshake that begins; none leaves it a full one."""
        now = _now_s()
        _openssl.SSL_set_ex_data(connection, _openssl.began, now)  # a ticket may come late in a connection's life
        while self._held:
            session, checked = self._held.pop()
            if checked + MAX_AGE_S <= now or not _openssl.SSL_SESSION_is_resumable(session):
                _openssl.SSL_SESSION_free(session)
                continue
            _openssl.SSL_set_session(connection, session)
            _openssl.SSL_set_ex_data(connection, _openssl.checked, checked)
            if _openssl.SSL_SESSION_get_protocol_version(session) < _TLS_1_3:
                self._held.append((session, checked))  # up to TLS 1.2 a session serves many connections
            else:  # a ticket used twice would let a listener tie two connections together (RFC 8446, C.4)
                _openssl.SSL_SESSION_free(session)
            return


def _now_s() -> int:
    """Return seconds of a clock that never goes back nor stands still, never 0: OpenSSL keeps it where 0 is nothing."""
    return int(time.clock_gettime(_CLOCK)) + 1


def _free_all(held: list[tuple[int, int]]) -> None:
    while held:
        _openssl.SSL_SESSION_free(held.pop()[0])


def _load() -> Any:
    """Return OpenSSL as Python's own `ssl` module has loaded it, or None where it cannot be reached.

    It also holds the callbacks, which live as long as the process, since a connection may outlive who opened it, and
    where a connection keeps two times: when it began, and when the certificate behind its ticket was checked.
    """
    file = getattr(_ssl, "__file__", None)
    if file is None or platform.python_implementation() != "CPython":
        return None
    library: Any = ctypes.PyDLL(file)  # its names are looked up in what it was linked with
    try:
        for name, (result, *arguments) in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        library.on_ticket, library.on_state = _OnTicket(_ticket_came), _OnState(_state_changed)
    except (AttributeError, MemoryError, OSError):  # the last two: no memory that may be executed
        return None
    indices = (library.CRYPTO_get_ex_new_index(_INDEX_SSL, 0, None, None, None, None) for _ in range(2))
    library.began, library.checked = indices
    return library


def _openssl_context(context: ssl.SSLContext) -> int | None:
    """Return the address of OpenSSL's own context; it is the first field of Python's.

    Nothing public tells it; the links' transport (aiofastnet) reads it from the same place, and would fail with this.
    """
    address = ctypes.cast(id(context) + object.__basicsize__, ctypes.POINTER(_Pointer))[0]
    seen = _openssl.SSL_CTX_get_options(address), _openssl.SSL_CTX_get_verify_mode(address)
    return address if seen == (context.options & 0xFFFF_FFFF_FFFF_FFFF, _VERIFY[context.verify_mode]) else None


def _ticket_came(connection: int, session: int) -> int:
    """Take over what is kept (1) or leave it to OpenSSL (0). Source: SSL_CTX_sess_set_new_cb(3)."""
    tickets = _by_context.get(_openssl.SSL_get_SSL_CTX(connection))
    try:
        return int(tickets is not None and tickets.keep(connection, session))
    except BaseException:  # noqa: BLE001 - ctypes would drop it too, and say 0 of a session that may be kept already
        return int(tickets is not None and tickets.owns(session))


def _state_changed(connection: int, what: int, _: int) -> None:
    if what == _HANDSHAKE_START and _openssl.SSL_in_before(connection):
        tickets = _by_context.get(_openssl.SSL_get_SSL_CTX(connection))
        if tickets is not None:
            tickets.offer(connection)


_openssl = _load()
_by_context: weakref.WeakValueDictionary[int, TlsTickets] = weakref.WeakValueDictionary()
