"""The fast receive loop by itself: its transport, the hand-over of the socket, and that it hears as Tornado's does."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from tornado.iostream import IOStream, StreamClosedError
from tornado.websocket import WebSocketProtocol13, _WebSocketParams

from handlers import transport_stream
from handlers.base import Door
from handlers.fast_frames import FastProtocol
from handlers.strict_frames import StrictProtocol
from handlers.transport_stream import SEND_BUFFER_BYTES, TransportStream
from tests.fakes.raw_websocket import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, RawWebSocket, frame

Run = Callable[[Coroutine[Any, Any, Any]], Any]
MANY_BYTES = 16 * 1024 * 1024
"""More than both kernels' buffers of a connection that is not read."""


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Return what runs a coroutine within a deadline, on either event loop."""
    return lambda work: request.param(asyncio.wait_for(work, 10))


async def until(check: Callable[[], Any]) -> None:
    """Wait for a fact; the deadline is the runner's."""
    while not check():  # noqa: ASYNC110 - what is waited for happens in several places
        await asyncio.sleep(0.005)


class Owner:
    """A protocol that keeps what its stream tells it."""

    def __init__(self) -> None:
        self.is_full = False
        self.rooms = 0
        self.got = b""
        self.lost = 0
        self.write_out: Callable[[bytes], object] = lambda data: None

    def on_room(self) -> None:
        """Count."""
        self.rooms += 1

    def bytes_received(self, data: bytes) -> None:
        """Keep."""
        self.got += data

    def socket_lost(self) -> None:
        """Count."""
        self.lost += 1


@asynccontextmanager
async def connected(early: bytes = b"") -> AsyncIterator[tuple[Owner, TransportStream, socket.socket, socket.socket]]:
    """Yield an owner, its stream, the server's socket, not taken over yet, and the client's."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
    accepted.setblocking(False)
    client.setblocking(False)
    owner = Owner()
    stream = TransportStream(owner, early)
    try:
        yield owner, stream, accepted, client
    finally:
        stream.close()
        client.close()
        await until(lambda: owner.lost or accepted.fileno() == -1 or stream._transport is None)
        if stream._transport is None:
            accepted.close()


# ---------------------------------------------------------------------- the transport


def test_what_came_with_the_handshake_is_taken_first(run):
    """Early bytes come before those of the socket, and what was written meanwhile goes out in order."""

    async def scenario():
        async with connected(b"early ") as (owner, stream, accepted, client):
            stream.write_nowait(b"one ")
            await stream.write(b"two ")
            client.send(b"late")
            await stream.take_over(accepted)
            stream.write_nowait(b"three")
            owner.write_out(b" four")
            await until(lambda: owner.got == b"early late")
            assert await read(client, 18) == b"one two three four"

    run(scenario())


def test_what_is_held_goes_out_as_one_and_in_order(run):
    """Writes between `hold` and `release` are one, whoever makes them; a second `hold` changes nothing."""

    async def scenario():
        async with connected() as (owner, stream, accepted, client):
            stream.hold()  # there is nothing to hold on to yet
            await stream.take_over(accepted)
            stream.hold()
            owner.write_out(b"one ")
            stream.hold()
            stream.write_nowait(b"two ")
            await asyncio.sleep(0.05)
            with pytest.raises(BlockingIOError):
                client.recv(1)
            stream.release()
            owner.write_out(b"three")
            assert await read(client, 13) == b"one two three"
            stream.release()

    run(scenario())


def test_no_more_is_held_than_a_full_transport_would_take(run):
    """A burst of a megabyte waits in the client's queue, where audio may be dropped, and not here."""

    async def scenario():
        async with connected() as (owner, stream, accepted, _):
            await stream.take_over(accepted)
            stream.hold()
            while not owner.is_full:
                owner.write_out(bytes(65_536))
            assert stream._held is None and stream._transport.get_write_buffer_size() < MANY_BYTES / 8

    run(scenario())


