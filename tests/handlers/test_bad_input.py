"""What a broken or hostile client may send, and when it may leave: a clear error, and nothing left behind."""

from __future__ import annotations

import base64
import json
import socket
import struct
import threading
import time

import pytest

from services.metrics import resident_memory_bytes
from tests.fakes.broken import HeldStore
from tests.fakes.browser import PLAIN_ID, Browser, eventually
from tests.fakes.raw_websocket import PING, PONG, TEXT, RawWebSocket, frame

APPEND = "input_audio_buffer.append"
AUDIO = base64.b64encode(bytes(4_800)).decode()


def item(**changes):
    """Return an item event with a changed item."""
    text = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}]}
    return json.dumps({"type": "conversation.item.create", "item": {**text, **changes}})


def update(**session):
    """Return a session.update."""
    return json.dumps({"type": "session.update", "session": session})


NOT_JSON = [
    *("", " ", "{", "nothing", "[1,2", '{"type":}', '{"type":"x"}{"type":"y"}', "\x00", '{"type":"x\x00"}', "\ufeff{}"),
    *('{"type":"response.cancel","type":"response.create"}', '{"type":"response.create","response":{"a":1,"a":2}}'),
    *('{"type":"input_audio_buffer.append","audio":NaN}', '{"type":"x","v":Infinity}', '{"type":"x","v":-Infinity}'),
    *('{"type":"x","v":' + "9" * 5_000 + "}", '{"type":"x","v":' + "[" * 5_000 + "]" * 5_000 + "}"),
]

NOT_EVENTS = [
    *("null", "1", '"text"', "[]", "[{}]", "{}", '{"type":null}', '{"type":1}', '{"type":["a"]}', '{"type":{}}'),
    '{"type":"response.create","response":' + '{"a":' * 100 + "1" + "}" * 100 + "}",
    '{"type":"x","v":' + "[" * 100 + "]" * 100 + "}",
]

NOT_ALLOWED = [
    *('{"type":"session.destroy"}', '{"type":""}', '{"type":"\\ud800"}', '{"type":"__class__"}', '{"type":"a\\u0000"}'),
    *('{"type":"conversation.item.delete","item_id":"x"}', '{"type":"conversation.item.retrieve","item_id":"x"}'),
    *('{"type":"output_audio_buffer.clear"}', '{"type":"transcription_session.update"}', '{"type":"session.created"}'),
    *(f'{{"type":"{APPEND}"}}', f'{{"type":"{APPEND}","audio":1}}', f'{{"type":"{APPEND}","audio":"not base64!"}}'),
    *(f'{{"type":"{APPEND}","audio":"AAA"}}', f'{{"type":"{APPEND}","audio":"AA==AA=="}}'),
    *(f'{{"type":"{APPEND}","audio":"AAAA","x":1}}', f'{{"type":"{APPEND}","audio":"A\\u0000AA"}}'),
    *('{"type":"response.create","response":{"instructions":"be rude"}}', '{"type":"response.create","response":[]}'),
    *('{"type":"response.create","response":{"tools":[]}}', '{"type":"response.create","event_id":1}'),
    '{"type":"response.create","response":{"input":[]}}',
    '{"type":"response.create","event_id":"gw_1"}',
    *(item(role="system"), item(role="assistant"), item(type="function_call_output", call_id="c", output="o")),
    *(item(content=[]), item(content="x"), item(content=[{"type": "input_audio", "audio": "AAAA"}])),
    *(item(content=[{"type": "input_text", "text": "a\x00b"}]), item(content=[{"type": "input_text", "text": 5}])),
    *(item(content=[{"type": "input_text", "text": "\ud800"}]), item(id="x" * 33), item(id="gw_1")),
    item(content=[{"type": "input_text", "text": "x" * 40_000}]),
    *(update(instructions="be rude"), update(tools=[]), update(model="gpt-5"), update(voice="alloy"), update(foo=1)),
    *(update(max_response_output_tokens=9), update(turn_detection={"type": "magic"}), update(turn_detection=5)),
    *(update(speed=9), update(speed="fast"), update(speed=True), update(tracing="auto"), update(tool_choice="none")),
    *('{"type":"session.update"}', '{"type":"session.update","session":[]}'),
    *('{"type":"conversation.item.truncate","item_id":"x","content_index":0,"audio_end_ms":-1}',),
    *('{"type":"conversation.item.truncate","item_id":5,"content_index":0,"audio_end_ms":1}',),
    *('{"type":"session.refresh"}', '{"type":"session.refresh","token":5}', '{"type":"session.refresh","token":""}'),
]


