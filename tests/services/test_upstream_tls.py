"""The link's socket: TLS shared by all links, no delay, no compression, a handshake deadline that holds."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from core.recovery import Loss
from services.upstream import Link, Target, Upstream, UpstreamError, dialer, opening
from tests.fakes.certificates import certificate
from tests.fakes.raw_websocket import TEXT
from tests.fakes.scripted_upstream import LOOPS, Heard, Peer, ScriptedUpstream, idle, until

TARGET = Target("sk-secret-key-of-the-test", "gpt-realtime-2.1")
Run = Callable[[Coroutine[Any, Any, Any]], Any]

DEADLINE_S = 0.4
"""Stands for HANDSHAKE_S; a TLS handshake on a busy machine takes a tenth of it."""


@pytest.fixture(params=LOOPS, ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Return what runs a coroutine within a deadline, on either event loop."""
    return lambda work: request.param(asyncio.wait_for(work, 20))


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, str]:
    """Return a server's context for 127.0.0.1 and the file of the certificate that vouches for it."""
    folder = tmp_path_factory.mktemp("tls")
    public, private = folder / "c.pem", folder / "k.pem"
    for file, content in zip((public, private), certificate(), strict=True):
        file.write_bytes(content)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(public, private)
    return context, str(public)


def trusting(url: str, certificate: str) -> Upstream:
    """Return an upstream that trusts the test's certificate."""
    upstream = Upstream(url)
    if upstream._tls is not None:
        upstream._tls.load_verify_locations(certificate)
    return upstream


@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])
def test_small_messages_are_not_held_back(run, tls, is_tls):
    """TCP_NODELAY is set, so that 20 ms of audio do not wait for an acknowledgement (Nagle: a median of 465 ms)."""

    async def scenario():
        async with ScriptedUpstream(idle, tls=tls[0] if is_tls else None) as service:
            link = await trusting(service.url, tls[1]).open(TARGET)
            sock = link._transport.underlying_transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            link.close()

    run(scenario())


def test_messages_larger_than_the_buffers_of_tls_go_both_ways(run, tls):
    """One record fits in a buffer; whole audio of an item, and a long configuration, take hundreds."""
    got: list[tuple[int, bytes]] = []

    async def talk(peer: Peer) -> None:
        await peer.upgrade()
        await peer.send(TEXT, b"x" * 3_000_000)
        got.append(await peer.receive())

    async def scenario():
        async with ScriptedUpstream(talk, tls=tls[0]) as service:
            heard = Heard(link := await trusting(service.url, tls[1]).open(TARGET))
            assert link.send(b"y" * 700_000)
            await until(lambda: heard.messages and got)
            assert heard.messages == [b"x" * 3_000_000] and got == [(TEXT, b"y" * 700_000)]
            link.close()

    run(scenario())


def test_no_compression_is_offered(run):
    """Audio does not shrink, and a window costs memory for every link."""

    async def scenario():
        async with ScriptedUpstream(idle) as service:
            link = await Upstream(service.url).open(TARGET)
            assert "sec-websocket-extensions" not in service.peers[0].head.lower()
            link.close()

    run(scenario())


def test_links_share_one_tls_context(run, tls, monkeypatch):
    """The trust store is read once: read for each link it is 24 ms and 900 KiB."""
    made, make = [], ssl.create_default_context

    def count(*args: Any, **kwargs: Any) -> ssl.SSLContext:
        made.append(make(*args, **kwargs))
        return made[-1]

    async def scenario():
        async with ScriptedUpstream(idle, tls=tls[0]) as service:
            monkeypatch.setattr(ssl, "create_default_context", count)
            upstream = trusting(service.url, tls[1])
            for _ in range(3):
                (await upstream.open(TARGET)).close()
        assert len(made) == 1

    run(scenario())