def test_close_sends_what_is_held(run):
    """A session that ends in the middle of a burst loses nothing of it."""

    async def scenario():
        async with connected() as (owner, stream, accepted, client):
            await stream.take_over(accepted)
            stream.hold()
            owner.write_out(b"last words")
            stream.close()
            assert await read(client, 10) == b"last words"
            stream.hold()
            assert stream._held is None

    run(scenario())


def test_what_is_held_is_forgotten_with_the_client(run):
    """A client that goes in the middle of a burst is written nothing more."""

    async def scenario():
        async with connected() as (owner, stream, accepted, client):
            await stream.take_over(accepted)
            stream.hold()
            owner.write_out(b"for nobody")
            client.close()
            await until(lambda: owner.lost)
            stream.release()
            assert stream._held is None and stream.closed()

    run(scenario())


def test_socket_is_bounded_and_never_delays(run):
    """SO_SNDBUF and TCP_NODELAY are set; Linux doubles the size it is given, or caps it."""

    async def scenario():
        async with connected() as (_, stream, accepted, _client):
            await stream.take_over(accepted)
            sock = stream._transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert SEND_BUFFER_BYTES / 2 < sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * SEND_BUFFER_BYTES

    run(scenario())


def test_slow_reader_fills_the_stream_and_makes_room_again(run):
    """Full above the high water mark, writers wait; once the client reads there is room, and they go on."""

    async def scenario():
        async with connected() as (owner, stream, accepted, client):
            await stream.take_over(accepted)
            waiting = stream.write(bytes(MANY_BYTES))
            await until(lambda: owner.is_full)
            assert not waiting.done() or owner.rooms == 0
            second = stream.write(b"x")
            assert not second.done()
            reading = asyncio.create_task(read(client, MANY_BYTES + 1), name="slow-reader")
            await second
            await waiting
            assert owner.rooms == 1 and not owner.is_full
            assert len(await reading) == MANY_BYTES + 1

    run(scenario())


def test_writers_are_told_when_the_client_goes(run):
    """Who waits for room when the connection is lost gets an error, once; nothing can be written afterwards."""

    async def scenario():
        async with connected() as (owner, stream, accepted, client):
            await stream.take_over(accepted)
            stream.write_nowait(bytes(MANY_BYTES))
            await until(lambda: owner.is_full)
            waiting = stream.write(b"x")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, not an end
            client.close()
            with pytest.raises(StreamClosedError):
                await waiting
            assert owner.lost == 1 and stream.closed() and not owner.is_full
            with pytest.raises(StreamClosedError):
                stream.write_nowait(b"y")

    run(scenario())


def test_close_sends_what_was_written_and_no_more(run, monkeypatch):
    """A client that reads gets everything written before the close."""

    async def scenario():
        async with connected() as (owner, stream, accepted, client):
            await stream.take_over(accepted)
            stream.write_nowait(bytes(MANY_BYTES))
            stream.close()
            owner.write_out(b"too late")
            assert len(await read(client, MANY_BYTES + 1)) == MANY_BYTES
            await until(lambda: owner.lost)

    run(scenario())


def test_close_drops_what_a_deaf_client_does_not_read(run, monkeypatch):
    """A client that does not read holds a closed connection for CLOSE_S and no longer."""
    monkeypatch.setattr(transport_stream, "CLOSE_S", 0.1)

    async def scenario():
        async with connected() as (owner, stream, accepted, _client):
            await stream.take_over(accepted)
            stream.write_nowait(bytes(MANY_BYTES))
            stream.close()
            assert stream.closed() and not owner.lost
            await until(lambda: owner.lost)
            assert accepted.fileno() == -1 or stream._transport.is_closing()

    run(scenario())


def test_close_before_the_transport_is_there(run):
    """A connection closed in the middle of the hand-over sends what it had to say, takes nothing more, and ends."""

    async def scenario():
        async with connected(b"early") as (owner, stream, accepted, client):
            stream.write_nowait(b"bye")
            stream.close()
            await stream.take_over(accepted)
            assert await read(client, 4) == b"bye"
            await until(lambda: owner.lost)
            assert owner.got == b""

    run(scenario())


