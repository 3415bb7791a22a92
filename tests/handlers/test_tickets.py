"""One-time tickets, and the JSON doors an app gets them from."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Any

import httpx
import pytest

from handlers.tickets import LIFE_S, MAX_TICKETS, Tickets, is_ticket
from services.auth import User
from services.directory import MachineDirectory
from tests.fakes.away_directory import AwayDirectory
from tests.fakes.browser import PLAIN_ID, STRANGER_ID, TOOLED_ID, Browser
from tests.fakes.signers import Clock


def user(name: str = "u") -> User:
    """Return a user."""
    return User(name, None, "authenticated", 0.0, False, "development")


def now(work: Coroutine[Any, Any, Any]) -> Any:
    """Return what a coroutine that waits for nothing returns."""
    return asyncio.run(work)


def test_ticket_is_for_one_use():
    """The first use gives the user, the second nobody."""
    tickets = Tickets(Clock(0.0))
    ticket = now(tickets.issue(user()))
    assert is_ticket(ticket) and not is_ticket("eyJhbGciOi")
    assert now(tickets.redeem(ticket)) == user()
    assert now(tickets.redeem(ticket)) is None
    assert now(tickets.redeem("tkt_" + "x" * 43)) is None


def test_ticket_is_for_one_use_in_all_processes(tmp_path):
    """One process redeems what another issued; then neither does again."""
    living = {"issuer-0": ["other-0"], "other-0": ["issuer-0"]}
    one, other = (
        MachineDirectory(tmp_path, name, living=lambda name=name: living[name], limits=(9, 9), report=print)
        for name in living
    )
    issuer, redeemer = Tickets(directory=one), Tickets(directory=other)
    ticket = now(issuer.issue(user()))
    assert now(redeemer.redeem(ticket)) == user()
    assert now(redeemer.redeem(ticket)) is None and now(issuer.redeem(ticket)) is None
    for directory in (one, other):
        directory.close()


def test_ticket_is_good_where_it_was_issued_while_the_directory_is_away():
    """Without the directory the process that issued a ticket takes it, once."""
    tickets = Tickets(Clock(0.0), AwayDirectory())
    ticket = now(tickets.issue(user()))
    assert now(tickets.redeem(ticket)) == user()
    assert now(tickets.redeem(ticket)) is None


def test_ticket_lives_a_minute():
    """At its last moment a ticket is good, after it not."""
    clock = Clock(0.0)
    tickets = Tickets(clock)
    first, second = now(tickets.issue(user("a"))), now(tickets.issue(user("b")))
    clock.now = LIFE_S
    assert now(tickets.redeem(first)) == user("a")
    clock.now = LIFE_S + 0.1
    assert now(tickets.redeem(second)) is None


def test_tickets_are_bounded_and_not_kept_themselves():
    """Beyond the bound the oldest goes; memory holds hashes only."""
    tickets = Tickets(Clock(0.0))
    first = now(tickets.issue(user()))
    assert first not in str(vars(tickets))

    async def many() -> None:
        for _ in range(MAX_TICKETS):
            await tickets.issue(user())

    now(many())
    assert len(tickets._tickets) == MAX_TICKETS
    assert now(tickets.redeem(first)) is None


def test_app_gets_a_ticket_for_its_user(gateway):
    """A bearer token gives a ticket that opens the browser's door for that user."""
    answer = httpx.post(f"{gateway.url}/api/tickets", headers={"Authorization": f"bearer  {gateway.token()}"})
    assert answer.status_code == 200 and answer.headers["Cache-Control"] == "no-store"
    assert answer.json()["expires_in"] == 60
    with Browser(gateway, token=answer.json()["ticket"]) as browser:
        browser.live()


@pytest.mark.parametrize("header", [None, "Basic abc", "Bearer", "Bearer junk", "Bearer \xff"])
def test_nobody_gets_a_ticket_without_a_token(gateway, header):
    """Without a good token the answer is 401 in JSON."""
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    answer = httpx.post(f"{gateway.url}/api/tickets", headers=headers)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "unauthorized"


def test_page_of_an_allowed_origin_reads_the_answer(make):
    """Preflight and answer name an allowed origin, and no other."""
    gateway = make({"ALLOWED_ORIGINS": "https://app.example"})
    for origin, named in (("https://app.example", "https://app.example"), ("https://evil.example", None)):
        headers = {"Origin": origin, "Authorization": f"Bearer {gateway.token()}"}
        preflight = httpx.options(f"{gateway.url}/api/tickets", headers={**headers, "Sec-Fetch-Site": "cross-site"})
        answer = httpx.post(f"{gateway.url}/api/tickets", headers={**headers, "Sec-Fetch-Site": "cross-site"})
        for response in (preflight, answer):
            assert response.headers.get("Access-Control-Allow-Origin") == named
            assert "Origin" in response.headers["Vary"]
    assert preflight.status_code == 204


def test_talk_page_lists_the_users_agents(gateway):
    """The list has the user's active agents and nobody else's, and shows nothing of instructions or tools."""
    answer = httpx.get(f"{gateway.url}/api/agents", headers={"Authorization": f"Bearer {gateway.token()}"})
    assert [agent["id"] for agent in answer.json()["agents"]] == [PLAIN_ID, TOOLED_ID]
    assert answer.json()["simulated"] is True
    assert "canary" not in json.dumps(answer.json())
    other = httpx.get(f"{gateway.url}/api/agents", headers={"Authorization": f"Bearer {gateway.token(STRANGER_ID)}"})
    assert PLAIN_ID not in other.text
    assert httpx.get(f"{gateway.url}/api/agents").status_code == 401


@pytest.mark.parametrize("path", ["/nothing", "/api", "/api/tickets/1", "/v1/other", "/.env", "/client/client/x.js"])
def test_other_addresses_are_not_found(gateway, path):
    """What is no door answers 404."""
    assert httpx.get(gateway.url + path).status_code == 404


def test_doors_without_an_upgrade_say_so(gateway):
    """`/` shows the page, the compatible door asks for an upgrade, and a wrong method is refused."""
    assert httpx.get(f"{gateway.url}/").headers["Content-Type"].startswith("text/html")
    assert httpx.get(f"{gateway.url}/v1/realtime").status_code == 400
    assert httpx.get(f"{gateway.url}/api/tickets").status_code == 405
    assert httpx.post(f"{gateway.url}/").status_code in {403, 405}
