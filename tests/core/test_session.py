"""One client: what it may send, and for how long."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core.dialect import Dialect
from core.errors import CLIENT_LEFT, Draining
from core.realtime import APPEND_HEAD, Event, notice_event
from core.session import (
    FLOOD_WINDOW_S,
    HELD_OVERHEAD_BYTES,
    MAX_EVENT_BYTES,
    MAX_EVENTS,
    MAX_HELD_BYTES,
    MAX_REFUSALS,
    MAX_TOKEN_CHARS,
    TOKEN_NOTICE_S,
    BrowserSession,
)
from tests.dialogue import CONVERSATION_ID, Dialogue, base64_of

STARTED = "input_audio_buffer.speech_started"
TYPED = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}


def opening(**fields: Any) -> Dialogue:
    """Return a dialogue whose session has begun and is not live yet."""
    talk = Dialogue(**fields)
    talk.begins()
    return talk


# ------------------------------------------------------------------ the beginning


@pytest.mark.parametrize("dialect", ["ga", "preview"])
@pytest.mark.parametrize("resumed", [True, False])
def test_the_client_learns_its_conversation_right_after_its_session(dialect: Dialect, resumed: bool) -> None:
    """`conversation.created` follows `session.created`, says if it was resumed, and is valid for OpenAI's clients."""
    warning = {"type": "error", "error": {"code": "unknown_voice"}}
    talk = opening(dialect=dialect, resumed=resumed, first_events=(warning,))
    talk.opened()
    step = talk.model("session.created", session={"id": "s"})
    step.gives("client: session.created", "client: conversation.created", "client: error unknown_voice")
    created = step.events[1]
    assert created["conversation_id"] == CONVERSATION_ID
    assert created["resumed"] is resumed
    assert created["conversation"] == {"id": CONVERSATION_ID, "object": "realtime.conversation"}
    ids = [event["event_id"] for event in step.events[1:]]
    assert len(set(ids)) == 2
    assert all(event_id.startswith("gw_") for event_id in ids)


def test_openais_own_event_of_that_name_is_swallowed() -> None:
    """Two shapes under one name would confuse every client."""
    Dialogue().live().model("conversation.created", conversation={"id": "conv_1"}).gives()


def test_the_lane_for_audio_is_open_while_live() -> None:
    """Canonical audio may pass unread only on a configured link, with nothing waiting before it."""
    talk = opening()
    assert not talk.session.audio_is_open
    talk.client("input_audio_buffer.clear").gives()
    talk.connected()
    assert talk.session.audio_is_open
    talk.lost()
    assert not talk.session.audio_is_open


def test_audio_passes_in_the_clients_dialect() -> None:
    """Canonical audio goes both ways unread; what must not be heard goes nowhere."""
    talk = Dialogue(dialect="preview").live()
    talk.speaks().gives("model: input_audio_buffer.append")
    step = talk.model("response.output_audio.delta", response_id="r1", item_id="i1", ms=20)
    assert json.loads(step.commands[0].frame)["type"] == "response.audio.delta"  # type: ignore[union-attr]
    talk.client("conversation.item.truncate", item_id="i1", audio_end_ms=5)
    talk.model("response.output_audio.delta", response_id="r1", item_id="i1", ms=20).gives()


def test_the_server_may_say_something_and_end_a_session() -> None:
    """A notice is told while the session lives and not after it; an end of ours ends it once."""
    talk = Dialogue().live()
    notice = notice_event("draining", "Soon.")
    talk._fact("drain", talk.session.notice(notice)).gives("client: notice draining")
    talk._fact("now", talk.session.end(Draining.ending, talk.now)).gives("close upstream", "close 1012 drain")
    assert talk.session.notice(notice) == talk.session.end(Draining.ending, talk.now) == []
    assert talk.session.token_refused(talk.now) == talk.session.time_passed(talk.now) == []


def test_a_client_that_leaves_ends_its_session_once() -> None:
    """What waits for its deadline is stored with the end; a second report of the same changes nothing."""
    talk = Dialogue(token_expires_in=900.0).live().answers("r1", "i1", "Hello.", 500)
    talk.later(1).gives("save 0 assistant 'Hello.' complete 500/500 ms")
    left = talk.session.client_left(CLIENT_LEFT, talk.now)
    talk._fact("left", left).gives("progress 1 client_left", "close upstream", "close 1000 client_left")
    assert talk.session.client_left(CLIENT_LEFT, talk.now) == []