@pytest.mark.parametrize("is_reset", [True, False])
def test_client_gone_before_the_transport_is_there(run, is_reset):
    """A client that left before its socket was taken over is a loss, told once."""

    async def scenario():
        async with connected() as (owner, stream, accepted, client):
            if is_reset:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            await stream.take_over(accepted)
            await until(lambda: owner.lost)
            assert owner.lost == 1 and stream.closed()

    run(scenario())


def test_socket_nobody_can_take_over_is_a_loss(run):
    """A socket that is closed already is refused by the system, and that is told like any loss."""

    async def scenario():
        async with connected() as (owner, stream, accepted, _client):
            accepted.close()
            await stream.take_over(accepted)
            assert owner.lost == 1 and stream.closed()

    run(scenario())


async def read(client: socket.socket, count: int) -> bytes:
    """Return the next bytes, fewer at the end of the stream."""
    loop, got = asyncio.get_running_loop(), bytearray()
    while len(got) < count and (data := await loop.sock_recv(client, min(1 << 20, count - len(got)))):
        got += data
    return bytes(got)


# ---------------------------------------------------------------------- the hand-over


class Heard:
    """A door's side of a protocol: keeps what it is told."""

    def __init__(self) -> None:
        self.seen: list[object] = []
        self.ends = 0
        self.request = SimpleNamespace()

    def text_received(self, text: bytes) -> None:
        """Keep."""
        self.seen.append(text)

    def binary_received(self) -> None:
        """Keep."""
        self.seen.append(BINARY)

    def too_big(self) -> None:
        """Keep."""
        self.seen.append("too big")

    def on_ping(self, data: bytes) -> None:
        """Keep."""
        self.seen.append((PING, data))

    def on_pong(self, data: bytes) -> None:
        """Keep."""
        self.seen.append((PONG, data))

    def on_ws_connection_close(self, code: int | None, reason: str | None) -> None:
        """Count."""
        self.ends += 1

    def log_exception(self, *args: Any) -> None:
        """Fail: nothing here raises."""
        raise AssertionError(args)


def protocol_of(kind: type[StrictProtocol], heard: Heard, limit: int = 1 << 20) -> StrictProtocol:
    """Return a protocol as the handshake makes it, without a stream."""
    params = _WebSocketParams(max_message_size=limit)
    return kind(WebSocketProtocol13(heard, False, params), heard)  # type: ignore[arg-type]


@pytest.mark.parametrize("leaves", [False, True])
def test_hand_over_waits_for_the_answer_to_the_handshake(run, leaves):
    """What is written while the old stream is still sending follows it in order; a client that leaves then is told."""

    async def scenario():
        async with connected() as (_, _stream, accepted, client):
            heard = Heard()
            protocol = protocol_of(FastProtocol, heard)
            protocol.stream = IOStream(accepted)
            answer = protocol.stream.write(bytes(MANY_BYTES))
            answer.add_done_callback(lambda done: done.exception())
            handing = asyncio.create_task(protocol._receive_frame_loop(), name="hand-over")
            await asyncio.sleep(0)
            protocol.send_text(b"meanwhile")
            if leaves:
                client.close()
                await handing
                protocol.send_text(b"to nobody")
                assert heard.ends == 1
                return
            got = await read(client, MANY_BYTES + 11)
            assert got.endswith(b"\x81\x09meanwhile") and len(got) == MANY_BYTES + 11
            await handing
            client.send(frame(TEXT, b"hello"))
            await until(lambda: heard.seen == [b"hello"])
            client.close()
            await until(lambda: heard.ends == 1)

    run(scenario())


@pytest.mark.parametrize("wire", ["fast", "tornado"])
def test_frames_in_one_segment_with_the_handshake_are_taken(make, wire):
    """A client need not wait for the answer to send its first frames, and the last one may come in two halves."""
    gateway = make({"WIRE": wire})
    ping = frame(PING, b"at once")
    with socket.create_connection(("127.0.0.1", gateway.server.port), timeout=10) as client:
        head = "\r\n".join([
            f"GET /?token={gateway.token()}&agent_id={gateway.agent_id} HTTP/1.1", "Host: 127.0.0.1",
            "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version: 13", "", "",
        ])  # fmt: skip
        client.sendall(head.encode() + ping + ping[:5])
        client.sendall(ping[5:])
        seen = b""
        while seen.count(b"\x8a\x07at once") < 2:
            data = client.recv(65_536)
            assert data, seen[-200:]
            seen += data


