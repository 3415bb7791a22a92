"""Twilio's webhooks: who is believed, what a caller hears, and what is in the database before the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from twilio.request_validator import RequestValidator

from core.agent import CallSettings
from core.calls import Call, PhoneNumber, iso, moment, token_hash
from handlers.webhooks import BUSY, NOT_IN_SERVICE, SORRY
from services.store import StoreUnavailable
from simulator.twilio import TwilioSimulator
from simulator.twilio_record import CallRecord
from simulator.twilio_settings import Account
from simulator.twiml import Connect, Hangup, Pause, Say, Verb, parse
from tests.fakes.browser import AGENTS, PLAIN_ID, STRANGERS_AGENT_ID, SWITCHED_OFF_ID, USER_ID
from tests.fakes.phone_desk import (
    CALLER,
    MASTER,
    MASTER_TOKEN,
    NUMBER,
    PUBLIC_URL,
    SETTINGS,
    SUB,
    SUB_NUMBER,
    SUB_SECRET_ID,
    SUB_TOKEN,
    Desk,
    new_sid,
)
from tests.handlers.conftest import Make, rows

APOLOGY = "Rosa is sorry & will call back."


@pytest.fixture
def desk(make: Make) -> Iterator[Desk]:
    with Desk(make(SETTINGS)) as opened:
        yield opened


def verbs(answer: httpx.Response) -> list[Verb]:
    """Return what the simulated Twilio makes of an answer; a warning fails the test."""
    warnings: list[str] = []
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/xml")
    assert answer.headers["Cache-Control"] == "no-store"
    found = parse(answer.text.partition("?>")[2], lambda code, text: warnings.append(text))
    assert warnings == []
    return found


def stream_of(answer: httpx.Response) -> Connect:
    """Return the one verb of an answer that connects."""
    (verb,) = verbs(answer)
    assert isinstance(verb, Connect)
    return verb


def heard(answer: httpx.Response) -> str:
    """Return the sentence after which the call ends."""
    said, end = verbs(answer)
    assert isinstance(said, Say)
    assert end == Hangup()
    return said.text


def row_of(desk: Desk, call_sid: str) -> dict[str, Any] | None:
    """Return a call's row."""
    found = rows(desk.gateway, "select * from calls where call_sid = ?", call_sid)
    return found[0] if found else None


def store(desk: Desk) -> Any:
    return desk.gateway.server.context.store


def claim(desk: Desk, call_sid: str, token: str) -> Call | None:
    """Claim a call as the stream does."""
    claim = store(desk).claim_call(call_sid, token_hash=token_hash(token), now=iso(datetime.now(UTC)))
    claimed: Call | None = desk.gateway.run(claim)
    return claimed


# ---------------------------------------------------------------------- /api/twilio/voice


def test_call_is_connected_and_its_row_is_there_before_the_answer(desk: Desk) -> None:
    """The TwiML names our stream, what follows it and who is told; the token in it claims the committed row."""
    sid = new_sid()
    connect = stream_of(desk.voice(CallSid=sid))
    assert connect.stream.url == "wss://voice.example.com/api/twilio/media-stream"
    assert connect.action == f"{PUBLIC_URL}/api/twilio/after"
    assert connect.stream.status_callback == f"{PUBLIC_URL}/api/twilio/status"
    assert set(connect.stream.parameters) == {"token"}
    token = connect.stream.parameters["token"]
    assert claim(desk, sid, token) == Call(sid, PLAIN_ID, USER_ID, MASTER, CALLER, NUMBER)
    assert claim(desk, sid, token) is None


def test_nothing_secret_is_in_the_answer_but_the_token(desk: Desk) -> None:
    """Neither agent, prompt, number nor key is in the TwiML, and the database holds the token's hash only."""
    sid = new_sid()
    answer = desk.voice(CallSid=sid)
    token = stream_of(answer).stream.parameters["token"]
    assert len(token) >= 43  # 256 bits in base64
    for secret in (PLAIN_ID, USER_ID, CALLER, NUMBER, sid, MASTER, "canary"):
        assert secret not in answer.text
    row = row_of(desk, sid)
    assert row is not None
    assert row["token_hash"] == token_hash(token)
    assert token not in str(row)
    assert token not in desk.gateway.log_text()
    assert stream_of(desk.voice()).stream.parameters["token"] != token


