"""Hanging up and redirecting over Twilio's REST API, and whose token signs for which account."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest

import services.telephony as telephony_service
from services.telephony import MAX_TOKENS, Account, Accounts, Telephony
from simulator.twilio import TwilioSimulator
from simulator.twilio_call import Call as LiveCall
from simulator.twilio_settings import DEMO_ACCOUNT, DEMO_SUBACCOUNT
from tests.fakes.raw_http import Answering, RawHttp, Request, reply
from tests.fakes.signers import Clock

MASTER, SUB = "AC" + "1" * 32, "AC" + "2" * 32
CALL = "CA" + "3" * 32
MASTER_TOKEN, SUB_TOKEN = "master-token", "sub-token"
SECRET_ID = "00000000-0000-4000-8000-000000000002"


def refusal(status: int, code: int) -> bytes:
    """Return an error of Twilio's, as its error pages show it."""
    body = {
        "code": code,
        "message": "words",
        "more_info": f"https://www.twilio.com/docs/errors/{code}",
        "status": status,
    }
    return reply(status, json.dumps(body).encode())


OK = reply(200, json.dumps({"sid": CALL, "status": "completed"}).encode())


def acted(
    answering: Answering, *, account: Account | None = None, twiml: str | None = None
) -> tuple[bool, list[Request], list[str]]:
    """Hang up, or redirect with TwiML: the result, the requests, the causes of failure."""
    chosen = account or Account(MASTER, MASTER_TOKEN)

    async def run() -> tuple[bool, list[Request], list[str]]:
        failures: list[str] = []
        async with RawHttp(answering) as server, httpx.AsyncClient(trust_env=False) as client:
            telephony = Telephony(client, base_url=f"{server.url}/", on_failure=failures.append)
            act = telephony.hang_up(chosen, CALL) if twiml is None else telephony.redirect(chosen, CALL, twiml)
            return await act, server.requests, failures

    return asyncio.run(run())


def user_of(request: Request) -> str:
    return base64.b64decode(request.headers["authorization"].removeprefix("Basic ")).decode()


def test_hang_up_is_one_form_post() -> None:
    """The call is set to completed in its account, with the account's own token."""
    done, (request,), failures = acted(lambda _: OK)
    assert done
    assert (request.method, request.target) == ("POST", f"/2010-04-01/Accounts/{MASTER}/Calls/{CALL}.json")
    assert parse_qs(request.body.decode()) == {"Status": ["completed"]}
    assert user_of(request) == f"{MASTER}:{MASTER_TOKEN}"
    assert failures == []


def test_redirect_carries_the_document() -> None:
    """The TwiML arrives as it was given, whatever characters it has."""
    twiml = "<Response><Dial>+14155550100</Dial></Response><!-- ü & + = -->"
    done, (request,), _ = acted(lambda _: OK, twiml=twiml)
    assert done
    assert parse_qs(request.body.decode()) == {"Twiml": [twiml]}


def test_parent_acts_on_a_subaccounts_call() -> None:
    """With the parent's credentials the path still names the subaccount."""
    _, (request,), _ = acted(lambda _: OK, account=Account(SUB, "", MASTER, MASTER_TOKEN))
    assert request.target == f"/2010-04-01/Accounts/{SUB}/Calls/{CALL}.json"
    assert user_of(request) == f"{MASTER}:{MASTER_TOKEN}"


@pytest.mark.parametrize(("status", "code"), [(404, 20404), (400, 21220)])
@pytest.mark.parametrize("twiml", [None, "<Response/>"])
def test_call_that_is_over_already_is_success(status: int, code: int, twiml: str | None) -> None:
    """Who loses the race against a caller that hangs up has nothing to mend."""
    done, requests, failures = acted(lambda _: refusal(status, code), twiml=twiml)
    assert (done, len(requests), failures) == (True, 1, [])


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (refusal(401, 20003), "HTTP 401 code 20003"),
        (refusal(404, 20001), "HTTP 404 code 20001"),
        (reply(404, b"<html></html>", "text/html"), "HTTP 404"),
        (reply(400, b'{"code": "21220"}'), "HTTP 400"),
        (reply(302, b"", Location="http://127.0.0.1/elsewhere"), "HTTP 302"),
        (reply(400, b"[" * 5_000), "HTTP 400"),
    ],
)
def test_refusal_is_reported_and_not_repeated(answer: bytes, cause: str) -> None:
    """What a second try cannot mend is tried once; the report has status and code and none of the words."""
    done, requests, failures = acted(lambda _: answer)
    assert (done, len(requests), failures) == (False, 1, [cause])


