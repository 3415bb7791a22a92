"""An open link to the Realtime API: messages both ways, its end from either side, services that do not read."""

from __future__ import annotations

import asyncio
import gc
import struct
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from core.recovery import Loss
from services.upstream import Target, Upstream, opening
from services.upstream import link as link_module
from tests.fakes.raw_websocket import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame
from tests.fakes.scripted_upstream import LOOPS, Heard, Peer, ScriptedUpstream, idle, until

TARGET = Target("sk-secret-key-of-the-test", "gpt-realtime-2.1", "a1b2")
Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=LOOPS, ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Return what runs a coroutine within a deadline, on either event loop."""
    return lambda work: request.param(asyncio.wait_for(work, 10))


def test_what_comes_before_listening_is_kept(run):
    """Messages and the loss that come before `listen` are given then, in order."""

    async def talk(peer: Peer) -> None:
        await peer.upgrade()
        for n in range(3):
            await peer.send(TEXT, b"%d" % n)
        await peer.send(CLOSE, struct.pack(">H", 3000) + b"invalid_request_error.invalid_api_key")
        await peer.wait_gone()

    async def scenario():
        async with ScriptedUpstream(talk) as service:
            link = await Upstream(service.url).open(TARGET)
            await asyncio.wait_for(service.peers[0].gone.wait(), 1)
            await asyncio.sleep(0)
            heard = Heard(link)
            assert await heard.lost() == Loss("closed", code="invalid_api_key", status=3000)
            assert heard.messages == [b"0", b"1", b"2"] and len(heard.losses) == 1

    run(scenario())


def test_messages_go_both_ways_whole(run):
    """Fragments are joined, pings answered, and what is sent arrives as text."""
    got: list[tuple[int, bytes]] = []

    async def talk(peer: Peer) -> None:
        await peer.upgrade()
        await peer.send(TEXT, b"one ", fin=False)
        await peer.send(PING, b"there?")
        await peer.send(CONTINUATION, b"two ", fin=False)
        await peer.send(CONTINUATION, b"three")
        await peer.send(TEXT, b"x" * 9_000_000)
        while len(got) < 3:
            got.append(await peer.receive())

    async def scenario():
        async with ScriptedUpstream(talk) as service:
            heard = Heard(link := await Upstream(service.url).open(TARGET))
            assert link.send(b'{"a":1}') and link.send_audio(b"x" * 70_000)
            await until(lambda: len(heard.messages) == 2)
            assert heard.messages[0] == b"one two three" and len(heard.messages[1]) == 9_000_000
            await until(lambda: len(got) == 3)
            assert (PONG, b"there?") in got and (TEXT, b'{"a":1}') in got and (TEXT, b"x" * 70_000) in got
            link.close()

    run(scenario())


def test_messages_that_arrive_together_are_told_as_a_burst(run):
    """What came in one read lies between True and False; one by itself is no burst, half a one in none."""
    heard: list[bytes | bool] = []

    async def talk(peer: Peer) -> None:
        await peer.upgrade()
        await asyncio.sleep(0.1)
        whole = [frame(TEXT, name, mask=False) for name in (b"1", b"2", b"3")]
        await peer.write(b"".join(whole)[:-1])
        await asyncio.sleep(0.1)
        await peer.write(whole[-1][-1:])
        await asyncio.sleep(0.1)
        await peer.write(frame(TEXT, b"4", mask=False) + frame(PING, b"", mask=False))
        await peer.wait_gone()

    async def scenario():
        async with ScriptedUpstream(talk) as service:
            link = await Upstream(service.url).open(TARGET)
            link.listen(heard.append, lambda loss: None, heard.append)
            await until(lambda: b"4" in heard and heard[-1] is False)
            assert heard == [True, b"1", b"2", False, b"3", True, b"4", False]
            link.close()

    run(scenario())


def test_burst_ends_with_the_link(run):
    """Whoever was told of its begin is told of its end, also when the link is closed within it."""
    heard: list[bytes | bool] = []

    async def talk(peer: Peer) -> None:
        await peer.upgrade()
        await asyncio.sleep(0.1)
        await peer.write(frame(TEXT, b"1", mask=False) + frame(TEXT, b"2", mask=False))
        await peer.wait_gone()

    async def scenario():
        async with ScriptedUpstream(talk) as service:
            link = await Upstream(service.url).open(TARGET)

            def hear(message: bytes) -> None:
                heard.append(message)
                link.close()

            link.listen(hear, lambda loss: None, heard.append)
            await until(lambda: False in heard)
            await asyncio.sleep(0.1)
            assert heard == [True, b"1", False]

    run(scenario())


@pytest.mark.parametrize(
    ("payload", "loss"),
    [
        (b"", Loss("closed", status=1005)),
        (struct.pack(">H", 1001) + b"Your session hit the maximum duration.", Loss("closed", status=1001)),
        (struct.pack(">H", 1011), Loss("closed", status=1011)),
        (struct.pack(">H", 4999) + b"\xff\xfe", None),
        (b"\x03", None),
        (struct.pack(">H", 999), None),
    ],
)
def test_close_of_the_service_is_a_loss(run, payload, loss):
    """A close frame ends the link once, with its code; one that is no good frame is a loss too."""

    async def talk(peer: Peer) -> None:
        await peer.upgrade()
        await peer.send(CLOSE, payload)
        await peer.wait_gone()

    async def scenario():
        async with ScriptedUpstream(talk) as service:
            heard = Heard(link := await Upstream(service.url).open(TARGET))
            seen = await heard.lost()
            assert loss is None or seen == loss
            await asyncio.wait_for(service.peers[0].gone.wait(), 2)
            assert len(heard.losses) == 1 and link.send(b"x") is False

    run(scenario())


def test_connection_that_breaks_is_a_loss(run):
    """A TCP connection that ends in the middle of a frame is a loss without a code."""

    async def talk(peer: Peer) -> None:
        await peer.upgrade()
        await peer.write(b"\x81\x7e\x10\x00half")

    async def scenario():
        async with ScriptedUpstream(talk) as service:
            heard = Heard(await Upstream(service.url).open(TARGET))
            assert await heard.lost() == Loss("closed")
            assert heard.messages == []

    run(scenario())


def test_fragments_that_add_up_to_too_much_are_a_loss(run, monkeypatch):
    """One message may not grow without end."""
    monkeypatch.setattr(link_module, "MAX_MESSAGE_BYTES", 100_000)

    async def talk(peer: Peer) -> None:
        await peer.upgrade()
        await peer.send(TEXT, bytes(60_000), fin=False)
        await peer.send(CONTINUATION, bytes(60_000), fin=False)
        await peer.wait_gone()

    async def scenario():
        async with ScriptedUpstream(talk) as service:
            heard = Heard(await Upstream(service.url).open(TARGET))
            assert await heard.lost() == Loss("error", code="message_too_big")

    run(scenario())


def test_service_that_vanished_is_noticed_by_pings(run, monkeypatch):
    """Without any answer to a ping the link is lost (promise P6)."""
    monkeypatch.setattr(opening, "PING_IDLE_S", 0.1)
    monkeypatch.setattr(opening, "PING_REPLY_S", 0.1)

    async def scenario():
        async with ScriptedUpstream(idle) as service:
            heard = Heard(await Upstream(service.url).open(TARGET))
            assert (await asyncio.wait_for(heard.lost(), 3)).cause == "closed"

    run(scenario())


# ---------------------------------------------------------------------- closing, and services that do not read


def test_close_is_polite_and_final(run):
    """The service sees 1000; nothing of the link is heard afterwards, and the socket is gone."""
    codes: list[int] = []

    async def talk(peer: Peer) -> None:
        await peer.upgrade()
        opcode, payload = await peer.receive()
        assert opcode == CLOSE
        codes.append(struct.unpack(">H", payload[:2])[0])
        await peer.send(TEXT, b"late")
        await peer.send(CLOSE, payload)
        await peer.wait_gone()

    async def scenario():
        async with ScriptedUpstream(talk) as service:
            heard = Heard(link := await Upstream(service.url).open(TARGET))
            link.close()
            link.close()
            assert link.send(b"x") is False
            await asyncio.wait_for(service.peers[0].gone.wait(), 1)
            assert codes == [1000] and heard.messages == [] and heard.losses == []

    run(scenario())


def test_close_that_is_not_answered_drops_the_socket(run, monkeypatch):
    """A service that does not answer the close loses the connection after a moment."""
    monkeypatch.setattr(link_module, "CLOSE_WAIT_S", 0.1)

    async def scenario():
        async with ScriptedUpstream(idle) as service:
            link = await Upstream(service.url).open(TARGET)
            link.close()
            await asyncio.wait_for(service.peers[0].gone.wait(), 1)

    run(scenario())


def test_service_that_does_not_read_loses_audio_then_the_link(run):
    """Beyond the backlog audio is dropped and counted; when even events pile up, the link is lost as stalled."""

    async def deaf(peer: Peer) -> None:
        await peer.upgrade()
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(5)

    async def scenario():
        async with ScriptedUpstream(deaf) as service:
            heard = Heard(link := await Upstream(service.url).open(TARGET))
            audio = b"x" * 64_000
            for _ in range(300):
                if not link.send_audio(audio):
                    break
                await asyncio.sleep(0)
            assert link.dropped == 1 and not heard.losses
            assert link.send(b"event")
            for _ in range(300):
                link.send(audio)
                await asyncio.sleep(0)
            assert await heard.lost() == Loss("stalled")
            assert len(heard.losses) == 1

    run(scenario())


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(TEXT, b'{"type":"\xff"}', mask=False), 1007),
        (frame(TEXT, b"\xce\xba\xe1", fin=False, mask=False) + frame(CONTINUATION, b"\xbd", mask=False), 1007),
        (frame(TEXT, b"{}", rsv=0x40, mask=False), 1002),
        (frame(PING, b"", rsv=0x10, mask=False), 1002),
        (frame(CONTINUATION, b"{}", mask=False), 1002),
        (frame(TEXT, b"{", fin=False, mask=False) + frame(TEXT, b"}", mask=False), 1002),
        (frame(CLOSE, struct.pack(">H", 0), mask=False), 1002),
        (frame(CLOSE, struct.pack(">H", 1006), mask=False), 1002),
        (frame(CLOSE, struct.pack(">H", 5000), mask=False), 1002),
    ],
)
def test_broken_rule_ends_the_link(run, sent, code):
    """What RFC 6455 forbids is answered with its close code and is a loss; nothing that follows is handed on."""
    codes: list[int] = []

    async def talk(peer: Peer) -> None:
        await peer.upgrade()
        await peer.write(sent)
        await peer.send(TEXT, b"later")
        opcode, payload = await peer.receive()
        assert opcode == CLOSE
        codes.append(struct.unpack(">H", payload[:2])[0])
        await peer.wait_gone()

    async def scenario():
        async with ScriptedUpstream(talk) as service:
            heard = Heard(await Upstream(service.url).open(TARGET))
            assert await heard.lost() == Loss("closed", code="protocol_error", status=code)
            await asyncio.wait_for(service.peers[0].gone.wait(), 1)
            assert codes == [code] and heard.messages == [] and len(heard.losses) == 1

    run(scenario())


@pytest.mark.parametrize("sent", [frame(0x3, b"", mask=False), frame(PING, bytes(126), mask=False), frame(TEXT, b"{}")])
def test_framing_the_library_refuses_is_a_loss_without_a_traceback(run, sent):
    """Where picows itself ends the link, the loss is told once and asyncio is left with nothing to complain of."""
    accidents: list[Any] = []

    async def talk(peer: Peer) -> None:
        await peer.upgrade()
        await peer.write(sent)
        await peer.wait_gone()

    async def scenario():
        asyncio.get_running_loop().set_exception_handler(lambda loop, accident: accidents.append(accident))
        async with ScriptedUpstream(talk) as service:
            heard = Heard(await Upstream(service.url).open(TARGET))
            assert (await heard.lost()).cause == "closed"
            await asyncio.wait_for(service.peers[0].gone.wait(), 1)
        assert len(heard.losses) == 1 and heard.messages == []
        gc.collect()  # a future nobody has looked at complains when it is collected
        await asyncio.sleep(0)

    run(scenario())
    gc.collect()
    assert accidents == []


def test_binary_message_in_pieces_need_not_be_text(run):
    """Only text is checked for UTF-8."""

    async def talk(peer: Peer) -> None:
        await peer.upgrade()
        await peer.send(BINARY, b"\xff", fin=False)
        await peer.send(CONTINUATION, b"\xfe")
        await peer.wait_gone()

    async def scenario():
        async with ScriptedUpstream(talk) as service:
            heard = Heard(link := await Upstream(service.url).open(TARGET))
            await until(lambda: heard.messages)
            assert heard.messages == [b"\xff\xfe"]
            link.close()

    run(scenario())
