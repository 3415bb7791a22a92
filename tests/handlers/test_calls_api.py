"""`/api/calls`: the main app announces calls, looks at them, removes them; and nobody else does. And their removal."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from core.calls import Call, iso, lifetime, moment, token_hash
from handlers.calls import remove_expired_calls
from services.store import StoreUnavailable
from tests.fakes.browser import PLAIN_ID, STRANGER_ID, SWITCHED_OFF_ID, USER_ID, eventually
from tests.fakes.phone_desk import INTERNAL_KEY, SETTINGS, SUB, SUB_SECRET_ID, Desk, new_sid
from tests.handlers.conftest import Make, rows

BODY: dict[str, Any] = {"agent_id": PLAIN_ID, "user_id": USER_ID}


@pytest.fixture
def desk(make: Make) -> Iterator[Desk]:
    with Desk(make(SETTINGS)) as opened:
        yield opened


def claim(desk: Desk, call_sid: str, token: str) -> Call | None:
    """Claim a call as the stream does."""
    store = desk.gateway.server.context.store
    now = iso(datetime.now(UTC))
    return desk.gateway.run(store.claim_call(call_sid, token_hash=token_hash(token), now=now))


def refusal(answer: httpx.Response) -> tuple[int, str]:
    """Return the status and the code of a refusal."""
    return answer.status_code, answer.json()["error"]["code"]


def test_announced_call_is_claimed_with_the_token_of_the_answer(desk: Desk) -> None:
    """The answer has all that the main app's TwiML needs, and the row has all that it said."""
    sid = new_sid()
    body = BODY | {
        "account_sid": SUB,
        "from_number": "+14155550111",
        "to_number": "+14155550122",
        "config": {"instructions": "Sell nothing. Ünïcödé ☎", "call_settings": {"silence_timeout_s": 4}},
        "auth_token_secret_id": SUB_SECRET_ID,
    }
    answer = desk.put(sid, body)
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    said = answer.json()
    assert set(said) == {"call_sid", "token", "expires_at", "stream_url"}
    assert (said["call_sid"], said["stream_url"]) == (sid, "wss://voice.example.com/api/twilio/media-stream")
    assert 295 < (moment(said["expires_at"]) - datetime.now(UTC)).total_seconds() <= 300
    parties = (body["from_number"], body["to_number"])
    assert claim(desk, sid, said["token"]) == Call(
        sid, PLAIN_ID, USER_ID, SUB, *parties, body["config"], auth_token_secret_id=SUB_SECRET_ID
    )


def test_token_is_in_the_answer_only(desk: Desk) -> None:
    """Database and log hold no token, and each announcement has its own."""
    sid = new_sid()
    first, second = (desk.put(sid, BODY).json()["token"] for _ in range(2))
    assert first != second
    stored = str(rows(desk.gateway, "select * from calls where call_sid = ?", sid)[0])
    for token in (first, second):
        assert token not in stored
        assert token not in desk.gateway.log_text()
    assert claim(desk, sid, first) is None
    assert claim(desk, sid, second) is not None


def test_life_of_a_call_is_seen(desk: Desk) -> None:
    """A call is waiting, live, ended and gone; what it is configured with is not shown."""
    sid = new_sid()
    token = desk.put(sid, BODY | {"from_number": "+14155550111", "config": {"greeting": "Hi."}}).json()["token"]
    seen = desk.call("GET", sid).json()
    times = {name: seen.pop(name) for name in ("created_at", "expires_at")}
    assert moment(times["expires_at"]) - moment(times["created_at"]) == timedelta(seconds=300)
    parties = {"account_sid": None, "from_number": "+14155550111", "to_number": None}
    still = {"claimed_at": None, "ended_at": None, "end_reason": None}
    assert seen == {"call_sid": sid, "status": "waiting", **BODY, **parties, **still}
    assert claim(desk, sid, token) is not None
    assert desk.call("GET", sid).json()["status"] == "live"
    desk.status(sid, CallStatus="completed")
    ended = desk.call("GET", sid).json()
    assert (ended["status"], ended["end_reason"]) == ("ended", "client_left")
    assert desk.call("DELETE", sid).status_code == 204
    assert refusal(desk.call("GET", sid)) == (404, "not_found")
    assert refusal(desk.call("DELETE", sid)) == (404, "not_found")


