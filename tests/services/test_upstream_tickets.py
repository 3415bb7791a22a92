"""TLS sessions are resumed where a service gives tickets, and nothing depends on it."""

from __future__ import annotations

import asyncio
import gc
import ssl
import weakref
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from services.upstream import Target, Upstream, UpstreamError
from services.upstream import tickets as tls_tickets
from services.upstream.tickets import MAX_AGE_S, TlsTickets
from tests.fakes.certificates import certificate
from tests.fakes.scripted_upstream import LOOPS, Heard, Peer, ScriptedUpstream, idle, until

TARGET = Target("sk-secret-key-of-the-test", "gpt-realtime-2.1")
V1_2, V1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the files of a certificate of 127.0.0.1 and of its key."""
    folder = tmp_path_factory.mktemp("tls")
    made = folder / "c.pem", folder / "k.pem"
    for file, content in zip(made, certificate(), strict=True):
        file.write_bytes(content)
    return made


@pytest.fixture(params=LOOPS, ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Return what runs a coroutine within a deadline, on either event loop."""
    return lambda work: request.param(asyncio.wait_for(work, 20))


def server(files: tuple[Path, Path], version: ssl.TLSVersion = V1_3) -> ssl.SSLContext:
    """Return a server's context with keys for tickets of its own."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*files)
    context.maximum_version = version
    return context


def client(files: tuple[Path, Path]) -> ssl.SSLContext:
    """Return a context that trusts that server."""
    return ssl.create_default_context(cafile=str(files[0]))


def connect(ours: ssl.SSLContext, theirs: ssl.SSLContext, *, is_clean: bool = True) -> bool:
    """Shake hands in memory, let one message through and close; return whether the session was resumed."""
    to_us, to_them = ssl.MemoryBIO(), ssl.MemoryBIO()
    us = ours.wrap_bio(to_us, to_them, server_hostname="127.0.0.1")
    them = theirs.wrap_bio(to_them, to_us, server_side=True)
    waiting = [us, them]
    for _ in range(8):
        for side in list(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                pass
    assert not waiting
    them.write(b"hello")
    assert us.read() == b"hello"  # what came before it, tickets too, is read by now
    if is_clean:
        for side in (us, them, us):
            try:
                side.unwrap()
            except ssl.SSLWantReadError:
                pass
    return bool(us.session_reused)


@pytest.mark.parametrize("version", [V1_2, V1_3])
def test_later_handshakes_are_resumed(files, version):
    """The first is a full one, all others go by a ticket of the one before, in both versions of TLS."""
    ours, theirs = client(files), server(files, version)
    tickets = TlsTickets(ours)
    assert tickets.is_active
    assert [connect(ours, theirs) for _ in range(6)] == [False, *[True] * 5]
    assert tickets.resumed == theirs.session_stats()["hits"] == 5


def test_without_tickets_kept_nothing_is_resumed(files):
    """A shared context alone resumes nothing: what the other tests see is the tickets' doing."""
    ours, theirs = client(files), server(files)
    assert [connect(ours, theirs) for _ in range(3)] == [False] * 3


def test_a_ticket_is_used_once(files):
    """Of two tickets two handshakes come, however many are begun."""
    ours, theirs = client(files), server(files)
    tickets = TlsTickets(ours)
    connect(ours, theirs)
    assert tickets.count == 2  # what OpenSSL gives after a full handshake
    begun = [ours.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="127.0.0.1") for _ in range(3)]
    left = []
    for side in begun:
        with pytest.raises(ssl.SSLWantReadError):
            side.do_handshake()
        left.append(tickets.count)
    assert left == [1, 0, 0]


def test_a_service_that_forgot_its_keys_is_met_in_full(files):
    """An unknown ticket costs nothing but the short cut, and new tickets follow."""
    ours, theirs = client(files), server(files)
    TlsTickets(ours)
    kept = TlsTickets(ours)
    connect(ours, theirs)
    another = server(files)
    assert [connect(ours, another) for _ in range(3)] == [False, True, True]
    assert kept.count > 0


def test_certificate_is_looked_at_again_after_an_hour(files, monkeypatch):
    """Tickets got by ticket count from the handshake that showed the certificate."""
    now = [100]
    monkeypatch.setattr(tls_tickets, "_now_s", lambda: now[0])
    ours, theirs = client(files), server(files)
    tickets = TlsTickets(ours)
    seen = []
    for later in (0, 1200, 2400, MAX_AGE_S - 1, MAX_AGE_S, MAX_AGE_S + 1200):
        now[0] = 100 + later
        seen.append(connect(ours, theirs))
    assert seen == [False, True, True, True, False, True]
    assert tickets.count <= 2


def test_a_refused_ticket_counts_as_a_look_at_the_certificate(files, monkeypatch):
    """Offered and not taken, a ticket says nothing about the age of what comes next."""
    now = [100]
    monkeypatch.setattr(tls_tickets, "_now_s", lambda: now[0])
    ours = client(files)
    tickets = TlsTickets(ours)
    connect(ours, server(files))
    now[0] += MAX_AGE_S - 1
    theirs = server(files)
    assert not connect(ours, theirs)
    now[0] += MAX_AGE_S - 1
    assert connect(ours, theirs)
    assert tickets.count > 0