@pytest.mark.parametrize("wire", ["fast", "tornado"])
def test_doors_socket_never_delays(make, wire, monkeypatch):
    """TCP_NODELAY is set on the socket of a live session, whoever reads it."""
    doors: list[Door] = []
    opened = Door.open
    monkeypatch.setattr(Door, "open", lambda door, *args: (doors.append(door), opened(door, *args))[1])
    gateway = make({"WIRE": wire})
    with RawWebSocket(gateway):
        stream: Any = doors[0]._protocol.stream
        sock = stream._transport.get_extra_info("socket") if wire == "fast" else stream.socket
        assert isinstance(stream, TransportStream) == (wire == "fast")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


# ---------------------------------------------------------------------- both loops hear the same


class ScriptedStream:
    """What a protocol asks of a stream: gives chunks, keeps what is written; misleads in that it is never full."""

    def __init__(self, chunks: list[bytes]) -> None:
        self._chunks = [*chunks]
        self._rest = b""
        self.written = b""
        self._is_closed = False
        nothing = lambda *args: object()  # noqa: E731 - the protocol's own timer for a closing handshake
        self.io_loop = SimpleNamespace(time=lambda: 0.0, add_timeout=nothing, remove_timeout=nothing)

    async def read_bytes(self, count: int, partial: bool = False) -> bytes:
        """Return as many bytes.

        Raises:
            StreamClosedError: At the end.
        """
        while len(self._rest) < (1 if partial else count):
            if self._is_closed or not self._chunks:
                raise StreamClosedError
            self._rest += self._chunks.pop(0)
        taken, self._rest = self._rest[:count], self._rest[count:]
        return taken

    def write(self, data: bytes) -> asyncio.Future[None]:
        """Keep what is written.

        Raises:
            StreamClosedError: If it is closed.
        """
        if self._is_closed:
            raise StreamClosedError
        self.written += bytes(data)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    def closed(self) -> bool:
        """Return whether it is closed."""
        return self._is_closed

    def close(self) -> None:
        """Close."""
        self._is_closed = True


def outcome(kind: type[StrictProtocol], chunks: list[bytes], limit: int) -> tuple[list[object], bytes, int | None]:
    """Return what a protocol's door heard, what the client was sent, and the close code."""

    async def scenario() -> tuple[list[object], bytes, int | None]:
        heard = Heard()
        protocol = protocol_of(kind, heard, limit)
        stream = ScriptedStream([] if kind is FastProtocol else chunks)
        protocol.stream = stream  # type: ignore[assignment]
        if isinstance(protocol, FastProtocol):
            for chunk in chunks:
                protocol.bytes_received(chunk)
                await asyncio.sleep(0)  # a pong waits for the one before it, as on a socket
            protocol.socket_lost()
        else:
            await StrictProtocol._receive_frame_loop(protocol)
        if protocol._lingering is not None:
            protocol._lingering.cancel()
        await asyncio.sleep(0)
        assert heard.ends == 1
        return heard.seen, stream.written, protocol.close_code

    return asyncio.run(scenario())


LIMIT = 70_000
"""Small, so that a message over it is found; above 65,535, so that a length of eight bytes may be within."""

TEXTS = st.one_of(
    st.binary(max_size=140),
    st.text(max_size=140).map(str.encode),
    st.sampled_from([b"", b"a" * 125, b"a" * 126, b"a" * 65_535, b"a" * 65_536, "ä€😀".encode() * 20, b"\xed\xa0\x80"]),
)