def test_links_resume(run, tls):
    """Every link after the first is resumed, and talks like any other."""

    async def echo(peer: Peer) -> None:
        await peer.upgrade()
        while True:
            await peer.send(*await peer.receive())

    async def scenario():
        before = tls[0].session_stats()["hits"]
        async with ScriptedUpstream(echo, tls=tls[0]) as service:
            upstream = trusting(service.url, tls[1])
            for number in range(5):
                heard = Heard(link := await upstream.open(TARGET))
                link.send(b"x" * 70_000 + str(number).encode())
                await until(lambda: heard.messages)  # noqa: B023 - waited for within the round
                assert heard.messages == [b"x" * 70_000 + str(number).encode()]
                link.close()
        assert upstream.resumed == tls[0].session_stats()["hits"] - before == 4

    run(scenario())


def test_links_opened_at_once_share_what_there_is(run, tls):
    """More links than tickets: two are resumed, the rest shakes hands in full unless one of them was done before."""

    async def scenario():
        before = tls[0].session_stats()["hits"]
        async with ScriptedUpstream(idle, tls=tls[0]) as service:
            upstream = trusting(service.url, tls[1])
            links = [await upstream.open(TARGET)]
            links += await asyncio.gather(*(upstream.open(TARGET) for _ in range(4)))
            assert upstream.resumed == tls[0].session_stats()["hits"] - before >= 2
            for link in links:
                link.close()

    run(scenario())


def test_a_service_that_cannot_bear_tickets_loses_no_talk(run, tls):
    """One attempt fails; those after it are full handshakes, whatever else opens meanwhile."""
    is_moody = [False]

    async def moody(peer: Peer) -> None:
        if is_moody[0] and peer.writer.get_extra_info("ssl_object").session_reused:
            peer.writer.transport.abort()
        else:
            await idle(peer)

    async def scenario():
        async with ScriptedUpstream(moody, tls=tls[0]) as service:
            upstream = trusting(service.url, tls[1])
            for _ in range(2):
                (await upstream.open(TARGET)).close()
            assert upstream.resumed == 1
            is_moody[0] = True
            with pytest.raises(UpstreamError):
                await upstream.open(TARGET)
            for link in await asyncio.gather(*(upstream.open(TARGET) for _ in range(3))):
                link.close()
            (await upstream.open(TARGET)).close()
            assert upstream.resumed == 2

    run(scenario())


@pytest.mark.parametrize("why", ["refused", "given up"])
def test_what_is_not_the_tickets_fault_costs_none(run, tls, why):
    """An answer in HTTP came through TLS, and a person who leaves says nothing about it."""
    script = [idle]

    async def refuse(peer: Peer) -> None:
        await peer.request()
        await peer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")

    async def scenario():
        async with ScriptedUpstream(lambda peer: script[0](peer), tls=tls[0]) as service:
            upstream = trusting(service.url, tls[1])
            (await upstream.open(TARGET)).close()
            script[0] = refuse if why == "refused" else Peer.wait_gone
            attempt = asyncio.create_task(upstream.open(TARGET), name="attempt")
            if why == "given up":
                await until(lambda: len(service.peers) == 2)
                attempt.cancel()
            await asyncio.wait([attempt])
            assert attempt.cancelled() or attempt.exception()
            script[0], before = idle, upstream.resumed
            (await upstream.open(TARGET)).close()
            assert upstream.resumed == before + 1

    run(scenario())


async def silent(peer: Peer) -> None:
    """Answer nothing, ever."""
    await peer.wait_gone()


async def half_an_answer(peer: Peer) -> None:
    """Begin an answer, and stop."""
    await peer.request()
    await peer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n")
    await peer.wait_gone()


async def drip(peer: Peer) -> None:
    """Feed a head that never ends, so that each single wait is short."""
    await peer.request()
    await peer.write(b"HTTP/1.1 101 Switching Protocols\r\n")
    gone = asyncio.create_task(peer.wait_gone(), name="watch")
    while not gone.done():
        peer.writer.write(b"X-A: b\r\n")
        await asyncio.wait([gone], timeout=DEADLINE_S / 20)