@pytest.mark.parametrize("answer", [refusal(429, 20429), refusal(500, 20500), reply(503), b""])
def test_bad_moment_is_tried_once_more(answer: bytes) -> None:
    """Too many requests, an error of Twilio's or a broken connection cost a second request."""
    answers = iter([answer, OK])
    done, requests, failures = acted(lambda _: next(answers) or broken())
    assert (done, len(requests), failures) == (True, 2, [])


def broken() -> bytes:
    raise ConnectionResetError


def test_second_failure_is_the_answer() -> None:
    """There is no third request."""
    done, requests, failures = acted(lambda _: refusal(503, 20503))
    assert (done, len(requests), failures) == (False, 2, ["HTTP 503 code 20503"])


def test_silence_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that never answers costs two deadlines."""
    monkeypatch.setattr(telephony_service, "DEADLINE_S", 0.1)
    monkeypatch.setattr(telephony_service, "RETRY_AFTER_S", (0.0, 0.0))

    async def never(_: Request) -> bytes:
        await asyncio.Event().wait()
        return b""

    began = time.monotonic()
    done, requests, failures = acted(never)
    assert (done, len(requests)) == (False, 2)
    assert failures[0] in {"TimeoutError", "ReadTimeout"}
    assert time.monotonic() - began < 3


def test_nobody_listening_is_a_failure_and_no_accident() -> None:
    """Refused connections are reported by their kind."""

    async def run() -> tuple[bool, list[str]]:
        failures: list[str] = []
        async with RawHttp(lambda _: OK) as server:
            url = server.url
        async with httpx.AsyncClient(trust_env=False) as client:
            telephony = Telephony(client, base_url=url, on_failure=failures.append)
            return await telephony.hang_up(Account(MASTER, MASTER_TOKEN), CALL), failures

    assert asyncio.run(run()) == (False, ["ConnectError"])


def test_odd_sids_stay_inside_the_path() -> None:
    """A sid cannot lead to another resource."""

    async def run() -> str:
        async with RawHttp(lambda _: OK) as server, httpx.AsyncClient(trust_env=False) as client:
            await Telephony(client, base_url=server.url).hang_up(Account("AC/../x", "t"), "CA?y=/../z")
            return server.requests[0].target

    assert asyncio.run(run()) == "/2010-04-01/Accounts/AC%2F..%2Fx/Calls/CA%3Fy%3D%2F..%2Fz.json"


def test_tokens_are_in_no_repr() -> None:
    """Printing accounts shows no token."""
    shown = repr((Account(SUB, SUB_TOKEN, MASTER, MASTER_TOKEN), Accounts(MASTER, MASTER_TOKEN)))
    assert SUB_TOKEN not in shown
    assert MASTER_TOKEN not in shown


# ---------------------------------------------------------------------- the simulated Twilio


def on_a_live_call(story: Callable[[Telephony, LiveCall, list[str]], Any], account_sid: str = DEMO_ACCOUNT.sid) -> None:
    """Tell a story about a call that waits on the line of the simulated Twilio."""

    async def run() -> None:
        failures: list[str] = []
        async with TwilioSimulator(clips_only=True) as twilio, httpx.AsyncClient(trust_env=False) as client:
            pause = "<Response><Pause length='30'/></Response>"
            call = twilio.dial(twiml=pause, account_sid=account_sid, timeout_s=20.0)
            telephony = Telephony(client, base_url=twilio.api_url, on_failure=failures.append)
            await story(telephony, call, failures)

    asyncio.run(run())


def test_live_call_ends_and_may_be_ended_again() -> None:
    """The call is over by REST; hanging up and redirecting what is over succeed too."""

    async def story(telephony: Telephony, call: LiveCall, failures: list[str]) -> None:
        account = Account(DEMO_ACCOUNT.sid, DEMO_ACCOUNT.auth_token)
        assert await telephony.hang_up(account, call.record.sid)
        assert (await call.finished).ended_by == "rest"
        assert await telephony.hang_up(account, call.record.sid)
        assert await telephony.redirect(account, call.record.sid, "<Response/>")
        assert await telephony.hang_up(account, CALL)
        assert failures == []

    on_a_live_call(story)


def test_live_call_goes_on_with_the_new_document() -> None:
    """After a redirect the caller is connected elsewhere."""

    async def story(telephony: Telephony, call: LiveCall, failures: list[str]) -> None:
        account = Account(DEMO_ACCOUNT.sid, DEMO_ACCOUNT.auth_token)
        twiml = "<Response><Dial>+14155550100</Dial></Response>"
        assert await telephony.redirect(account, call.record.sid, twiml)
        assert (await call.finished).dialled == ["+14155550100"]

    on_a_live_call(story)


def test_parent_ends_a_subaccounts_call_and_a_stranger_does_not() -> None:
    """The parent's credentials open the subaccount's call; a wrong token is an error, not success."""

    async def story(telephony: Telephony, call: LiveCall, failures: list[str]) -> None:
        sub = DEMO_SUBACCOUNT.sid
        assert not await telephony.hang_up(Account(sub, "wrong"), call.record.sid)
        assert failures == ["HTTP 401 code 20003"]
        parent = Account(sub, rest_sid=DEMO_ACCOUNT.sid, rest_token=DEMO_ACCOUNT.auth_token)
        assert await telephony.hang_up(parent, call.record.sid)
        assert (await call.finished).ended_by == "rest"

    on_a_live_call(story, DEMO_SUBACCOUNT.sid)


# ---------------------------------------------------------------------- accounts


class Vault:
    """Holds one secret; counts who asks, and fails or waits on request."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.held = SUB_TOKEN
        self.asked: list[str] = []
        self.error: Exception | None = None
        self.reached = asyncio.Event()
        self.go_on: asyncio.Event | None = None
        self.accounts = Accounts(MASTER, MASTER_TOKEN, secret=self.secret, monotonic=clock or time.monotonic)

    async def secret(self, secret_id: str) -> str:
        self.asked.append(secret_id)
        self.reached.set()
        if self.go_on is not None:
            await self.go_on.wait()
        if self.error is not None:
            raise self.error
        return self.held