def test_tickets_are_bounded(files, monkeypatch):
    """The oldest goes; each that is gone was given back to OpenSSL."""
    monkeypatch.setattr(tls_tickets, "MAX_TICKETS", 3)
    ours = client(files)
    tickets = TlsTickets(ours)
    for _ in range(5):
        connect(ours, server(files))  # one that never knows the tickets of the others
    assert tickets.count == 3


def test_connection_that_broke_off_leaves_no_ticket_behind(files):
    """OpenSSL holds its session for bad; it is passed over, and what is older serves."""
    ours, theirs = client(files), server(files)
    tickets = TlsTickets(ours)
    connect(ours, theirs, is_clean=False)
    before = tickets.count
    assert connect(ours, theirs)
    assert before == 2
    tickets.forget()
    assert tickets.count == 0
    assert not connect(ours, theirs)


def test_tickets_end_with_their_owner(files):
    """A connection that outlives it does no harm, and its tickets are nobody's."""
    ours, theirs = client(files), server(files)
    tickets = TlsTickets(ours)
    connect(ours, theirs)
    gone = weakref.ref(tickets)
    del tickets
    gc.collect()
    assert gone() is None
    assert [connect(ours, theirs) for _ in range(2)] == [False, False]


@pytest.mark.parametrize("reason", ["no OpenSSL", "another OpenSSL", "another layout"])
def test_where_openssl_is_out_of_reach_handshakes_are_full(files, monkeypatch, reason):
    """Everything else works as before."""
    if reason == "no OpenSSL":
        monkeypatch.delattr(tls_tickets._ssl, "__file__")
        monkeypatch.setattr(tls_tickets, "_openssl", tls_tickets._load())
    elif reason == "another OpenSSL":
        monkeypatch.setitem(tls_tickets._SIGNATURES, "SSL_of_another_age", (None,))
        monkeypatch.setattr(tls_tickets, "_openssl", tls_tickets._load())
    else:
        monkeypatch.setattr(tls_tickets._openssl, "SSL_CTX_get_options", lambda _: 0)
    ours, theirs = client(files), server(files)
    tickets = TlsTickets(ours)
    assert not tickets.is_active
    assert [connect(ours, theirs) for _ in range(3)] == [False] * 3
    assert (tickets.count, tickets.resumed) == (0, 0)
    tickets.forget()


def trusting(url: str, files: tuple[Path, Path]) -> Upstream:
    """Return an upstream that trusts the test's certificate."""
    upstream = Upstream(url)
    assert upstream._tls is not None
    upstream._tls.load_verify_locations(files[0])
    return upstream


def test_links_resume(run, files):
    """Every link after the first is resumed, and talks like any other."""

    async def echo(peer: Peer) -> None:
        await peer.upgrade()
        while True:
            await peer.send(*await peer.receive())

    async def scenario():
        context = server(files)
        async with ScriptedUpstream(echo, tls=context) as service:
            upstream = trusting(service.url, files)
            for number in range(5):
                heard = Heard(link := await upstream.open(TARGET))
                link.send(b"x" * 70_000 + str(number).encode())
                await until(lambda: heard.messages)  # noqa: B023 - waited for within the round
                assert heard.messages == [b"x" * 70_000 + str(number).encode()]
                link.close()
        assert upstream.resumed == context.session_stats()["hits"] == 4

    run(scenario())


def test_links_opened_at_once_share_what_there_is(run, files):
    """More links than tickets: two are resumed, the rest shakes hands in full unless one of them was done before."""

    async def scenario():
        context = server(files)
        async with ScriptedUpstream(idle, tls=context) as service:
            upstream = trusting(service.url, files)
            links = [await upstream.open(TARGET)]
            links += await asyncio.gather(*(upstream.open(TARGET) for _ in range(4)))
            assert upstream.resumed == context.session_stats()["hits"] >= 2
            for link in links:
                link.close()

    run(scenario())


def test_after_a_failure_no_ticket_is_offered(run, files):
    """A service that cannot bear a ticket is met without one at the next attempt."""
    refusing = [False]

    async def moody(peer: Peer) -> None:
        if refusing[0]:
            await peer.request()
            await peer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
        else:
            await idle(peer)

    async def scenario():
        async with ScriptedUpstream(moody, tls=server(files)) as service:
            upstream = trusting(service.url, files)
            (await upstream.open(TARGET)).close()
            refusing[0] = True
            with pytest.raises(UpstreamError):
                await upstream.open(TARGET)
            refusing[0] = False
            before = upstream.resumed
            (await upstream.open(TARGET)).close()
            assert (before, upstream.resumed) == (1, 1)
            (await upstream.open(TARGET)).close()
            assert upstream.resumed == 2

    run(scenario())
