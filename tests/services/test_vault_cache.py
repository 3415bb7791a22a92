"""The OpenAI key in memory: how long it is believed, and what happens while the Vault is away."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest

from cli.local_postgres import free_port
from services.supabase_client import open_data_client, open_http
from services.vault import EnvironmentKey, KeyUnavailable
from services.vault import supabase as limits
from services.vault.supabase import VaultKey
from tests.fakes.scripted_http import Answer, Received, ScriptedHttp
from tests.fakes.signers import Clock

KEY = "sk-test-the-key-of-this-very-test"
OTHER_KEY = "sk-test-another-key-that-came-later"
ROW_PATH, SECRET_PATH = "/rest/v1/system_api_keys", "/rest/v1/rpc/get_secret"
SECRET_ID = str(uuid4())


@dataclass
class Bench:
    """A Vault key source and the data API it asks, with a clock the test moves."""

    source: VaultKey
    api: ScriptedHttp
    clock: Clock

    def holds(self, key: str) -> None:
        row = [{"vault_secret_id": SECRET_ID, "is_active": True}]
        self.api.answers.update({ROW_PATH: Answer(200, row), SECRET_PATH: Answer(200, [{"key": key}])})

    def fails(self, answer: Answer) -> None:
        self.api.answers.update({ROW_PATH: answer, SECRET_PATH: answer})

    def fetches(self) -> int:
        return self.api.count(SECRET_PATH)

    async def step(self, call: Awaitable[str]) -> str:
        """Return the key a call gives, or the step at which it failed."""
        try:
            return await call
        except KeyUnavailable as missing:
            return missing.step


@contextlib.asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    with ScriptedHttp() as api:
        async with open_http() as http:
            clock = Clock(1000.0)
            client = open_data_client(api.url, "sb_secret_x", http)
            at = Bench(VaultKey(client, monotonic=clock), api, clock)
            at.holds(KEY)
            yield at


def run(action: Callable[[Bench], Awaitable[None]]) -> None:
    """Run an action on a new bench whose Vault holds KEY."""

    async def whole() -> None:
        async with bench() as at:
            await action(at)

    asyncio.run(whole())


def test_key_is_fetched_once_in_five_minutes() -> None:
    """Calls within five minutes share one fetch; a key replaced in the Vault is used after that."""

    async def action(at: Bench) -> None:
        assert await asyncio.gather(*(at.source.key() for _ in range(100))) == [KEY] * 100
        at.holds(OTHER_KEY)
        at.clock.now += 299
        assert await at.source.key() == KEY
        assert at.fetches() == 1
        at.clock.now += 1
        assert await at.source.key() == OTHER_KEY
        assert at.fetches() == 2

    run(action)


def test_secret_id_travels_in_the_body_of_a_post() -> None:
    """Neither the Vault id nor anything else of the secret stands in an address that gets logged."""

    async def action(at: Bench) -> None:
        await at.source.key()
        request = next(each for each in at.api.received if each.path == SECRET_PATH)
        assert request.method == "POST"
        assert SECRET_ID in request.body

    run(action)


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        ([{"key": KEY}], KEY),
        ([], "secret_missing"),
        ([{"key": None}], "secret_missing"),
        ([{"key": ""}], "empty_secret"),
        ([{"key": 7}], "empty_secret"),
        ([{"other": KEY}], "secret_missing"),
        ([KEY], "vault_unreachable"),
        ("null", "empty_secret"),
        ("<html>a page of some other server</html>", "not_a_key"),
    ],
)
def test_answers_of_get_secret_are_read_in_every_form(body: Any, outcome: str) -> None:
    """A list of rows is the form of ours; anything that is no key is named."""

    async def action(at: Bench) -> None:
        at.api.answers[SECRET_PATH] = Answer(200, body)
        assert await at.step(at.source.key()) == outcome

    run(action)


def test_bare_text_is_taken_too() -> None:
    """A get_secret that returns text instead of rows works as well."""

    async def action(at: Bench) -> None:
        at.api.answers[SECRET_PATH] = Answer(200, f'"{KEY}"')
        assert await at.source.key() == KEY

    run(action)


@pytest.mark.parametrize(
    ("status", "body", "step"),
    [
        (404, {"code": "PGRST202", "message": "m"}, "function_missing"),
        (404, {"code": "PGRST205", "message": "m"}, "function_missing"),
        (400, {"code": "0A000", "message": "Supabase Vault is not installed"}, "vault_missing"),
        (404, {"code": "42P01", "message": "m"}, "function_missing"),
        (403, {"code": "42501", "message": "m"}, "not_permitted"),
        (401, {"code": "PGRST301", "message": "m"}, "service_key_refused"),
        (401, {"message": "Invalid API key", "hint": "m"}, "service_key_refused"),
        (503, {"message": "name resolution failed"}, "vault_unreachable"),
        (503, {"code": "PGRST002", "message": "m"}, "vault_unreachable"),
        (502, "<html>", "vault_unreachable"),
        (500, {"code": "XX000", "message": "secret text", "details": "secret text"}, "vault_unreachable"),
    ],
)
def test_refusals_are_named_by_their_code_alone(status: int, body: Any, step: str) -> None:
    """The code decides; what else the answer says does not get into the error."""

    async def action(at: Bench) -> None:
        at.api.answers[SECRET_PATH] = Answer(status, body)
        with pytest.raises(KeyUnavailable) as caught:
            await at.source.key()
        assert caught.value.step == step
        assert "secret text" not in f"{caught.value} {caught.value!r}"
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None

    run(action)


def test_key_serves_for_an_hour_while_the_vault_is_away() -> None:
    """An outage does not end calls for an hour, is looked at every 30 s, and ends with the first answer."""

    async def action(at: Bench) -> None:
        await at.source.key()
        at.fails(Answer(503, {}))
        at.clock.now += 3599
        assert [await at.source.key() for _ in range(5)] == [KEY] * 5
        assert at.api.count(ROW_PATH) == 2
        at.clock.now += 1
        assert await at.step(at.source.key()) == "vault_unreachable"
        at.holds(OTHER_KEY)
        at.clock.now += 30
        assert await at.source.key() == OTHER_KEY

    run(action)


def test_key_that_was_switched_off_is_dropped_with_the_next_look() -> None:
    """What the operator took away is not an outage: the old key is not used again."""

    async def action(at: Bench) -> None:
        await at.source.key()
        at.api.answers[ROW_PATH] = Answer(200, [{"vault_secret_id": SECRET_ID, "is_active": False}])
        at.clock.now += 300
        assert await at.step(at.source.key()) == "inactive"

    run(action)


def test_key_is_dropped_when_the_right_to_read_it_is_taken_away() -> None:
    """A database that refuses is no outage either: the old key is not used again."""

    async def action(at: Bench) -> None:
        await at.source.key()
        at.fails(Answer(403, {"code": "42501", "message": "m"}))
        at.clock.now += 300
        assert await at.step(at.source.key()) == "not_permitted"
        assert await at.step(at.source.key()) == "not_permitted"

    run(action)


def test_failure_is_remembered_for_two_seconds() -> None:
    """A crowd of callers does not ask a Vault that has just failed, and the next look mends it."""

    async def action(at: Bench) -> None:
        at.fails(Answer(500, {}))
        steps = [at.step(at.source.key()) for _ in range(50)]
        assert set(await asyncio.gather(*steps)) == {"vault_unreachable"}
        assert at.api.count(ROW_PATH) == 1
        at.holds(KEY)
        assert await at.step(at.source.key()) == "vault_unreachable"
        at.clock.now += 2
        assert await at.source.key() == KEY

    run(action)


@pytest.mark.parametrize("age_s", [0, 10, 200])
def test_key_that_openai_refuses_is_fetched_again_once(age_s: int) -> None:
    """After a 401 all sessions together cause one fetch and get the new key, however lately the old one was fetched."""

    async def action(at: Bench) -> None:
        await at.source.key()
        at.holds(OTHER_KEY)
        at.clock.now += age_s
        assert await asyncio.gather(*(at.source.refresh(KEY) for _ in range(50))) == [OTHER_KEY] * 50
        assert at.fetches() == 2
        assert await at.source.key() == OTHER_KEY

    run(action)


def test_same_key_comes_back_when_there_is_no_other() -> None:
    """If the Vault still holds the refused key it is returned, and asked for at most once in ten seconds."""

    async def action(at: Bench) -> None:
        await at.source.key()
        for _ in range(20):
            at.clock.now += 1
            assert await at.source.refresh(KEY) == KEY
        assert at.fetches() == 3

    run(action)


def test_refused_key_is_not_used_on_while_the_vault_is_away() -> None:
    """A key OpenAI refuses is worthless: without the Vault there is none."""

    async def action(at: Bench) -> None:
        await at.source.key()
        at.fails(Answer(503, {}))
        at.clock.now += 10
        assert await at.step(at.source.refresh(KEY)) == "vault_unreachable"
        assert await at.step(at.source.key()) == "vault_unreachable"

    run(action)


def test_forgotten_keys_are_fetched_anew() -> None:
    """After forget() the Vault is asked again."""

    async def action(at: Bench) -> None:
        await at.source.key()
        at.source.forget()
        at.holds(OTHER_KEY)
        assert await at.source.key() == OTHER_KEY

    run(action)


def test_keys_of_agents_are_kept_apart_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each Vault id has its own key, and only so many are kept."""
    monkeypatch.setattr(limits, "MAX_KEYS", 2)
    ids = [str(uuid4()) for _ in range(3)]

    def by_id(request: Received) -> Answer:
        number = next(number for number, secret_id in enumerate(ids) if secret_id in request.body)
        return Answer(200, [{"key": f"sk-test-the-key-of-agent-{number}"}])

    async def action(at: Bench) -> None:
        at.api.answers[SECRET_PATH] = by_id
        for number in (0, 1, 0, 2, 0):
            assert await at.source.key(ids[number]) == f"sk-test-the-key-of-agent-{number}"
        assert at.fetches() == 3
        await at.source.key(ids[1])
        assert at.fetches() == 4
        assert at.api.count(ROW_PATH) == 0

    run(action)