@pytest.mark.parametrize(
    ("account_sid", "secret_id", "token"),
    [
        (MASTER, None, MASTER_TOKEN),
        (MASTER, SECRET_ID, MASTER_TOKEN),
        (None, None, MASTER_TOKEN),
        (None, SECRET_ID, SUB_TOKEN),
        (SUB, SECRET_ID, SUB_TOKEN),
        (SUB, None, None),
    ],
)
def test_token_is_that_of_the_account_that_owns_the_call(
    account_sid: str | None, secret_id: str | None, token: str | None
) -> None:
    """The master's token signs for the master alone; a subaccount signs with its own or not at all."""
    assert asyncio.run(Vault().accounts.token_for(account_sid, secret_id)) == token


def test_without_a_named_master_its_token_serves_whoever_has_no_other() -> None:
    """With only TWILIO_AUTH_TOKEN set there is one account, whatever its sid."""
    accounts = Accounts(None, MASTER_TOKEN)
    assert asyncio.run(accounts.token_for(SUB, None)) == MASTER_TOKEN
    assert not accounts.is_master(SUB)
    assert not accounts.is_master(None)


def test_without_any_token_nobody_signs() -> None:
    """No settings and no Vault: there is no token, and no account to act for."""
    accounts = Accounts(None, None)
    assert asyncio.run(accounts.token_for(MASTER, None)) is None
    assert asyncio.run(accounts.token_for(MASTER, SECRET_ID)) is None
    assert asyncio.run(accounts.account(MASTER, None)) is None