def test_call_waits_three_hundred_seconds(desk: Desk) -> None:
    """The row says when it was made and that it expires 300 s later."""
    sid = new_sid()
    desk.voice(CallSid=sid)
    stored = desk.gateway.run(store(desk).call(sid))
    assert (moment(stored.expires_at) - moment(stored.created_at)).total_seconds() == 300


def test_second_webhook_of_a_call_makes_a_new_token(desk: Desk) -> None:
    """When Twilio asks again, as after a time-out, the last answer counts."""
    sid = new_sid()
    first, second = (stream_of(desk.voice(CallSid=sid)).stream.parameters["token"] for _ in range(2))
    assert claim(desk, sid, first) is None
    assert claim(desk, sid, second) is not None


def test_webhook_of_a_live_call_ends_in_a_sentence(desk: Desk) -> None:
    """One call has one stream; once it ended, the same call may come back."""
    sid = new_sid()
    assert claim(desk, sid, stream_of(desk.voice(CallSid=sid)).stream.parameters["token"]) is not None
    assert heard(desk.voice(CallSid=sid)).startswith("I am sorry, something went wrong.")
    desk.status(sid, CallStatus="completed")
    assert stream_of(desk.voice(CallSid=sid))


@pytest.mark.parametrize("path", ["/api/twilio/voice", "/api/twilio/after", "/api/twilio/status"])
def test_wrong_signature_is_refused(desk: Desk, path: str) -> None:
    """Whoever is not Twilio gets 403, no row and no word about why."""
    wrong: list[tuple[dict[str, str], str]] = [
        ({"X-Twilio-Signature": "nonsense"}, MASTER_TOKEN),
        ({"X-Twilio-Signature": ""}, MASTER_TOKEN),
        ({"X-Twilio-Webhooks-Signature-Settings": "key=k,algorithm=NONE"}, MASTER_TOKEN),
        ({}, "f" * 32),
        ({}, SUB_TOKEN),
    ]
    for headers, token in wrong:
        form = desk.form()
        answer = desk.post(path, form, headers=headers, token=token)
        assert (answer.status_code, answer.text) == (403, "the signature does not match")
        assert row_of(desk, form["CallSid"]) is None
    assert "cause=signature" in desk.gateway.log_text()


def test_signature_is_over_the_whole_request(desk: Desk) -> None:
    """A field changed, added or taken away, another address or another query breaks it; the true query does not."""
    form = desk.form()
    signature = {"X-Twilio-Signature": _signature(desk, "/api/twilio/voice?tenant=a%20b&x=", form)}
    good = "/api/twilio/voice?tenant=a%20b&x="
    assert desk.post(good, form, headers=signature).status_code == 200
    for path, changed in (
        (good, form | {"To": SUB_NUMBER}),
        (good, form | {"More": ""}),
        (good, {name: value for name, value in form.items() if name != "CallerCity"}),
        ("/api/twilio/voice?tenant=b", form),
        ("/api/twilio/voice", form),
        ("/api/twilio/voice?tenant=a+b&x=", form),
        ("/api/twilio/status", form),
    ):
        assert desk.post(path, changed, headers=signature).status_code == 403


def _signature(desk: Desk, path: str, form: dict[str, str]) -> str:
    return str(RequestValidator(MASTER_TOKEN).compute_signature(PUBLIC_URL + path, form))


def test_forwarded_headers_change_nothing(desk: Desk) -> None:
    """The address that was signed is the configured one, whatever the request says of itself."""
    headers = {"X-Forwarded-Proto": "http", "X-Forwarded-Host": "evil.example", "Host": "evil.example"}
    assert desk.post("/api/twilio/voice", desk.form(), headers=headers).status_code == 200


def test_subaccount_signs_with_its_own_token(desk: Desk) -> None:
    """A number's subaccount is believed by its Vault token; its call remembers the account and where the token is."""
    sid = new_sid()
    answer = desk.voice(CallSid=sid, AccountSid=SUB, To=SUB_NUMBER, token=SUB_TOKEN)
    call = claim(desk, sid, stream_of(answer).stream.parameters["token"])
    assert call is not None
    assert (call.account_sid, call.auth_token_secret_id) == (SUB, SUB_SECRET_ID)
    assert desk.voice(AccountSid=SUB, To=SUB_NUMBER).status_code == 403  # the parent's token signs nothing of its