def assert_refused(gateway, messages: list[str], codes: set[str]) -> None:
    """Send messages, nine a connection; each must be answered by an error, and nothing of it reach the service."""
    for start in range(0, len(messages), 9):
        with Browser(gateway) as browser:
            browser.live()
            for message in messages[start : start + 9]:
                browser.socket.send(message)
                error = browser.error()
                assert error["code"] in codes, (message[:80], error)
                assert error["message"] and "Traceback" not in error["message"] and len(error["message"]) < 300
            browser.send("input_audio_buffer.clear")
            browser.until("input_audio_buffer.cleared")
            browser.leave()
    kinds = {event["type"] for session in gateway.simulator.sessions for event in session.received}
    assert kinds == {"session.update", "input_audio_buffer.clear"}
    assert all(len(session.events("session.update")) == 1 for session in gateway.simulator.sessions)


def test_what_is_not_json_is_refused(gateway):
    """Broken JSON, keys given twice, NaN, numbers and nesting beyond reason: invalid_json, and the talk goes on."""
    assert_refused(gateway, NOT_JSON, {"invalid_json", "invalid_event"})


def test_what_is_no_event_is_refused(gateway):
    """JSON that is no object with a type, or nested a hundred levels deep: invalid_event."""
    assert_refused(gateway, NOT_EVENTS, {"invalid_event"})


def test_what_a_client_may_not_send_is_refused(gateway):
    """Unknown events, wrong types, and everything that would change the agent: refused as a whole."""
    codes = {"unsupported_event", "invalid_value", "unknown_parameter", "not_allowed", "invalid_token"}
    assert_refused(gateway, NOT_ALLOWED, codes)


def test_binary_is_refused(gateway):
    """Binary messages are no events, before and after the session is ready; the tenth ends the session."""
    with Browser(gateway) as browser:
        browser.socket.send_binary(b"early")
        assert browser.error()["code"] == "invalid_event"
        for _ in range(8):
            browser.socket.send_binary(bytes(1_000))
            assert browser.error()["code"] == "invalid_event"
        browser.socket.send_binary(b"")
        assert browser.end().code == 4009


def test_numbers_json_cannot_hold_do_not_reach_the_service(gateway):
    """1e999 is valid JSON and infinite; what is sent on must still be JSON."""
    with Browser(gateway) as browser:
        browser.live()
        browser.socket.send('{"type":"response.create","response":{"metadata":{"a":1e999}}}')
        browser.socket.send('{"type":"session.update","session":{"turn_detection":{"type":"server_vad","threshold":1e999}}}')
        assert [browser.error()["code"] for _ in range(2)] == ["invalid_json", "invalid_json"]
        browser.leave()
    assert [event["type"] for event in gateway.simulator.sessions[0].received] == ["session.update"]


def test_error_names_the_clients_event(gateway):
    """A refused event's own event_id comes back, as the Realtime API promises."""
    with Browser(gateway) as browser:
        browser.live()
        browser.send("session.destroy", event_id="mine-7")
        error = browser.error()
        assert (error["event_id"], error["param"]) == ("mine-7", "type")
        browser.send("conversation.item.truncate", item_id="none", content_index=0, audio_end_ms=1, event_id="mine-8")
        assert browser.error()["event_id"] == "mine-8"


def test_rule_breaking_before_the_session_is_ready_counts(make):
    """Ten refused messages sent with the handshake end the session before a link was opened."""
    gateway = make()
    store = HeldStore(gateway.server.context.store)
    gateway.server.context.store = store
    with Browser(gateway) as browser:
        for _ in range(12):
            browser.socket.send("junk")
        eventually(store.reached.is_set)
        gateway._loop.call_soon_threadsafe(gateway._loop.call_later, 0.1, store.go_on.set)
        assert browser.end().code == 4009


def test_flood_before_the_session_is_ready_is_bounded_and_told_once(make, monkeypatch):
    """Twenty thousand messages during the setup: what fits is kept, one error says so, and the session begins."""
    monkeypatch.setattr("core.session.MAX_REFUSALS", 1_000_000)
    gateway = make()
    store = HeldStore(gateway.server.context.store)
    gateway.server.context.store = store
    with RawWebSocket(gateway, live=False) as raw:
        raw.send_bytes(frame(TEXT, b'{"type":"input_audio_buffer.clear"}') * 20_000)
        assert json.loads(raw.receive()[1])["error"]["code"] == "too_early"
        raw.send(PING, b"all read")
        assert raw.receive() == (PONG, b"all read")
        gateway._loop.call_soon_threadsafe(store.go_on.set)
        assert json.loads(raw.receive()[1])["type"] == "session.created"
        raw.until(b'"type":"session.updated"')


@pytest.mark.parametrize("query", ["token=%ff&agent_id=" + PLAIN_ID, "agent_id=%c3%28&token=x", "voice=%fe"])
def test_query_that_is_no_utf8_is_a_bad_request(gateway, query):
    """Broken percent-encoding is the client's mistake, not ours."""
    with Browser(gateway, token="", agent_id="", path="?" + query) as browser:
        end = browser.end()
    assert end.code == 4000 and end.error["code"] == "bad_request"