# ------------------------------------------------------------------ what is sent too early


def test_what_was_sent_too_early_is_sent_in_order_when_live() -> None:
    """Audio, events and text wait for the configuration and keep their order, behind the session's own."""
    talk = opening()
    for audio in ("AAAA", "BBBB"):
        talk.client("input_audio_buffer.append", audio=audio).gives()
    talk.client("input_audio_buffer.commit").gives()
    talk.client("conversation.item.create", item=TYPED).gives()
    talk.client("response.create").gives()
    talk.opened()
    step = talk.model("session.updated", session={})
    step.gives(
        "client: session.updated",
        "model: input_audio_buffer.append",
        "model: input_audio_buffer.append",
        "model: input_audio_buffer.commit",
        "model: user 'Hi'",
        "model: response.create gw_rc_1",
    )
    assert [event.get("audio") for event in step.sent[:2]] == ["AAAA", "BBBB"]
    assert talk.session.audio_is_open


def test_the_same_holds_while_the_link_is_replaced() -> None:
    """What the client sends into a gap is not lost."""
    talk = Dialogue().live()
    talk.lost()
    talk.speaks().gives()
    talk.opened()
    talk.model("session.updated", session={}).gives("client: notice reconnected", "model: input_audio_buffer.append")


def test_a_held_event_that_does_not_fit_any_more_is_answered() -> None:
    """Refusals of held events reach the client when their turn comes."""
    talk = opening()
    talk.client("conversation.item.truncate", item_id="i9", audio_end_ms=5, event_id="mine").gives()
    talk.opened()
    step = talk.model("session.updated", session={})
    assert step.told[-1] == "client: error item_truncate_invalid_item_id"
    assert step.events[-1]["error"]["event_id"] == "mine"