def test_account_speaks_for_its_own_numbers_and_calls_only(desk: Desk) -> None:
    """With its own token a subaccount reaches neither another account's number nor another account's call."""
    other = "AC" + "3" * 32
    desk.vault["00000000-0000-4000-8000-0000000000e2"] = "3" * 32
    number = PhoneNumber("+14155550133", PLAIN_ID, USER_ID, other, "00000000-0000-4000-8000-0000000000e2")
    desk.gateway.run(store(desk).put_number(number))
    assert desk.voice(AccountSid=other, To=SUB_NUMBER, token="3" * 32).status_code == 403
    assert desk.voice(AccountSid=SUB, To=number.number, token="3" * 32).status_code == 403
    mixed = desk.voice(AccountSid=other, To=SUB_NUMBER, From=number.number, token="3" * 32)
    assert heard(mixed) == NOT_IN_SERVICE
    sid = new_sid()
    assert stream_of(desk.voice(CallSid=sid, AccountSid=SUB, To=SUB_NUMBER, token=SUB_TOKEN))
    taken = desk.voice(CallSid=sid, AccountSid=other, To=number.number, token="3" * 32)
    assert heard(taken) == NOT_IN_SERVICE
    assert desk.status(sid, AccountSid=other, To=NUMBER, token="3" * 32, CallStatus="completed").status_code == 403


def test_unknown_number_is_told_so(desk: Desk) -> None:
    """A caller of a number without an agent hears a sentence, and no row is made."""
    form = desk.form(To="+14155559999")
    assert heard(desk.post("/api/twilio/voice", form)) == NOT_IN_SERVICE
    assert heard(desk.voice(To="sip:nobody@example.com")) == NOT_IN_SERVICE
    assert heard(desk.voice(To=None)) == NOT_IN_SERVICE
    assert row_of(desk, form["CallSid"]) is None
    assert 'cause="unknown number"' in desk.gateway.log_text()
    assert "9999" not in desk.gateway.log_text()


def test_agent_that_is_switched_off_is_not_in_service(desk: Desk) -> None:
    """A number whose agent takes no calls says so."""
    desk.gateway.run(store(desk).put_number(PhoneNumber(NUMBER, SWITCHED_OFF_ID, USER_ID)))
    assert heard(desk.voice()) == NOT_IN_SERVICE


def test_outbound_call_is_answered_by_the_number_that_calls(desk: Desk) -> None:
    """When we call somebody, ours is the number the call comes from."""
    sid = new_sid()
    answer = desk.voice(CallSid=sid, Direction="outbound-api", From=NUMBER, To="+14155557777")
    call = claim(desk, sid, stream_of(answer).stream.parameters["token"])
    assert call is not None
    assert (call.agent_id, call.from_number, call.to_number) == (PLAIN_ID, NUMBER, "+14155557777")


@pytest.mark.parametrize("by", ["machine_start", "machine_end_beep", "machine_end_other", "fax"])
def test_answering_machine_hears_the_message_the_owner_chose(make: Make, by: str) -> None:
    """An outbound call that a machine answered costs no stream: the message is spoken, or the call just ends."""
    out = {"Direction": "outbound-api", "From": NUMBER, "To": CALLER, "AnsweredBy": by}
    seed = tuple({**row, "call_settings": {"voicemail": "Please call back."}} for row in AGENTS)
    with Desk(make(SETTINGS, seed=seed)) as desk:
        assert heard(desk.voice(**out)) == "Please call back."
        assert stream_of(desk.voice(**out | {"AnsweredBy": "human"}))
        sid = new_sid()
        desk.put(sid, {"agent_id": PLAIN_ID, "user_id": USER_ID, "config": {"call_settings": {"voicemail": "hang_up"}}})
        assert verbs(desk.voice(CallSid=sid, **out)) == [Hangup()]


def test_agent_without_a_voicemail_setting_talks_to_machines(desk: Desk) -> None:
    """Whoever answers is talked to, as Twilio cannot be sure."""
    assert stream_of(desk.voice(Direction="outbound-api", From=NUMBER, To=CALLER, AnsweredBy="machine_start"))


