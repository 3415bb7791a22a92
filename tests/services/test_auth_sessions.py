"""What only Auth knows: sign-outs, bans and deletions, asked of a local project and of an Auth that misbehaves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import httpx
import pytest

from cli.local_supabase import LocalSupabase
from core.settings import read_settings
from services.auth import AuthConfig, AuthUnavailable, TokenRejected, User, Verifier
from services.auth import auth_server as limits
from tests.fakes.local_supabase import PASSWORD, new_user, project
from tests.fakes.scripted_http import Answer, Received, ScriptedHttp
from tests.fakes.signers import ISSUER, NOW, SECRET, Clock, claims, hs256_token

__all__ = ["project"]

USER_PATH = "/auth/v1/user"
SIGNED_OUT = Answer(403, {"code": 403, "error_code": "session_not_found", "msg": "Session does not exist"})


def on_project(project: LocalSupabase, action: Callable[[Verifier], Awaitable[Any]], **changes: str) -> Any:
    """Run an action with a verifier made from the project's settings."""
    environ = project.environment() | {"SESSION_CHECK": "strict"} | changes
    settings = read_settings({name: value for name, value in environ.items() if value})

    async def run() -> Any:
        async with httpx.AsyncClient() as http:
            return await action(Verifier.from_settings(settings, http))

    return asyncio.run(run())


@pytest.mark.postgres
@pytest.mark.parametrize("secret", ["known", "unknown"])
def test_signed_in_user_is_accepted(project: LocalSupabase, secret: str) -> None:
    """A user of the project is accepted with the shared secret at hand, and without it because Auth vouches."""
    signed_in = new_user(project)
    changes = {} if secret == "known" else {"SUPABASE_JWT_SECRET": ""}
    user = on_project(project, lambda verifier: verifier.verify(signed_in.access_token), **changes)
    assert (user.id, user.session_id, user.kind) == (signed_in.user_id, signed_in.session_id, "supabase")


@pytest.mark.postgres
@pytest.mark.parametrize("mode", ["on", "strict"])
def test_signed_out_session_is_refused_and_the_other_is_not(project: LocalSupabase, mode: str) -> None:
    """After a sign-out that session's token is refused, though its signature is good; a second device stays in."""
    email = f"{uuid4()}@example.com"
    first = project.sign_up(email, PASSWORD)
    second = project.sign_in(email, PASSWORD)
    project.sign_out(first)

    async def both(verifier: Verifier) -> User:
        with pytest.raises(TokenRejected, match="signed out"):
            await verifier.verify(first.access_token)
        return await verifier.verify(second.access_token)

    assert on_project(project, both, SESSION_CHECK=mode).session_id == second.session_id


@pytest.mark.postgres
def test_signed_out_session_is_not_noticed_when_the_check_is_off(project: LocalSupabase) -> None:
    """SESSION_CHECK=off believes the signature until the token expires."""
    signed_in = new_user(project)
    project.sign_out(signed_in)
    assert on_project(project, lambda verifier: verifier.verify(signed_in.access_token), SESSION_CHECK="off")


@pytest.mark.postgres
def test_deleted_user_is_refused(project: LocalSupabase) -> None:
    """A user who was deleted is refused while the token still lives."""
    signed_in = new_user(project)
    project.sql(f"delete from auth.users where id = '{signed_in.user_id}'")  # noqa: S608 - an id of our own
    with pytest.raises(TokenRejected, match="deleted"):
        on_project(project, lambda verifier: verifier.verify(signed_in.access_token))


@pytest.mark.postgres
def test_forged_token_is_refused_by_auth_when_the_secret_is_not_at_hand(project: LocalSupabase) -> None:
    """Without the shared secret a forgery is refused by Auth, even with the session of a real sign-in."""
    signed_in = new_user(project)
    forged = hs256_token(
        b"x" * 48, claims(iss=project.issuer, sub=signed_in.user_id, session_id=signed_in.session_id, iat=1, exp=4e9)
    )

    async def both(verifier: Verifier) -> None:
        assert await verifier.verify(signed_in.access_token)
        with pytest.raises(TokenRejected, match="refused by Auth"):
            await verifier.verify(forged)

    on_project(project, both, SUPABASE_JWT_SECRET="")


@dataclass
class Bench:
    """A verifier and the Auth server it asks, with a clock the test moves."""

    verifier: Verifier
    auth: ScriptedHttp
    clock: Clock

    def questions(self) -> int:
        return self.auth.count(USER_PATH)

    async def reason(self, payload: dict[str, Any], **header: Any) -> str | None:
        """Return why the user of these claims is rejected, None for an accepted one."""
        try:
            await self.verifier.verify(hs256_token(SECRET.encode(), payload, **header))
        except TokenRejected as rejection:
            return rejection.reason
        return None


