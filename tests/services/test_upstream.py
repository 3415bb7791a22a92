"""Opening a link to the Realtime API, against services that answer, refuse, stall and lie."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from core.recovery import Loss
from services.upstream import Link, Target, Upstream, UpstreamError, dialer, opening
from tests.fakes.certificates import certificate
from tests.fakes.scripted_upstream import LOOPS, Peer, ScriptedUpstream, idle, until

TARGET = Target("sk-secret-key-of-the-test", "gpt-realtime-2.1", "a1b2")
Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=LOOPS, ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Return what runs a coroutine within a deadline, on either event loop."""
    return lambda work: request.param(asyncio.wait_for(work, 10))


async def refusal(upstream: ScriptedUpstream | str) -> Loss:
    """Return why no link could be opened."""
    url = upstream if isinstance(upstream, str) else upstream.url
    with pytest.raises(UpstreamError) as failed:
        await Upstream(url).open(TARGET)
    return failed.value.loss


def test_handshake_carries_key_model_and_person(run):
    """The key is in the header alone, the model in the query, an operator's own query is kept; no origin, no beta."""

    async def scenario():
        async with ScriptedUpstream(idle) as service:
            link = await Upstream(service.url + "?api-version=1&model=other").open(TARGET)
            head = service.peers[0].head
            assert head.startswith("GET /v1/realtime?api-version=1&model=gpt-realtime-2.1 HTTP/1.1\r\n")
            assert "Authorization: Bearer sk-secret-key-of-the-test\r\n" in head
            assert "OpenAI-Safety-Identifier: a1b2\r\n" in head
            assert "origin:" not in head.lower() and "OpenAI-Beta" not in head
            link.close()

    run(scenario())


def test_target_hides_its_key():
    """A target may be printed."""
    assert "secret" not in repr(TARGET) and "secret" not in str([TARGET])


@pytest.mark.parametrize(
    ("answer", "loss"),
    [
        ("401 Unauthorized", Loss("refused", status=401)),
        ("403 Forbidden", Loss("refused", status=403)),
        ("429 Too Many\r\nRetry-After: 7", Loss("refused", status=429, retry_after_s=7.0)),
        ("429 Too Many\r\nRetry-After: soon", Loss("refused", status=429)),
        ("500 Oops", Loss("refused", status=500)),
        ("200 OK", Loss("refused", status=200)),
        ("302 Found\r\nLocation: ws://127.0.0.1:1/", Loss("refused", status=302)),
    ],
)
def test_refused_handshake_says_why(run, answer, loss):
    """Any other answer than the upgrade is a refusal with its status; a redirect is not followed."""

    async def refuse(peer: Peer) -> None:
        await peer.request()
        await peer.write(f"HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n".encode())
        await peer.wait_gone()

    async def scenario():
        async with ScriptedUpstream(refuse) as service:
            assert await refusal(service) == loss
            await asyncio.wait_for(service.peers[0].gone.wait(), 1)

    run(scenario())


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 101 Switching", b"SSH-2.0-OpenSSH\r\n\r\n", b"\x00" * 100_000])
def test_service_that_talks_nonsense_is_a_loss(run, answer):
    """A connection that ends unanswered, or is no HTTP, is a loss like any other."""

    async def talk(peer: Peer) -> None:
        await peer.request()
        await peer.write(answer)

    async def scenario():
        async with ScriptedUpstream(talk) as service:
            assert (await refusal(service)).cause in {"closed", "refused", "unreachable"}

    run(scenario())


def test_wrong_proof_of_the_upgrade_is_refused(run):
    """An upgrade whose accept value does not fit the key is no WebSocket."""

    async def scenario():
        async with ScriptedUpstream(lambda peer: peer.upgrade(key=b"another")) as service:
            assert (await refusal(service)).cause == "refused"

    run(scenario())


def test_service_that_never_answers_is_given_up(run, monkeypatch):
    """After the limit the handshake is a timeout, and the connection is closed."""
    monkeypatch.setattr(opening, "HANDSHAKE_S", 0.2)

    async def scenario():
        async with ScriptedUpstream(Peer.wait_gone) as service:
            assert await refusal(service) == Loss("timeout")
            await asyncio.wait_for(service.peers[0].gone.wait(), 1)

    run(scenario())


def test_dead_port_is_unreachable(run):
    """Nobody listens: unreachable, at once."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    async def scenario():
        assert await refusal(f"ws://127.0.0.1:{port}/v1/realtime") == Loss("unreachable")

    run(scenario())


def test_next_address_is_tried(run, monkeypatch):
    """A name with a dead address in front of a living one still leads there."""

    async def scenario():
        async with ScriptedUpstream(idle) as service:

            async def addresses(host: str, port: int) -> Any:
                kind = (socket.AF_INET, socket.SOCK_STREAM, 6)
                return [(*kind, ("127.0.0.2", port)), (*kind, (host, port))]

            monkeypatch.setattr(dialer, "addresses_of", addresses)
            link = await Upstream(service.url).open(TARGET)
            link.close()

    run(scenario())


@pytest.mark.parametrize("after", ["nothing", "request"])
def test_cancelled_handshake_leaves_no_connection(run, after):
    """A caller that gives up in the middle of a handshake takes the connection along, within a second (promise P6)."""
    arrived = []

    async def hold(peer: Peer) -> None:
        if after == "request":
            await peer.request()
        arrived.append(peer)
        await peer.wait_gone()

    async def scenario():
        async with ScriptedUpstream(hold) as service:
            attempt = asyncio.create_task(Upstream(service.url).open(TARGET))
            await until(lambda: arrived)
            attempt.cancel()
            await asyncio.wait([attempt])
            await asyncio.wait_for(arrived[0].gone.wait(), 1)

    run(scenario())


def test_cancelled_in_the_moment_of_success_leaves_no_connection(run, monkeypatch):
    """A caller that is cancelled just when the handshake has succeeded leaves no link that nobody owns."""

    async def scenario():
        async with ScriptedUpstream(idle) as service:
            connected = Link.on_ws_connected

            def connect_and_cancel(link: Link, transport: Any) -> None:
                connected(link, transport)
                attempt.cancel()

            monkeypatch.setattr(Link, "on_ws_connected", connect_and_cancel)
            attempt = asyncio.create_task(Upstream(service.url).open(TARGET))
            await asyncio.wait([attempt])
            assert attempt.cancelled()
            await asyncio.wait_for(service.peers[0].gone.wait(), 1)

    run(scenario())


@pytest.mark.parametrize("trusted", [True, False])
def test_certificate_is_checked(run, tmp_path, trusted):
    """Over TLS a certificate nobody vouches for is refused; a trusted one gives a link."""
    public, private = certificate()
    (tmp_path / "c.pem").write_bytes(public)
    (tmp_path / "k.pem").write_bytes(private)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / "c.pem", tmp_path / "k.pem")

    async def scenario():
        async with ScriptedUpstream(idle, tls=tls) as service:
            upstream = Upstream(service.url)
            if not trusted:
                with pytest.raises(UpstreamError) as failed:
                    await upstream.open(TARGET)
                assert failed.value.loss == Loss("unreachable")
                return
            assert upstream._tls is not None
            upstream._tls.load_verify_locations(tmp_path / "c.pem")
            link = await upstream.open(TARGET)
            link.close()

    run(scenario())