def test_what_the_main_app_announced_counts_more_than_the_number(desk: Desk) -> None:
    """A call put here beforehand keeps its agent and its overrides, and gets Twilio's account with it."""
    sid = new_sid()
    desk.put(sid, {"agent_id": PLAIN_ID, "user_id": USER_ID, "config": {"greeting": "Hi."}})
    token = stream_of(desk.voice(CallSid=sid, To="+14155559999")).stream.parameters["token"]
    call = claim(desk, sid, token)
    assert call is not None
    assert (call.agent_id, dict(call.config), call.account_sid) == (PLAIN_ID, {"greeting": "Hi."}, MASTER)
    other = new_sid()
    desk.put(other, {"agent_id": PLAIN_ID, "user_id": USER_ID, "account_sid": SUB})
    assert heard(desk.voice(CallSid=other)) == NOT_IN_SERVICE


def test_subaccount_of_an_announced_call_signs_without_a_number(desk: Desk) -> None:
    """The main app may say where the token is, for numbers this server does not know."""
    sid, body = new_sid(), {"agent_id": PLAIN_ID, "user_id": USER_ID, "account_sid": SUB}
    desk.put(sid, body)
    unknown = {"CallSid": sid, "AccountSid": SUB, "To": "+14155559999"}
    assert desk.voice(token=SUB_TOKEN, **unknown).status_code == 403
    desk.put(sid, body | {"auth_token_secret_id": SUB_SECRET_ID})
    assert stream_of(desk.voice(token=SUB_TOKEN, **unknown))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"MAX_CONNECTIONS": "1"}, BUSY),
        ({"MAX_SESSIONS_PER_USER": "1"}, BUSY),
    ],
)
def test_caller_beyond_a_limit_hears_that_all_lines_are_busy(
    make: Make, settings: dict[str, str], sentence: str
) -> None:
    """With no room for the stream the call is not connected, and the places taken are as before."""
    with Desk(make(SETTINGS | settings)) as desk:
        connections = desk.gateway.server.context.connections
        connections.take_slot()
        connections.reserve_user(USER_ID)
        assert heard(desk.voice()) == sentence
        assert connections.active == 1
        connections.release_user(USER_ID)
        connections.release_slot()
        assert stream_of(desk.voice())
        assert connections.active == 0


def test_caller_of_a_server_that_stops_hears_that_all_lines_are_busy(desk: Desk) -> None:
    """While draining nobody is connected."""
    connections = desk.gateway.server.context.connections
    connections.is_draining = True
    assert heard(desk.voice()) == BUSY
    connections.is_draining = False


def test_agent_whose_budget_is_spent_takes_no_calls(make: Make) -> None:
    """The owner's budget of the day holds on the phone too."""
    with Desk(make(SETTINGS | {"DAILY_BUDGET_USD_PER_USER": "0"})) as desk:
        assert heard(desk.voice()) == NOT_IN_SERVICE


class Away:
    """A store that fails at one call, or at all of them."""

    def __init__(self, real: Any, *names: str) -> None:
        self._real, self._names = real, names

    def __getattr__(self, name: str) -> Any:
        async def fail(*args: Any, **options: Any) -> Any:
            raise StoreUnavailable("fails on request")

        return fail if name in self._names else getattr(self._real, name)


@pytest.mark.parametrize("name", ["call", "number", "agent", "put_call"])
def test_database_that_is_away_ends_in_a_sentence(make: Make, name: str) -> None:
    """Whichever step fails, the caller hears an apology, and the log has the kind of failure."""
    with Desk(make(SETTINGS, accidents=("call not announced",))) as desk:
        context = desk.gateway.server.context
        context.store = Away(context.store, name)  # type: ignore[assignment]
        assert heard(desk.voice()) == SORRY
        assert "call not announced  cause=StoreUnavailable" in desk.gateway.log_text()