def test_query_may_name_things_twice_or_strangely(gateway):
    """The last value of a repeated parameter counts, unknown ones are ignored."""
    with Browser(gateway, path="?agent_id=junk&foo=%00&callback=x") as browser:
        browser.live()


# ---------------------------------------------------------------------- clients that leave


@pytest.mark.parametrize("phase", ["handshake", "token", "agent", "link", "configuring", "live"])
@pytest.mark.parametrize("polite", [True, False])
def test_client_that_leaves_gives_everything_back(make, phase, polite):
    """Whatever phase a client leaves in, politely or not, nothing of it is left after a second."""
    gateway = make(settle_s=1.0)
    if phase == "agent":
        gateway.server.context.store = HeldStore(gateway.server.context.store)
    if phase == "link":
        gateway.simulator.faults.next("slow_handshake", seconds=30.0)
    if phase == "configuring":
        gateway.simulator.faults.next("stall", after=1, of="session.created")
    with RawWebSocket(gateway, live=phase == "live") as raw:
        if phase == "agent":
            eventually(gateway.server.context.store.reached.is_set)
        elif phase == "link":
            assert eventually(lambda: gateway.simulator.sessions)
        elif phase == "configuring":
            assert raw.until(b"conversation.created")
        if polite:
            raw.send(0x8, struct.pack(">H", 1001))
            raw.close_code()
        else:
            raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_client_that_leaves_between_two_tries_gives_everything_back(gateway):
    """A client that leaves while the next try waits ends the tries."""
    gateway.simulator.faults.always("refuse_500")
    with Browser(gateway) as browser:
        browser.notice("reconnecting")
        browser.notice("reconnecting")
    tried = len(gateway.simulator.sessions)
    time.sleep(1.5)  # the next try would have been after 1.25 s at the latest
    assert len(gateway.simulator.sessions) <= tried + 1


def test_fifty_clients_that_come_and_go_leave_nothing(make):
    """Fifty clients at once, each leaving at another moment, leave no place, task or link behind."""
    gateway = make({"MAX_SESSIONS_PER_USER": "100"}, settle_s=3.0)

    def visit(number: int) -> None:
        raw = RawWebSocket(gateway, live=False)
        for _ in range(number % 4):
            raw.receive()
        if number % 2:
            raw.send(TEXT, b"junk" * (number % 5))
        raw.socket.close()

    visits = [threading.Thread(target=visit, args=(number,)) for number in range(50)]
    for thread in visits:
        thread.start()
    for thread in visits:
        thread.join(10)


def test_slow_handshakes_are_cut_and_harm_nobody(make, monkeypatch):
    """Fifty handshakes fed drop by drop are cut at the limit while others are served."""
    monkeypatch.setattr("handlers.listeners.IDLE_CONNECTION_S", 1.0)
    gateway = make()
    sockets = [socket.create_connection(("127.0.0.1", gateway.server.port)) for _ in range(50)]
    try:
        for drop in b"GET / HTTP/1.1\r\nHo":
            for slow in sockets:
                try:
                    slow.send(bytes([drop]))
                except ConnectionError:
                    pass
        with Browser(gateway) as browser:
            browser.live()
            assert gateway.server.context.connections.active == 1
        for slow in sockets:
            slow.settimeout(5)
            try:
                assert slow.recv(1) == b""
            except ConnectionError:
                pass
    finally:
        for slow in sockets:
            slow.close()


def unsent(session):
    """Return the bytes a session's transport holds."""
    return session._outbox._sink.stream._transport.get_write_buffer_size()


def test_client_that_never_reads_costs_little(make, metric):
    """A client that reads nothing of many answers loses audio, costs at most 1 MiB in queues, and others talk on."""
    gateway = make(settle_s=8.0)
    with RawWebSocket(gateway) as deaf:
        deaf.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        before, upstream = resident_memory_bytes(), gateway.simulator.sessions[0]
        for answered in range(12):  # 1.3 MB each; the kernel's buffers take 4 to 6 MB
            deaf.send(TEXT, item(content=[{"type": "input_text", "text": "test long answer"}]).encode())
            deaf.send(TEXT, b'{"type":"response.create"}')
            assert eventually(lambda done=answered + 1: upstream.sent["response.done"] >= done, 10.0)
        assert metric(gateway, 'voice_queue_dropped_total{lane="client"}') > 0
        with Browser(gateway) as browser:
            browser.live()
            browser.type_text("others talk on")
            assert "others talk on" in browser.answer()
            browser.leave()
        assert resident_memory_bytes() - before < 60e6  # simulator and test included
        for session in list(gateway.server.context.connections):
            assert session._outbox._queued_bytes + unsent(session) <= 1_048_576