@pytest.mark.parametrize("held", ["", "with space", "line\nbreak", "ünïcödé", "x" * 513])
def test_secret_that_can_be_no_token_signs_nothing(held: str) -> None:
    """What would not fit into a header is not used as a key."""
    vault = Vault()
    vault.held = held
    assert asyncio.run(vault.accounts.token_for(SUB, SECRET_ID)) is None


def test_rest_uses_the_parents_credentials_only_without_the_accounts_own() -> None:
    """A subaccount whose token is known acts for itself; otherwise its parent does."""

    async def run() -> list[Account | None]:
        accounts = Vault().accounts
        return [await accounts.account(sid, secret) for sid, secret in ((MASTER, None), (SUB, SECRET_ID), (SUB, None))]

    found = asyncio.run(run())
    assert [account and account.credentials for account in found] == [
        (MASTER, MASTER_TOKEN),
        (SUB, SUB_TOKEN),
        (MASTER, MASTER_TOKEN),
    ]
    assert [account and account.account_sid for account in found] == [MASTER, SUB, SUB]


def timed(work: Callable[[Vault, Clock], Any]) -> None:
    """Run a story about a Vault with a clock the test moves."""
    clock = Clock(1_000.0)
    asyncio.run(work(Vault(clock), clock))


def test_token_is_kept_for_five_minutes() -> None:
    """The Vault is asked once in five minutes, and a changed token is used then."""

    async def story(vault: Vault, clock: Clock) -> None:
        assert await vault.accounts.token_for(SUB, SECRET_ID) == SUB_TOKEN
        vault.held = "rotated-token"
        clock.now += 299.0
        assert await vault.accounts.token_for(SUB, SECRET_ID) == SUB_TOKEN
        clock.now += 1.0
        assert await vault.accounts.token_for(SUB, SECRET_ID) == "rotated-token"
        assert len(vault.asked) == 2

    timed(story)


def test_failed_question_is_not_repeated_at_once() -> None:
    """While the Vault fails, everybody gets the error, and it is asked every two seconds."""

    async def story(vault: Vault, clock: Clock) -> None:
        vault.error = OSError("away")
        for _ in range(5):
            with pytest.raises(OSError, match="away"):
                await vault.accounts.token_for(SUB, SECRET_ID)
        assert len(vault.asked) == 1
        vault.error = None
        clock.now += 2.0
        assert await vault.accounts.token_for(SUB, SECRET_ID) == SUB_TOKEN

    timed(story)


def test_many_calls_at_once_ask_once() -> None:
    """Fifty calls of one subaccount share one question, also when the first of them gives up."""

    async def story(vault: Vault, clock: Clock) -> None:
        vault.go_on = asyncio.Event()
        first = asyncio.ensure_future(vault.accounts.token_for(SUB, SECRET_ID))
        rest = [asyncio.ensure_future(vault.accounts.token_for(SUB, SECRET_ID)) for _ in range(50)]
        await vault.reached.wait()
        first.cancel()
        vault.go_on.set()
        assert await asyncio.gather(*rest) == [SUB_TOKEN] * 50
        assert len(vault.asked) == 1

    timed(story)


def test_error_that_nobody_waits_for_is_no_accident() -> None:
    """A question whose only asker was cancelled may fail without a word."""

    async def story(vault: Vault, clock: Clock) -> None:
        vault.go_on, vault.error = asyncio.Event(), OSError("away")
        asking = asyncio.ensure_future(vault.accounts.token_for(SUB, SECRET_ID))
        await vault.reached.wait()
        asking.cancel()
        vault.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await asking

    timed(story)


def test_number_of_tokens_in_memory_is_bounded() -> None:
    """The longest unused token goes first."""

    async def story(vault: Vault, clock: Clock) -> None:
        for number in range(MAX_TOKENS + 5):
            await vault.accounts.token_for(SUB, f"id {number}")
            await vault.accounts.token_for(SUB, "id 0")
        assert len(vault.asked) == MAX_TOKENS + 5
        await vault.accounts.token_for(SUB, "id 1")
        assert len(vault.asked) == MAX_TOKENS + 6

    timed(story)