def test_slow_database_ends_in_a_sentence_in_time(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twilio gives up after some 15 s; the apology comes before."""
    monkeypatch.setattr("handlers.webhooks.ANSWER_S", 0.1)

    async def never(*args: Any) -> None:
        await asyncio.Event().wait()

    with Desk(make(SETTINGS, accidents=("call not announced",))) as desk:
        monkeypatch.setattr(desk.gateway.server.context.store, "number", never)
        assert heard(desk.voice()) == SORRY


def test_vault_that_is_away_ends_in_a_sentence(make: Make) -> None:
    """Without a subaccount's token nobody is believed; the caller hears the same apology as everybody."""
    with Desk(make(SETTINGS, accidents=("call not announced",))) as desk:
        desk.vault.clear()
        assert heard(desk.voice(AccountSid=SUB, To=SUB_NUMBER, token=SUB_TOKEN)) == SORRY


def test_request_about_no_call_is_malformed(desk: Desk) -> None:
    """Sids of another shape are refused before anything is looked up."""
    bad = {"CallSid": (None, "CA1", "CA" + "A" * 32, "CA" + "0" * 33), "AccountSid": (None, "AC1")}
    for name, values in bad.items():
        for value in values:
            assert desk.post("/api/twilio/voice", desk.form(**{name: value})).status_code == 400


def test_body_that_is_no_form_of_twilios_is_refused(desk: Desk) -> None:
    """Other kinds, too many fields and too much of them get 400."""
    form = "application/x-www-form-urlencoded"
    bad = ((b"{}", "application/json"), (b"", form), (b"a=1&" * 400, form), (b"\xff\xfe=%ff", form))
    for content, kind in bad:
        answer = desk.http.post("/api/twilio/voice", content=content, headers={"Content-Type": kind})
        assert answer.status_code == 400
    try:
        answer = desk.http.post("/api/twilio/voice", content=b"x" * 70_000, headers={"Content-Type": form})
    except httpx.TransportError:  # cut off in the middle of what is too long
        return
    assert answer.status_code == 400


def test_only_posts_are_taken(desk: Desk) -> None:
    """Webhooks set to GET in Twilio's console are told that this is not the way."""
    assert [desk.http.get(f"/api/twilio/{door}").status_code for door in ("voice", "after", "status")] == [405] * 3


def test_without_a_public_name_nobody_is_believed(make: Make) -> None:
    """There is no way to check a signature then, and no switch to do without."""
    settings = {name: value for name, value in SETTINGS.items() if name != "PUBLIC_URL"}
    with Desk(make(settings)) as desk:
        assert desk.voice().status_code == 403
        assert "no PUBLIC_URL" in desk.gateway.log_text()


def test_without_a_token_nobody_is_believed(make: Make) -> None:
    """A server that knows no token of the account refuses, as an empty one would sign for everybody."""
    with Desk(make({"PUBLIC_URL": PUBLIC_URL})) as desk:
        assert desk.voice().status_code == 403
        assert desk.voice(token="").status_code == 403


# ---------------------------------------------------------------------- /api/twilio/after


def test_after_a_stream_the_call_ends_without_a_word(desk: Desk) -> None:
    """The goodbye was said in the stream; nothing follows it."""
    sid = new_sid()
    assert claim(desk, sid, stream_of(desk.voice(CallSid=sid)).stream.parameters["token"])
    assert verbs(desk.after(sid)) == [Hangup()]
    desk.status(sid, CallStatus="completed")
    assert verbs(desk.after(sid)) == [Hangup()]


def test_stream_that_never_opened_ends_in_the_agents_apology(make: Make) -> None:
    """The caller hears the owner's own words, and the token that was never used is worthless from then on."""
    settings = {"call_settings": {"error_message": APOLOGY}}
    seed = tuple(agent | settings if agent["id"] == PLAIN_ID else agent for agent in AGENTS)
    with Desk(make(SETTINGS, seed=seed, accidents=("stream never began",))) as desk:
        sid = new_sid()
        token = stream_of(desk.voice(CallSid=sid)).stream.parameters["token"]
        assert heard(desk.after(sid)) == APOLOGY
        assert claim(desk, sid, token) is None
        row = row_of(desk, sid)
        assert row is not None
        assert (row["end_reason"], row["token_hash"], row["config"]) == ("internal", None, "{}")


def test_apology_may_be_this_calls_own(make: Make) -> None:
    """An override of the error message holds here too."""
    with Desk(make(SETTINGS, accidents=("stream never began",))) as desk:
        sid = new_sid()
        config = {"call_settings": {"error_message": APOLOGY}}
        desk.put(sid, {"agent_id": PLAIN_ID, "user_id": USER_ID, "config": config})
        assert heard(desk.after(sid)) == APOLOGY


def test_apology_of_an_agent_that_is_gone_is_the_servers(make: Make) -> None:
    """Without an agent there are words all the same."""
    with Desk(make(SETTINGS, accidents=("stream never began",))) as desk:
        sid = new_sid()
        desk.put(sid, {"agent_id": PLAIN_ID, "user_id": USER_ID})
        desk.gateway.run(store(desk).put_agent({"id": PLAIN_ID, "user_id": USER_ID, "is_active": False}))
        assert heard(desk.after(sid)) == SORRY


def test_caller_who_hangs_up_before_the_stream_opens_is_no_error(desk: Desk) -> None:
    """Nobody is left to hear an apology, and the log has no ERROR; the waiting row ends."""
    sid = new_sid()
    desk.voice(CallSid=sid)
    assert verbs(desk.after(sid, CallStatus="completed")) == [Hangup()]
    row = row_of(desk, sid)
    assert row is not None
    assert row["end_reason"] == "client_left"


def test_transfer_is_left_alone(desk: Desk) -> None:
    """When the stream closed because the caller is being handed over, the line stays open for that."""
    sid = new_sid()
    assert claim(desk, sid, stream_of(desk.voice(CallSid=sid)).stream.parameters["token"])
    end = {"ended_at": iso(datetime.now(UTC)), "end_reason": "transferred"}
    desk.gateway.run(store(desk).end_call(sid, **end))
    assert verbs(desk.after(sid)) == [Pause(10), Hangup()]


def test_call_that_was_removed_ends(desk: Desk) -> None:
    """A row the main app deleted during the call leaves nothing to say."""
    assert verbs(desk.after(new_sid())) == [Hangup()]


def test_after_without_a_database_there_is_a_sentence(make: Make) -> None:
    """It cannot be known whether the stream was ever open, so the caller hears something."""
    with Desk(make(SETTINGS, accidents=("end of a stream",))) as desk:
        context = desk.gateway.server.context
        context.store = Away(context.store, "call")  # type: ignore[assignment]
        assert heard(desk.after(new_sid())) == SORRY


# ---------------------------------------------------------------------- /api/twilio/status


def test_end_of_a_call_is_written_down(desk: Desk) -> None:
    """The last status ends the row and empties it; any other changes nothing."""
    left = dict.fromkeys(("completed", "busy", "no-answer", "canceled"), "client_left")
    for status, end_reason in {**left, "failed": "internal", "in-progress": None, "": None, "new-word": None}.items():
        sid = new_sid()
        desk.voice(CallSid=sid)
        answer = desk.status(sid, CallStatus=status, CallDuration="12")
        assert (answer.status_code, answer.text) == (204, "")
        row = row_of(desk, sid)
        assert row is not None
        assert row["end_reason"] == end_reason
        assert (row["ended_at"] is None) == (end_reason is None) == (row["token_hash"] is not None)


def test_status_does_not_overrule_who_held_the_call(desk: Desk) -> None:
    """What the session wrote stays."""
    sid = new_sid()
    desk.voice(CallSid=sid)
    desk.gateway.run(store(desk).end_call(sid, ended_at=iso(datetime.now(UTC)), end_reason="time_limit"))
    assert desk.status(sid, CallStatus="completed").status_code == 204
    row = row_of(desk, sid)
    assert row is not None
    assert row["end_reason"] == "time_limit"


def test_stream_that_failed_is_logged_by_its_code(make: Make) -> None:
    """The only place where a failed handshake becomes visible here names the call and Twilio's code, not its words."""
    with Desk(make(SETTINGS, accidents=("stream failed",))) as desk:
        for error, code in (("31920 HTTP 502 instead of 101", 31920), ("Error - 31901", 31901), ("", "unknown")):
            sid = new_sid()
            desk.voice(CallSid=sid)
            stream = {"StreamSid": "MZ" + "1" * 32, "StreamEvent": "stream-error", "StreamError": error}
            assert desk.status(sid, CallStatus=None, **stream).status_code == 204
            assert f"stream failed  call_sid={sid} code={code}" in desk.gateway.log_text()
            row = row_of(desk, sid)
            assert row is not None
            assert row["ended_at"] is None
        assert "HTTP 502" not in desk.gateway.log_text()
        assert "instead of" not in desk.gateway.log_text()


def test_other_stream_events_change_nothing(desk: Desk) -> None:
    """Starts and stops of streams are answered and do not end the call, whatever its status says."""
    sid = new_sid()
    desk.voice(CallSid=sid)
    for event in ("stream-started", "stream-stopped"):
        assert desk.status(sid, StreamEvent=event, CallStatus="completed").status_code == 204
    row = row_of(desk, sid)
    assert row is not None
    assert row["ended_at"] is None


def test_subaccounts_status_is_believed_by_its_call(desk: Desk) -> None:
    """The call's row says whose token signs, so a callback that names no number of ours is checked all the same."""
    sid = new_sid()
    desk.voice(CallSid=sid, AccountSid=SUB, To=SUB_NUMBER, token=SUB_TOKEN)
    answer = desk.status(sid, AccountSid=SUB, To=None, From=None, CallStatus="completed", token=SUB_TOKEN)
    assert answer.status_code == 204


def test_status_of_an_unknown_call_is_no_error(desk: Desk) -> None:
    """Twilio reports calls that other apps handle too."""
    assert desk.status(new_sid(), CallStatus="completed").status_code == 204


def test_status_that_cannot_be_stored_is_visible_at_twilio(make: Make) -> None:
    """A database that is away gives 503, which shows in Twilio's debugger."""
    with Desk(make(SETTINGS, accidents=("status callback lost",))) as desk:
        context = desk.gateway.server.context
        context.store = Away(context.store, "end_call")  # type: ignore[assignment]
        assert desk.status(new_sid(), CallStatus="completed").status_code == 503


def test_no_number_and_no_token_is_in_the_log(desk: Desk) -> None:
    """A whole call with refusals leaves no phone number, token or name in any line."""
    sid = new_sid()
    token = stream_of(desk.voice(CallSid=sid)).stream.parameters["token"]
    desk.voice(To="+14155559999")
    desk.voice(token="f" * 32)
    desk.status(sid, CallStatus="completed")
    text = desk.gateway.log_text()
    for private in (token, CALLER, NUMBER, "5550", "Zoë", SUB_TOKEN, STRANGERS_AGENT_ID):
        assert private not in text


# ---------------------------------------------------------------------- a whole call


def dialled(desk: Desk, **plan: Any) -> CallRecord:
    """Let the simulated Twilio call us, from the webhook to the last callback; the caller has two seconds."""
    accounts = (Account(MASTER, MASTER_TOKEN), Account(SUB, SUB_TOKEN, MASTER))
    routes = {"voice.example.com": desk.gateway.url.removeprefix("http://")}
    urls = {"voice_url": f"{PUBLIC_URL}/api/twilio/voice", "status_callback": f"{PUBLIC_URL}/api/twilio/status"}

    async def call() -> CallRecord:
        async with TwilioSimulator(accounts=accounts, routes=routes, clips_only=True) as twilio:
            return await twilio.call(from_=CALLER, timeout_s=2.0, **urls, **plan)

    return desk.gateway.run(call())


def answers(record: CallRecord) -> list[tuple[str, int]]:
    return [(request.kind, request.status) for request in record.requests]


@pytest.mark.parametrize(("account_sid", "number"), [(MASTER, NUMBER), (SUB, SUB_NUMBER)])
def test_simulated_twilio_finds_nothing_to_complain_of(desk: Desk, account_sid: str, number: str) -> None:
    """A call of either account is connected, followed and reported; Twilio's debugger stays empty."""
    record = dialled(desk, to=number, account_sid=account_sid)
    assert (record.warnings, record.rejected) == ([], [])
    first, *others = answers(record)
    assert first == ("voice", 200)
    assert sorted(others) == [  # callbacks about the stream and what follows it are asked side by side
        ("action", 200),
        ("call-status", 204),
        ("stream-status", 204),
        ("stream-status", 204),
    ]
    assert record.stream_sids
    assert record.spoken == []
    row = row_of(desk, record.sid)
    assert row is not None
    assert (row["end_reason"], row["token_hash"], row["config"]) == ("client_left", None, "{}")


def test_caller_of_a_stream_that_was_refused_hears_a_sentence(make: Make) -> None:
    """A handshake that Twilio did not sign opens nothing, and what follows it is an apology, not silence."""
    with Desk(make(SETTINGS, accidents=("stream never began",))) as desk:
        record = dialled(desk, to=NUMBER, faults=["wrong_stream_signature"])
        assert record.spoken == [CallSettings().error_message]
        assert record.warnings == []


def test_caller_of_an_unknown_number_hears_a_sentence(desk: Desk) -> None:
    """The call is answered, the sentence spoken, the line released by us."""
    record = dialled(desk, to="+14155559999")
    assert record.spoken == [NOT_IN_SERVICE]
    assert record.warnings == []
    assert record.stream_sids == []