@pytest.mark.parametrize("script", [silent, half_an_answer, drip])
@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])
def test_handshake_deadline_holds(run, tls, monkeypatch, script, is_tls):
    """Whatever a service does instead of answering, it is given up at the limit and its connection is closed."""
    monkeypatch.setattr(opening, "HANDSHAKE_S", DEADLINE_S)

    async def scenario():
        async with ScriptedUpstream(script, tls=tls[0] if is_tls else None) as service:
            await given_up(trusting(service.url, tls[1]))
            await asyncio.wait_for(service.peers[0].gone.wait(), 1)

    run(scenario())


def test_handshake_deadline_holds_before_tls(run, tls, monkeypatch):
    """A service that takes the connection and never begins with TLS is given up like any other."""
    monkeypatch.setattr(opening, "HANDSHAKE_S", DEADLINE_S)

    async def scenario():
        async with ScriptedUpstream(silent) as service:
            await given_up(trusting(service.url.replace("ws:", "wss:"), tls[1]))
            await asyncio.wait_for(service.peers[0].gone.wait(), 1)

    run(scenario())


def test_handshake_deadline_holds_for_the_name(run, monkeypatch):
    """A name service that never answers is given up too."""
    monkeypatch.setattr(opening, "HANDSHAKE_S", DEADLINE_S)

    async def never(host: str, port: int) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(dialer, "addresses_of", never)
    run(given_up(Upstream("ws://nobody.invalid/v1/realtime")))


def test_whoever_gives_up_leaves_nothing_behind(run, tls, monkeypatch):
    """At whatever moment of a handshake: no error nobody took, and no connection that waits for a deadline of its own.

    aiofastnet keeps one for 60 s by default, and picows tells its own timeout to nobody.
    """
    for limit in ("ssl_handshake_timeout", "ssl_shutdown_timeout"):
        assert opening._TLS_OPTIONS[limit] <= opening.HANDSHAKE_S
        monkeypatch.setitem(opening._TLS_OPTIONS, limit, DEADLINE_S)
    monkeypatch.setattr(opening, "HANDSHAKE_S", 5.0)
    complaints: list[dict[str, Any]] = []

    async def scenario():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        before = connections()
        async with ScriptedUpstream(idle, tls=tls[0]) as service:
            upstream = trusting(service.url, tls[1])
            attempts = [asyncio.create_task(upstream.open(TARGET), name=f"open-{number}") for number in range(40)]
            for number, task in enumerate(attempts):
                asyncio.get_running_loop().call_later(number * 0.003, task.cancel)
            await asyncio.wait(attempts)
            close_opened(attempts)
            attempts.clear()
            del task  # an error keeps the frames it went through, and they the connection
            await until(lambda: all(peer.gone.is_set() for peer in service.peers))
            await until(lambda: gc.collect() >= 0 and not connections() - before)
        assert not complaints

    run(scenario())


def close_opened(attempts: list[asyncio.Task[Link]]) -> None:
    """Close the links that opened; look at the errors of the others."""
    for attempt in attempts:
        if not attempt.cancelled() and attempt.exception() is None:
            attempt.result().close()


def connections() -> set[int]:
    """Return the links' connections that are in memory."""
    kinds = {"SSLTransport_Socket", "WSProtocol"}
    return {id(thing) for thing in gc.get_objects() if type(thing).__name__ in kinds}


async def given_up(upstream: Upstream) -> None:
    """Assert that opening ends as a timeout, at the limit and not much later."""
    began = asyncio.get_running_loop().time()
    with pytest.raises(UpstreamError) as failed:
        await upstream.open(TARGET)
    assert failed.value.loss == Loss("timeout")
    assert DEADLINE_S * 0.9 < asyncio.get_running_loop().time() - began < DEADLINE_S + 2