def good(request: Received) -> Answer:
    """Answer as Auth does of a session that is alive; the test's user is the one it was asked about."""
    return Answer(200, {"id": request.headers["authorization"] and CURRENT["sub"]})


CURRENT = claims()


@contextlib.asynccontextmanager
async def bench(**changes: Any) -> AsyncIterator[Bench]:
    with ScriptedHttp({USER_PATH: good}) as auth:
        async with httpx.AsyncClient() as http:
            clock = Clock(1000.0)
            config = AuthConfig(issuer=ISSUER, user_url=auth.url + USER_PATH, apikey="sb_secret_x", hs256_secret=SECRET)
            verifier = Verifier(replace(config, **changes), http, wall=Clock(NOW), monotonic=clock)
            yield Bench(verifier, auth, clock)


def test_answer_is_kept_for_a_minute_for_each_sign_in() -> None:
    """Auth is asked once a minute for a session, again for another one, and with the user's own token."""

    async def run() -> None:
        async with bench() as at:
            for _ in range(3):
                assert await at.reason(CURRENT) is None
            assert at.questions() == 1
            assert at.auth.received[0].headers["apikey"] == "sb_secret_x"
            assert await at.reason(CURRENT | {"session_id": str(uuid4())}) is None
            assert at.questions() == 2
            at.clock.now += 60
            at.auth.answers[USER_PATH] = SIGNED_OUT
            assert await at.reason(CURRENT) == "signed out, banned or deleted"
            assert await at.reason(CURRENT) == "signed out, banned or deleted"
            assert at.questions() == 3

    asyncio.run(run())


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (SIGNED_OUT, "signed out, banned or deleted"),
        (Answer(403, {"code": "user_banned", "message": "m"}), "signed out, banned or deleted"),
        (Answer(403, {"error_code": "user_not_found", "msg": "m"}), "signed out, banned or deleted"),
        (Answer(404, {"code": "user_not_found", "message": "m"}), "signed out, banned or deleted"),
        (Answer(403, {"error_code": "bad_jwt", "msg": "m"}), "refused by Auth"),
        (Answer(401, {"code": 401, "msg": "invalid JWT"}), "refused by Auth"),
        (Answer(200, {"id": str(uuid4())}), "refused by Auth"),
    ],
)
@pytest.mark.parametrize("mode", ["on", "strict"])
def test_refusal_of_auth_refuses_the_user(answer: Answer, reason: str, mode: str) -> None:
    """Whatever Auth says against a token in any of its versions counts in both modes."""

    async def run() -> None:
        async with bench(session_check=mode) as at:
            at.auth.answers[USER_PATH] = answer
            assert await at.reason(CURRENT) == reason

    asyncio.run(run())


def test_refused_token_does_not_lock_out_the_sign_in() -> None:
    """A token that Auth finds expired a moment before we do leaves the refreshed one of that session good."""

    async def run() -> None:
        async with bench() as at:
            at.auth.answers[USER_PATH] = Answer(403, {"error_code": "bad_jwt", "msg": "token is expired"})
            assert await at.reason(CURRENT | {"exp": NOW - 5}) == "refused by Auth"
            at.auth.answers[USER_PATH] = good
            assert await at.reason(CURRENT) is None

    asyncio.run(run())


OUTAGES = [
    Answer(500, {}),
    Answer(503, "<html>"),
    Answer(429, {"error_code": "over_request_rate_limit", "msg": "m"}),
    Answer(401, {"message": "Invalid API key", "hint": "m"}),
    Answer(200, "<html>"),
    Answer(200, [1]),
    Answer(breaks=True),
]


@pytest.mark.parametrize("outage", OUTAGES, ids=["500", "503", "429", "our key", "html", "list", "broken"])
def test_outage_of_auth_passes_or_refuses_as_configured(outage: Answer) -> None:
    """When Auth gives no verdict, `on` lets a signed token pass and `strict` refuses it; neither keeps that."""

    async def run(mode: str) -> list[str | None]:
        async with bench(session_check=mode) as at:
            at.auth.answers[USER_PATH] = outage
            during = await at.reason(CURRENT)
            assert at.verifier.status() == "down"
            at.auth.answers[USER_PATH] = good
            after = await at.reason(CURRENT)
            assert at.verifier.status() == "up"
            return [during, after]

    assert asyncio.run(run("on")) == [None, None]
    assert asyncio.run(run("strict")) == ["Auth did not answer", None]


