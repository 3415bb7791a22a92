"""Published signing keys: fetched sparingly, rotated without a restart, and kept while Auth is away."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from services.auth import AuthConfig, AuthUnavailable, TokenRejected, Verifier
from tests.fakes.scripted_http import Answer, ScriptedHttp
from tests.fakes.signers import ISSUER, NOW, Clock, claims, ec_signer, rsa_signer

JWKS_PATH = "/jwks.json"
OLD, NEW = ec_signer("old"), ec_signer("new")


@dataclass
class Bench:
    """A verifier and the Auth server it asks, with a clock the test moves."""

    verifier: Verifier
    auth: ScriptedHttp
    clock: Clock

    def publish(self, *signers: Any) -> None:
        self.auth.answers[JWKS_PATH] = Answer(200, {"keys": [signer.jwk() for signer in signers]})

    def fetches(self) -> int:
        return self.auth.count(JWKS_PATH)

    async def is_accepted(self, signer: Any, **header: Any) -> bool:
        try:
            await self.verifier.verify(signer.token(claims(), **header))
        except TokenRejected:
            return False
        return True


@contextlib.asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    with ScriptedHttp() as auth:
        async with httpx.AsyncClient() as http:
            clock = Clock(1000.0)
            config = AuthConfig(issuer=ISSUER, jwks_url=auth.url + JWKS_PATH)
            yield Bench(Verifier(config, http, wall=Clock(NOW), monotonic=clock), auth, clock)


def test_keys_are_fetched_once_in_ten_minutes() -> None:
    """The first caller fetches the keys and everybody uses them for ten minutes."""

    async def run() -> None:
        async with bench() as at:
            at.publish(OLD, rsa_signer())
            assert await at.is_accepted(OLD)
            assert await at.is_accepted(rsa_signer())
            at.clock.now += 599
            assert await at.is_accepted(OLD)
            assert at.fetches() == 1
            at.clock.now += 1
            assert await at.is_accepted(OLD)
            assert at.fetches() == 2

    asyncio.run(run())


def test_many_callers_share_one_fetch() -> None:
    """A hundred callers at once cause one request and are all accepted."""

    async def run() -> None:
        async with bench() as at:
            at.publish(OLD)
            assert all(await asyncio.gather(*(at.is_accepted(OLD) for _ in range(100))))
            assert at.fetches() == 1

    asyncio.run(run())


def test_new_key_is_found_when_it_is_first_used() -> None:
    """A rotated key is fetched as soon as a token names it; the old one stays good until it is withdrawn."""

    async def run() -> None:
        async with bench() as at:
            at.publish(OLD)
            assert await at.is_accepted(OLD)
            at.publish(OLD, NEW)
            at.clock.now += 31
            assert await at.is_accepted(NEW)
            assert await at.is_accepted(OLD)
            assert at.fetches() == 2

    asyncio.run(run())


def test_withdrawn_key_is_refused_after_ten_minutes_or_a_purge() -> None:
    """A key that is no longer published is used at most ten minutes more; a purge ends that at once."""

    async def run() -> None:
        async with bench() as at:
            at.publish(OLD, NEW)
            assert await at.is_accepted(OLD)
            at.publish(NEW)
            at.clock.now += 599
            assert await at.is_accepted(OLD)
            at.verifier.purge()
            assert not await at.is_accepted(OLD)
            assert await at.is_accepted(NEW)

    asyncio.run(run())


def test_legacy_project_that_publishes_nothing_is_no_failure() -> None:
    """An empty key set is an answer: tokens are refused and Auth counts as up."""

    async def run() -> None:
        async with bench() as at:
            at.publish()
            assert not await at.is_accepted(OLD)
            assert at.verifier.status() == "up"

    asyncio.run(run())


def test_storm_of_unknown_key_ids_causes_one_fetch_in_thirty_seconds() -> None:
    """Strangers who make up key ids cannot make us hammer Auth, and harm no user."""

    async def run() -> None:
        async with bench() as at:
            at.publish(OLD)
            assert await at.is_accepted(OLD)
            at.clock.now += 30
            storm = [at.is_accepted(OLD, kid=f"made-up-{number}") for number in range(200)]
            assert not any(await asyncio.gather(*storm))
            assert at.fetches() == 2
            at.clock.now += 29
            assert not await at.is_accepted(OLD, kid="another")
            assert at.fetches() == 2
            at.clock.now += 1
            assert not await at.is_accepted(OLD, kid="and-another")
            assert at.fetches() == 3
            assert await at.is_accepted(OLD)

    asyncio.run(run())


@pytest.mark.parametrize(
    "failure",
    [
        Answer(500, {}),
        Answer(503, "<html>"),
        Answer(200, "not JSON"),
        Answer(200, {"no": "keys"}),
        Answer(200, {"keys": 7}),
        Answer(200, [1]),
        Answer(200, "[" * 50_000),
        Answer(200, {"keys": [], "filler": "x" * 300_000}),
        Answer(302, {}),
        Answer(breaks=True),
    ],
    ids=["500", "503", "text", "no keys", "number", "list", "nested", "too large", "redirect", "broken connection"],
)
def test_last_good_keys_serve_while_auth_is_away(failure: Answer) -> None:
    """An Auth server in trouble locks nobody out, is asked every 30 s at most, and counts as down meanwhile."""

    async def run() -> None:
        async with bench() as at:
            at.publish(OLD)
            assert await at.is_accepted(OLD)
            at.auth.answers[JWKS_PATH] = failure
            at.clock.now += 3600
            assert await at.is_accepted(OLD)
            assert await at.is_accepted(OLD)
            assert at.fetches() == 2
            assert at.verifier.status() == "down"
            at.publish(OLD)
            at.clock.now += 30
            assert await at.is_accepted(OLD)
            assert at.verifier.status() == "up"

    asyncio.run(run())


def test_auth_that_was_never_reached_is_asked_every_two_seconds() -> None:
    """Before the first key set nobody can sign in, which is said as an outage and mends itself soon."""

    async def run() -> None:
        async with bench() as at:
            at.auth.answers[JWKS_PATH] = Answer(503, {})
            await at.verifier.warm()
            for _ in range(3):
                with pytest.raises(AuthUnavailable):
                    await at.verifier.verify(OLD.token(claims()))
            assert at.fetches() == 1
            at.publish(OLD)
            at.clock.now += 2
            assert await at.is_accepted(OLD)

    asyncio.run(run())


def test_silent_auth_is_given_up_after_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """An Auth server that accepts and says nothing costs callers the deadline once, together."""
    monkeypatch.setattr("services.auth.signing_keys.FETCH_DEADLINE_S", 0.2)

    async def run() -> None:
        async with bench() as at:
            at.auth.answers[JWKS_PATH] = Answer(is_silent=True)
            async with asyncio.timeout(2):
                assert not any(await asyncio.gather(*(at.is_accepted(OLD) for _ in range(20))))
            assert at.fetches() == 1

    asyncio.run(run())


def test_caller_who_leaves_does_not_end_the_fetch_for_the_others() -> None:
    """A caller cancelled while keys are fetched leaves the fetch running for whoever comes next."""

    async def run() -> None:
        async with bench() as at:
            asked = asyncio.Event()
            loop = asyncio.get_running_loop()
            go_on = asyncio.Event()

            def slowly(_: Any) -> Answer:
                loop.call_soon_threadsafe(asked.set)
                asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(timeout=5)
                return Answer(200, {"keys": [OLD.jwk()]})

            at.auth.answers[JWKS_PATH] = slowly
            leaver = asyncio.create_task(at.is_accepted(OLD), name="leaver")
            await asyncio.wait_for(asked.wait(), 5)
            leaver.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaver
            stayer = asyncio.create_task(at.is_accepted(OLD), name="stayer")
            go_on.set()
            assert await asyncio.wait_for(stayer, 5)
            assert at.fetches() == 1

    asyncio.run(run())