def test_live_call_cannot_be_announced(desk: Desk) -> None:
    """A call that has its stream is not given to another one."""
    sid = new_sid()
    assert claim(desk, sid, desk.put(sid, BODY).json()["token"]) is not None
    assert refusal(desk.put(sid, BODY)) == (409, "live")


def test_without_a_key_of_its_own_the_server_has_no_such_door(make: Make) -> None:
    """INTERNAL_API_KEY unset: 404 to everything, whatever key is sent."""
    settings = {name: value for name, value in SETTINGS.items() if name != "INTERNAL_API_KEY"}
    with Desk(make(settings)) as desk:
        for method in ("PUT", "GET", "DELETE", "POST", "OPTIONS"):
            for key in (INTERNAL_KEY, "None", None):
                assert refusal(desk.call(method, new_sid(), BODY, key=key)) == (404, "not_found")


def test_wrong_key_opens_nothing(desk: Desk) -> None:
    """A key that is missing, wrong, cut short or sent another way gets 401 before anything is read."""
    sid = new_sid()
    for key in (None, "x", INTERNAL_KEY[:-1], INTERNAL_KEY + "x", INTERNAL_KEY.upper()):
        for method in ("PUT", "GET", "DELETE"):
            assert refusal(desk.call(method, sid, b"not JSON", key=key)) == (401, "unauthorized")
    for headers in ({"Authorization": INTERNAL_KEY}, {"Authorization": f"Basic {INTERNAL_KEY}"}):
        assert desk.http.get(f"/api/calls/{sid}", headers=headers).status_code == 401
    assert desk.http.get(f"/api/calls/{sid}?key={INTERNAL_KEY}").status_code == 401
    assert desk.http.get(f"/api/calls/{sid}", headers={"Authorization": f"bearer  {INTERNAL_KEY}"}).status_code == 404
    users = {"Authorization": f"Bearer {desk.gateway.token()}"}
    assert desk.http.get(f"/api/calls/{sid}", headers=users).status_code == 401
    assert INTERNAL_KEY not in desk.gateway.log_text()


def test_pages_have_no_business_here(desk: Desk) -> None:
    """No origin may read an answer, and no preflight request is granted."""
    headers = {"Authorization": f"Bearer {INTERNAL_KEY}", "Origin": desk.gateway.url}
    for method in ("GET", "OPTIONS"):
        answer = desk.http.request(method, f"/api/calls/{new_sid()}", headers=headers)
        assert answer.status_code == (404 if method == "GET" else 405)
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]


def test_every_problem_of_a_body_is_named(desk: Desk) -> None:
    """The answer lists all fields that are wrong, says what each must be, repeats none of their values."""
    body = {
        "agent_id": "7",
        "userId": USER_ID,
        "config": {
            "voice": "private-voice",
            "speed": 9,
            "id": PLAIN_ID,
            "call_settings": {"silence_timeout_s": "soon"},
        },
    }
    answer = desk.put(new_sid(), body)
    assert refusal(answer) == (422, "invalid")
    assert answer.json()["error"]["problems"] == [
        "agent_id must be a UUID",
        "user_id must be a UUID",
        "userId is not a field of a call",
        "config.id is not a column a call may override",
        "config.voice must be the name of a built-in voice or the id of a custom one",
        "config.speed must be a number from 0.25 to 1.5",
        "config.call_settings.silence_timeout_s must be seconds above 0 and below 86400",
    ]
    assert answer.json()["error"]["message"].startswith("agent_id must be a UUID; user_id")
    assert "private-voice" not in answer.text


def test_agent_must_be_the_users_and_active(desk: Desk) -> None:
    """Unknown, somebody else's and switched-off agents are the same to the app."""
    unknown = "00000000-0000-4000-8000-00000000dead"
    for agent_id, user_id in ((unknown, USER_ID), (PLAIN_ID, STRANGER_ID), (SWITCHED_OFF_ID, USER_ID)):
        answer = desk.put(new_sid(), {"agent_id": agent_id, "user_id": user_id})
        assert refusal(answer) == (422, "invalid")
        assert "agent_id" in answer.json()["error"]["message"]