def message(opcode: int, payload: bytes, cuts: list[int], between: bytes) -> bytes:
    """Return a message in fragments, with a frame between any two."""
    ends = sorted({min(cut, len(payload)) for cut in cuts} | {len(payload)})
    frames, start = [], 0
    for end in ends:
        kind = opcode if not frames else CONTINUATION
        frames.append(frame(kind, payload[start:end], fin=end == ends[-1]))
        start = end
    return between.join(frames)


CONTROLS = st.builds(frame, st.sampled_from([PING, PONG]), st.binary(max_size=125))
SOUND = st.one_of(
    CONTROLS,
    st.builds(
        message, st.sampled_from([TEXT, TEXT, TEXT, BINARY]), TEXTS, st.lists(st.integers(0, 140), max_size=3),
        st.one_of(st.just(b""), CONTROLS),
    ),
)  # fmt: skip
ENDS = st.sampled_from([
    b"",
    frame(CLOSE, struct.pack(">H", 1000) + b"bye"),
    frame(CLOSE),
    frame(CLOSE, struct.pack(">H", 1005)),
    frame(TEXT, b"{}", rsv=0x40),
    frame(0x3, b"{}"),
    frame(0xB, b""),
    frame(TEXT, b"{}", mask=False),
    frame(TEXT, b"{", mask=False, fin=False) + frame(CONTINUATION, b"}"),
    frame(TEXT, b"{", fin=False) + frame(CONTINUATION, b"}", mask=False),
    frame(PING, b"", fin=False),
    frame(CONTINUATION, b"of nothing"),
    frame(TEXT, b"{", fin=False) + frame(TEXT, b"}"),
    frame(TEXT, bytes(LIMIT + 1)),
    frame(TEXT, bytes(LIMIT), fin=False) + frame(CONTINUATION, b"x"),
    frame(TEXT, b"half of a frame")[:9],
])  # fmt: skip


@effort(max_examples=150, deadline=None)
@given(st.lists(SOUND, max_size=6), ENDS, st.lists(st.integers(0, 400), max_size=12))
def test_any_frames_cut_anywhere_are_heard_alike(frames, end, cuts):
    """Sound and broken frames, in chunks of any size, mean the same to both receive loops, and to one fed at once."""
    stream = b"".join(frames) + end + frame(TEXT, b"after the end")
    bounds = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    chunks = [stream[a:b] for a, b in pairwise(bounds)]
    cut, whole = (outcome(kind, parts, LIMIT) for kind, parts in ((FastProtocol, chunks), (FastProtocol, [stream])))
    strict = outcome(StrictProtocol, chunks, LIMIT)
    assert (cut[0], cut[2]) == (strict[0], strict[2]) == (whole[0], whole[2])
    assert without_pongs(cut[1]) == without_pongs(strict[1]) == without_pongs(whole[1])


def without_pongs(written: bytes) -> bytes:
    """Return what was written but pongs, which may be left out when a newer ping has come (RFC 6455, section 5.5.3)."""
    kept, position = b"", 0
    while position < len(written):
        end = position + 2 + written[position + 1]  # the server's control frames: no mask, at most 125 bytes
        kept += b"" if written[position] == 0x80 | PONG else written[position:end]
        position = end
    return kept


def test_lingering_is_bounded(monkeypatch):
    """Of a client that sends too much only LINGER_BYTES more are read, then its socket is dropped."""
    monkeypatch.setattr("handlers.fast_frames.LINGER_BYTES", 1000)

    async def scenario() -> None:
        heard = Heard()
        protocol = protocol_of(FastProtocol, heard, LIMIT)
        protocol.stream = stream = ScriptedStream([])  # type: ignore[assignment]
        assert isinstance(protocol, FastProtocol)
        protocol.bytes_received(frame(TEXT, bytes(LIMIT + 1)))
        await asyncio.sleep(0)
        protocol.bytes_received(bytes(900))
        await asyncio.sleep(0)
        assert not stream.closed() and heard.seen == ["too big"]
        protocol.bytes_received(bytes(900))
        await asyncio.wait([protocol._lingering], timeout=1)
        assert stream.closed() and heard.ends == 1

    asyncio.run(scenario())