def test_the_oldest_audio_goes_when_too_much_is_held() -> None:
    """The bound is kept by dropping what is stale; other events stay."""
    talk = opening()
    talk.client("input_audio_buffer.clear")
    second = base64_of(1000)
    for number in range(MAX_HELD_BYTES // len(second) + 2):
        talk.client("input_audio_buffer.append", audio=f"{number:04d}{second[4:]}").gives()
    talk.opened()
    sent = talk.model("session.updated", session={}).sent
    assert sum(len(event.get("audio", "")) for event in sent) <= MAX_HELD_BYTES
    assert sent[0] == {"type": "input_audio_buffer.clear"}
    assert sent[1]["audio"][:4] == "0002"


def test_events_beyond_the_bound_are_refused_and_small_ones_count_too() -> None:
    """A flood of tiny events fills the bound as well; then the newest are refused, and the client is told once."""
    talk = opening()
    fits = MAX_HELD_BYTES // (HELD_OVERHEAD_BYTES + len(b'{"type":"input_audio_buffer.clear"}'))
    for _ in range(fits):
        talk.client("input_audio_buffer.clear").gives()
    step = talk.client("input_audio_buffer.commit", event_id="mine")
    step.gives("client: error too_early")
    assert step.events[0]["error"]["event_id"] == "mine"
    talk.client("input_audio_buffer.commit").gives()
    talk.opened()
    assert len(talk.model("session.updated", session={}).sent) == fits


def test_a_link_lost_while_held_events_are_sent_keeps_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be sent waits for the next link."""
    talk = opening(fields={"max_session_s": 9000.0})
    for _ in range(3):
        talk.client("input_audio_buffer.clear")
    talk.opened()
    perform = BrowserSession._perform

    def lose_after_one(session: BrowserSession, event: Event, now: float) -> list[Any]:
        commands = perform(session, event, now)
        monkeypatch.undo()
        return [*commands, *talk.lost().commands]

    monkeypatch.setattr(BrowserSession, "_perform", lose_after_one)
    talk.model("session.updated", session={})
    talk.opened()
    step = talk.model("session.updated", session={})
    assert [event["type"] for event in step.sent] == ["input_audio_buffer.clear"] * 2


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("dialect", ["ga", "preview"])
@pytest.mark.parametrize(
    ("event", "fields", "code"),
    [
        ("session.update", {"session": {"type": "realtime", "instructions": "Be rude."}}, "not_allowed"),
        ("session.update", {"session": {"type": "realtime", "tools": []}}, "not_allowed"),
        ("session.update", {"session": {"type": "realtime", "model": "gpt-realtime-2"}}, "not_allowed"),
        ("response.create", {"response": {"instructions": "Be rude."}}, "not_allowed"),
        ("conversation.item.create", {"item": {**TYPED, "role": "system"}}, "not_allowed"),
        ("conversation.item.delete", {"item_id": "i1"}, "unsupported_event"),
    ],
)
def test_a_client_changes_nothing_that_is_not_its_own(dialect: Dialect, event: str, fields: Event, code: str) -> None:
    """The refusal is an error event with the client's own id; upstream hears nothing; the session goes on."""
    talk = Dialogue(dialect=dialect).live()
    step = talk.client(event, event_id="mine", **fields)
    step.gives(f"client: error {code}", "note client event refused")
    assert step.events[0]["error"]["event_id"] == "mine"
    assert talk.conversation.is_live


def test_each_dialect_is_checked_in_its_own_shape() -> None:
    """The flat session of the older dialect is allowed there, and only there."""
    flat = {"voice": "verse", "turn_detection": {"type": "server_vad"}, "temperature": 0.8, "modalities": ["audio"]}
    columns = {"client_may": {"voice": True}}
    step = Dialogue({"agent": columns}, dialect="preview").live().client("session.update", session=flat)
    assert step.sent[0]["session"] == {
        "type": "realtime",
        "audio": {"output": {"voice": "verse"}, "input": {"turn_detection": {"type": "server_vad"}}},
    }
    Dialogue({"agent": columns}).live().client("session.update", session=flat).gives("client: error not_allowed")


@pytest.mark.parametrize(
    "frame",
    [
        APPEND_HEAD + b'AAAA","type":"session.update","session":{"instructions":"x"},"audio":"AAAA"}',
        b'{"type":"session.update","type":"input_audio_buffer.append","audio":"AAAA"}',
        b'{"type":"input_audio_buffer.append","audio":"AAAA"',
        b"\xff",
        b"hello",
    ],
)
def test_nothing_is_smuggled_past_the_policy(frame: bytes) -> None:
    """What two readers could understand differently never goes upstream."""
    step = Dialogue().live().client(frame)
    step.gives("client: error invalid_json")
    assert not step.sent


def test_ten_refusals_within_a_minute_end_the_session() -> None:
    """Slips are forgiven; a client that goes on is not. Binary messages count, an answer to a race does not."""
    talk = Dialogue().live().begins_answer("r1", "i1")
    for _ in range(MAX_REFUSALS):
        talk.client("response.create").gives("client: error conversation_already_has_active_response")
    for _ in range(MAX_REFUSALS - 2):
        talk.client(b"{").gives("client: error invalid_json")
    talk._fact("binary", talk.session.refuse_binary(talk.now)).gives("client: error invalid_event")
    talk.client(b"{").gives("client: error invalid_json", "close upstream", "close 4009 client_error")
    talk.client(b"{").gives()
    talk.client("input_audio_buffer.clear").gives()


def test_refusals_that_lie_far_apart_are_forgiven() -> None:
    """Only the last minute counts."""
    talk = Dialogue().live()
    for _ in range(3 * MAX_REFUSALS):
        talk.client(b"{").gives("client: error invalid_json")
        talk.later(7)
    assert talk.conversation.is_live


@pytest.mark.parametrize(
    ("frame", "event_id"),
    [
        (b'{"type":"x","event_id":"mine"}', "mine"),
        (b'{"type":"x","type":"y","event_id":"mine"}', "mine"),
        (b'{"type":"x","event_id":5}', None),
        (b'{"type":"x","event_id":"' + b"e" * 513 + b'"}', None),
        (b"{", None),
    ],
)
def test_a_refusal_names_the_event_where_it_can(frame: bytes, event_id: str | None) -> None:
    """The client finds its own event by its id."""
    assert Dialogue().live().client(frame).events[0]["error"]["event_id"] == event_id


# ------------------------------------------------------------------ the token


def test_a_token_that_expires_is_announced_and_then_ends_the_session() -> None:
    """The client is told a minute before; without a new one the session ends with 4001."""
    talk = Dialogue(token_expires_in=300.0).live()
    talk.later(300 - TOKEN_NOTICE_S - 1).gives()
    step = talk.later(1)
    step.gives("client: notice token_expiring")
    assert step.events[0]["expires_in_s"] == 60
    talk.later(59).gives()
    talk.later(1).gives("close upstream", "close 4001 unauthorized")
    talk.later(1000).gives()


def test_a_token_about_to_expire_is_announced_at_once() -> None:
    """A session that begins within the last minute of its token hears of it first."""
    talk = Dialogue(token_expires_in=20.0)
    talk.begins()
    assert talk.later(0).events[0]["expires_in_s"] == 20


@pytest.mark.parametrize(("new_expiry_s", "lives_s"), [(300.0, 300.0), (None, 3000.0)])
def test_a_refreshed_token_lets_the_session_live_on(new_expiry_s: float | None, lives_s: float) -> None:
    """The new expiry takes the place of the old one; the token itself is in no frame."""
    talk = Dialogue({"max_session_s": 10_000.0, "idle_s": 10_000.0}, token_expires_in=60.0).live()
    step = talk.client("session.refresh", token="s3cret", event_id="mine")
    step.gives("check token")
    assert "s3cret" not in str(step.commands)
    expires_at = None if new_expiry_s is None else talk.now + new_expiry_s
    talk._fact("accepted", talk.session.token_accepted(expires_at, talk.now)).gives()
    talk.later(lives_s - 1)
    assert talk.conversation.is_live


def test_a_refused_token_leaves_the_old_one() -> None:
    """The client is told and may try again; the session ends when the old token does."""
    talk = Dialogue(token_expires_in=100.0).live()
    talk.client("session.refresh", token="bad")
    talk._fact("refused", talk.session.token_refused(talk.now)).gives("client: error invalid_token")
    talk.later(99)
    assert talk.conversation.is_live
    assert talk.later(1).told[-1] == "close 4001 unauthorized"


@pytest.mark.parametrize(
    "fields",
    [{}, {"token": None}, {"token": ""}, {"token": 5}, {"token": "x" * (MAX_TOKEN_CHARS + 1)}, {"token": "t", "x": 1}],
)
def test_a_refresh_without_a_token_is_refused(fields: Event) -> None:
    """Nothing is asked of the sign-in service for it."""
    Dialogue().live().client("session.refresh", **fields).gives("client: error invalid_value")


def test_tokens_are_checked_one_at_a_time() -> None:
    """A flood of refreshes is no flood for the sign-in service; after the answer the next one may come."""
    talk = Dialogue().live()
    talk.client("session.refresh", token="t").gives("check token")
    talk.client("session.refresh", token="t").gives("client: error not_allowed")
    talk._fact("refused", talk.session.token_refused(talk.now))
    talk.client("session.refresh", token="t").gives("check token")


def test_a_token_may_be_refreshed_before_the_session_is_live() -> None:
    """It is no event for upstream and does not wait."""
    opening().client("session.refresh", token="t").gives("check token")


CLEAR = "input_audio_buffer.clear"
TOO_MANY = "rate_limit_exceeded"


def test_a_flood_of_events_is_refused() -> None:
    """More than 200 events within ten seconds are refused by name; audio does not count."""
    talk = Dialogue().live()
    for _ in range(MAX_EVENTS):
        assert TOO_MANY not in " ".join(talk.client(CLEAR).told)
    assert TOO_MANY in " ".join(talk.client(CLEAR).told)
    assert TOO_MANY not in " ".join(talk.client(b'{"audio":"AAAA", "type":"input_audio_buffer.append"}').told)


def test_a_flood_is_forgotten_after_a_while() -> None:
    """The window slides: after ten seconds the client is heard again."""
    talk = Dialogue().live()
    for _ in range(MAX_EVENTS + 1):
        talk.client(CLEAR)
    talk.later(FLOOD_WINDOW_S)
    assert TOO_MANY not in " ".join(talk.client(CLEAR).told)


def test_a_flood_of_bytes_is_refused() -> None:
    """A megabyte of typed text within ten seconds is refused before it fills the link's buffer."""
    talk = Dialogue().live()
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x" * 32_000}]}
    taken = 0
    while TOO_MANY not in " ".join(talk.client("conversation.item.create", item=item).told):
        taken += 1
    assert 30 <= taken <= MAX_EVENT_BYTES // 32_000