def test_body_that_is_no_object_is_refused(desk: Desk) -> None:
    """What is no JSON is malformed, what is no object is invalid."""
    for content in (b"", b"{", b"\xff\xfe", b"[" * 60_000):
        assert refusal(desk.call("PUT", new_sid(), content)) == (400, "malformed")
    for content in (b"[]", b"null", b"7"):
        assert refusal(desk.call("PUT", new_sid(), content)) == (422, "invalid")


def test_what_the_database_cannot_hold_is_refused(desk: Desk) -> None:
    """A number that JSON has no form for is the app's mistake, not an outage."""
    content = json.dumps(BODY | {"config": {"temperature": float("nan")}}).encode()
    assert refusal(desk.call("PUT", new_sid(), content)) == (422, "invalid")


def test_sid_must_have_its_shape(desk: Desk) -> None:
    """Other texts in the place of a sid are refused by every method."""
    for sid in ("CA1", "CA" + "G" * 32, "AC" + "0" * 32, "CA" + "0" * 32 + "%0A", "..%2F..%2Fx"):
        for method in ("PUT", "GET", "DELETE"):
            assert refusal(desk.call(method, sid, BODY)) == (400, "malformed")


class Away:
    """A store that is away."""

    def __getattr__(self, name: str) -> Any:
        async def fail(*args: Any, **options: Any) -> Any:
            raise StoreUnavailable("fails on request")

        return fail


def test_database_that_is_away_is_said_so(make: Make) -> None:
    """The app is told to try again, whatever it wanted."""
    with Desk(make(SETTINGS, accidents=("call not stored",))) as desk:
        context = desk.gateway.server.context
        real, context.store = context.store, Away()  # type: ignore[assignment]
        for method in ("PUT", "GET", "DELETE"):
            assert refusal(desk.call(method, new_sid(), BODY)) == (503, "unavailable")
        context.store = real


# ---------------------------------------------------------------------- removal


def announced(desk: Desk, *, ago_s: float) -> str:
    """Store a call that was announced so long ago; return its sid."""
    sid = new_sid()
    created_at, expires_at = lifetime(datetime.now(UTC) - timedelta(seconds=ago_s))
    call = Call(sid, PLAIN_ID, USER_ID, config={"instructions": "secret"})
    put = desk.gateway.server.context.store.put_call(
        call, token_hash="hash", created_at=created_at, expires_at=expires_at
    )
    assert desk.gateway.run(put)
    return sid


def there(desk: Desk) -> set[str]:
    return {row["call_sid"] for row in rows(desk.gateway, "select call_sid from calls")}


def test_expired_configurations_vanish_by_themselves(desk: Desk) -> None:
    """Rows that nobody claimed within 300 s are gone after the next round; the others stay."""
    fresh, old = announced(desk, ago_s=290), announced(desk, ago_s=301)

    async def begin() -> Any:
        context = desk.gateway.server.context
        return context.start(remove_expired_calls(context, every_s=0.02), "test-removal")

    task = desk.gateway.run(begin())
    assert eventually(lambda: old not in there(desk))
    later = announced(desk, ago_s=302)
    assert eventually(lambda: later not in there(desk))
    assert there(desk) == {fresh}

    async def end() -> None:
        task.cancel()

    desk.gateway.run(end())


def test_removal_outlives_a_database_that_is_away(desk: Desk) -> None:
    """A failed round is logged, and the next one does the work."""
    context = desk.gateway.server.context
    old = announced(desk, ago_s=400)
    real, context.store = context.store, Away()  # type: ignore[assignment]

    async def begin() -> Any:
        return context.start(remove_expired_calls(context, every_s=0.02), "test-removal")

    task = desk.gateway.run(begin())
    assert eventually(lambda: "expired calls not removed" in desk.gateway.log_text())
    context.store = real
    assert eventually(lambda: old not in there(desk))

    async def end() -> None:
        task.cancel()

    desk.gateway.run(end())


def test_server_removes_expired_calls_from_its_start(make: Make) -> None:
    """Nobody has to start the removal: what expired while the server was down is gone soon after it is up."""
    with Desk(make(SETTINGS)) as desk:
        tasks = desk.gateway.run(_task_names())
        assert any("remove-expired-calls" in name for name in tasks)


async def _task_names() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks()]