def test_silent_vault_is_given_up_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Vault that accepts and says nothing costs the callers one deadline together."""
    monkeypatch.setattr(limits, "ASK_DEADLINE_S", 0.2)

    async def action(at: Bench) -> None:
        at.fails(Answer(is_silent=True))
        async with asyncio.timeout(2):
            steps = await asyncio.gather(*(at.step(at.source.key()) for _ in range(20)))
        assert set(steps) == {"vault_unreachable"}
        assert at.api.count(ROW_PATH) == 1

    run(action)


def test_caller_who_leaves_does_not_end_the_fetch() -> None:
    """A caller cancelled while the key is fetched leaves it to the next one."""

    async def action(at: Bench) -> None:
        leaver = asyncio.create_task(at.source.key(), name="leaver")
        await asyncio.sleep(0)
        leaver.cancel()
        assert await at.source.key() == KEY
        assert at.fetches() == 1

    run(action)


def test_refused_connections_are_an_outage() -> None:
    """With nobody listening the step is that the Vault is away."""

    async def whole() -> str:
        async with open_http() as http:
            source = VaultKey(open_data_client(f"http://127.0.0.1:{free_port()}", "sb_secret_x", http))
            with pytest.raises(KeyUnavailable) as caught:
                await source.key()
            return caught.value.step

    assert asyncio.run(whole()) == "vault_unreachable"


def test_no_key_is_in_any_repr() -> None:
    """Neither source shows its key, and neither do its parts."""

    async def action(at: Bench) -> None:
        await at.source.key()
        shown = f"{at.source!r} {list(at.source._entries.values())!r} {EnvironmentKey(KEY)!r}"
        assert KEY not in shown

    run(action)


def test_key_of_the_environment_is_the_key() -> None:
    """OPENAI_API_KEY serves all agents but those that name a Vault key, and does not change."""

    async def whole() -> None:
        source = EnvironmentKey(KEY)
        assert await source.key() == KEY
        assert await source.refresh(KEY) == KEY
        source.forget()
        assert await source.key() == KEY
        with pytest.raises(KeyUnavailable, match="environment_only"):
            await source.key(SECRET_ID)

    asyncio.run(whole())