def test_long_outage_makes_nobody_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """After three unanswered questions Auth is left alone for ten seconds, then tried again."""
    monkeypatch.setattr(limits, "ASK_DEADLINE_S", 0.05)

    async def run() -> None:
        async with bench() as at:
            at.auth.answers[USER_PATH] = Answer(is_silent=True)
            for _ in range(50):
                assert await at.reason(CURRENT) is None
            assert at.questions() == 3
            at.clock.now += 10
            at.auth.answers[USER_PATH] = SIGNED_OUT
            assert await at.reason(CURRENT) == "signed out, banned or deleted"

    asyncio.run(run())


def test_crowd_is_let_through_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many sign-ins at once are all checked, and at most sixteen questions are open at a time."""
    here, most = [0], [0]

    def count(request: Received) -> Answer:
        here[0] += 1
        most[0] = max(most[0], here[0])
        answer = good(request)
        here[0] -= 1
        return answer

    async def run() -> None:
        async with bench(session_check="strict") as at:
            at.auth.answers[USER_PATH] = count
            crowd = [at.reason(CURRENT | {"session_id": str(uuid4())}) for _ in range(100)]
            assert await asyncio.gather(*crowd) == [None] * 100
            assert at.questions() == 100
            assert most[0] <= limits.MAX_ASKING

    asyncio.run(run())


def test_queue_that_is_too_long_is_an_outage_for_those_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who finds no turn in time gets the answer of an outage, and Auth is not taken for broken."""
    monkeypatch.setattr(limits, "QUEUE_DEADLINE_S", 0.05)
    monkeypatch.setattr(limits, "MAX_ASKING", 1)
    monkeypatch.setattr(limits, "ASK_DEADLINE_S", 0.5)

    async def run() -> None:
        async with bench(session_check="strict") as at:
            at.auth.answers[USER_PATH] = Answer(is_silent=True)
            reasons = await asyncio.gather(*(at.reason(CURRENT | {"session_id": str(uuid4())}) for _ in range(5)))
            assert reasons == ["Auth did not answer"] * 5
            assert at.questions() == 1

    asyncio.run(run())


def test_memory_of_answers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answers kept are at most so many, and those longest unused go first."""
    monkeypatch.setattr(limits, "CACHE_SIZE", 2)
    sessions = [str(uuid4()) for _ in range(3)]

    async def run() -> None:
        async with bench() as at:
            for session in (sessions[0], sessions[1], sessions[0], sessions[2], sessions[0]):
                assert await at.reason(CURRENT | {"session_id": session}) is None
            assert at.questions() == 3
            assert await at.reason(CURRENT | {"session_id": sessions[1]}) is None
            assert at.questions() == 4

    asyncio.run(run())


def test_token_of_an_unknown_shared_key_needs_the_word_of_auth() -> None:
    """HS256 with a key id we cannot check: Auth's yes accepts that very token, its no or silence refuses it."""
    foreign = b"a-shared-signing-key-that-stays-at-supabase-xxxx"

    async def run() -> None:
        async with bench(session_check="off") as at:
            token = hs256_token(foreign, CURRENT, kid="shared")
            assert (await at.verifier.verify(token)).id == CURRENT["sub"]
            assert (await at.verifier.verify(token)).id == CURRENT["sub"]
            assert at.questions() == 1
            at.auth.answers[USER_PATH] = Answer(403, {"error_code": "bad_jwt", "msg": "m"})
            with pytest.raises(TokenRejected, match="refused by Auth"):
                await at.verifier.verify(hs256_token(b"a-forgery-with-the-same-session-" * 2, CURRENT, kid="shared"))
            at.auth.answers[USER_PATH] = Answer(500, {})
            with pytest.raises(AuthUnavailable):
                await at.verifier.verify(hs256_token(foreign, CURRENT | {"aal": "aal2"}, kid="shared"))
            with pytest.raises(TokenRejected, match="bad signature"):
                await at.verifier.verify(hs256_token(foreign, CURRENT))

    asyncio.run(run())


def test_nonsense_is_sorted_out_before_auth_is_asked() -> None:
    """A token whose claims are bad costs Auth no question, whoever signed it."""

    async def run() -> None:
        async with bench(hs256_secret=None) as at:
            for changes in ({"exp": 1}, {"iss": "https://evil.example"}, {"role": "service_role"}, {"sub": "x"}):
                assert await at.reason(CURRENT | changes) is not None
            assert at.questions() == 0

    asyncio.run(run())
