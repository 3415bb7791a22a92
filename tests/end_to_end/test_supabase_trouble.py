"""Supabase when something is wrong: Auth away, users signed out or deleted, tokens that run out. On the real stack."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from cli.local_supabase import LocalSupabase
from services.auth import auth_server
from tests.fakes.browser import Browser, eventually
from tests.fakes.doorway import Doorway
from tests.fakes.local_supabase import missing, project
from tests.fakes.people import Person, new_key, new_person
from tests.fakes.server_process import ServerProcess, SimulatorThread

__all__ = ["project"]

pytestmark = pytest.mark.postgres

KEY = new_key()

SHORT_CACHE_S = 1.0
SHORT_REST_S = 0.5
FASTER = {
    "services.auth.auth_server.CACHE_S": SHORT_CACHE_S,
    "services.auth.auth_server.REST_S": SHORT_REST_S,
}
"""The product keeps an answer of Auth for a minute and lets an Auth that failed thrice rest for ten seconds."""

BUSY_S = 1.5
"""Allowance for a machine that runs other tests too, on top of the product's own bounds."""


@pytest.fixture(scope="module")
def openai() -> Iterator[SimulatorThread]:
    """The simulated service."""
    with SimulatorThread([KEY]) as running:
        yield running


@pytest.fixture
def doorway(project: LocalSupabase) -> Iterator[Doorway]:
    """What stands between server and project, and can be closed."""
    project.set_openai_key(KEY)
    with Doorway(project.url) as running:
        yield running


@pytest.fixture
def anna(project: LocalSupabase) -> Person:
    """Somebody who has just signed up."""
    return new_person(project)


def settings(doorway: Doorway, project: LocalSupabase, openai: SimulatorThread, **changes: str) -> dict[str, str]:
    """Return the settings of a server that reaches the project through the doorway."""
    return {
        **project.environment(),
        "SUPABASE_URL": doorway.url,
        "SUPABASE_JWT_ISSUER": project.issuer,
        "SUPABASE_JWKS_URL": f"{doorway.url}/auth/v1/.well-known/jwks.json",
        "OPENAI_REALTIME_URL": openai.url,
        **changes,
    }


def refused(server: ServerProcess, person: Person, agent_id: str) -> int:
    """Return the code with which a session is refused, 0 when it opens."""
    with Browser(server, token=person.token, agent_id=agent_id) as browser:
        first = browser.next()
        if first["type"] == "error":
            return browser.end().code
        browser.leave()
    return 0


def opens(server: ServerProcess, person: Person, agent_id: str) -> bool:
    """Return whether a session opens; if not, it was refused with 4001 and nothing else."""
    code = refused(server, person, agent_id)
    assert code in {0, 4001}
    return code == 0


def seconds_to_open(server: ServerProcess, person: Person, agent_id: str) -> float:
    """Return how long a session takes that opens."""
    began = time.monotonic()
    assert opens(server, person, agent_id)
    return time.monotonic() - began


# ---------------------------------------------------------------------- Auth away


def test_auth_that_refuses_connections_stops_nobody(
    project: LocalSupabase, openai: SimulatorThread, doorway: Doorway, anna: Person
) -> None:
    """SESSION_CHECK=on: users who sign in just before the outage, and were never asked about, still get in at once."""
    agent_id = anna.make_agent()
    with ServerProcess(settings(doorway, project, openai)) as server:
        doorway.close("/auth/v1")
        strangers = [new_person(project) for _ in range(5)]
        for one in (anna, *strangers):
            assert seconds_to_open(server, one, agent_id if one is anna else one.make_agent()) < BUSY_S


def test_auth_that_says_nothing_costs_two_seconds_and_then_none(
    project: LocalSupabase, openai: SimulatorThread, doorway: Doorway, anna: Person
) -> None:
    """A hanging Auth is waited for within the bound; after three failures nobody waits until it has had its rest."""
    agent_id = anna.make_agent()
    with ServerProcess(settings(doorway, project, openai)) as server:
        doorway.silence("/auth/v1")
        waited = [seconds_to_open(server, anna, agent_id) for _ in range(auth_server.FAILURES_TO_REST)]
        assert all(auth_server.ASK_DEADLINE_S <= seconds < auth_server.ASK_DEADLINE_S + BUSY_S for seconds in waited)
        assert seconds_to_open(server, anna, agent_id) < BUSY_S


def test_strict_check_refuses_while_auth_is_away_and_not_after(
    project: LocalSupabase, openai: SimulatorThread, doorway: Doorway, anna: Person
) -> None:
    """SESSION_CHECK=strict: no answer is a refusal, except for whom Auth vouched a moment ago."""
    agent_id, bert = anna.make_agent(), new_person(project)
    his_agent = bert.make_agent()
    with ServerProcess(settings(doorway, project, openai, SESSION_CHECK="strict"), faster=FASTER) as server:
        assert opens(server, anna, agent_id)
        doorway.close("/auth/v1")
        assert not opens(server, bert, his_agent)
        assert eventually(lambda: not opens(server, anna, agent_id), SHORT_CACHE_S + BUSY_S)
        doorway.open()
        assert eventually(lambda: opens(server, anna, agent_id), SHORT_REST_S + BUSY_S)
        assert opens(server, bert, his_agent)


def test_project_that_is_down_stops_nobody_when_the_data_is_elsewhere(openai: SimulatorThread) -> None:
    """Sign-in and Vault by Supabase, data by DATABASE_URL: with all of Supabase stopped, sessions open and are stored,
    by the key and the signing secret at hand."""
    reason = missing()
    if reason:
        pytest.skip(reason)
    with LocalSupabase() as own:
        own.set_openai_key(KEY)
        anna = new_person(own)
        agent_id = anna.make_agent()
        environment = {**own.environment(), "DATABASE_URL": own.database_url, "OPENAI_REALTIME_URL": openai.url,
                       "NODE_ENV": "production"}  # fmt: skip
        with ServerProcess(environment) as server:
            assert opens(server, anna, agent_id)
            own.stop_api()
            with Browser(server, token=anna.token, agent_id=agent_id) as browser:
                conversation_id = browser.live()
                browser.type_text("hello")
                assert browser.answer() == "You typed: hello"
                browser.leave()
            stored = f"select end_reason from public.conversations where id = '{conversation_id}'"  # noqa: S608
            assert eventually(lambda: own.sql(stored), 5.0) == "client_left"


# ---------------------------------------------------------------------- whom Auth no longer knows


@pytest.mark.parametrize("how", ["signed out", "deleted"])
def test_user_who_is_gone_is_refused_after_the_cache_time(
    project: LocalSupabase, openai: SimulatorThread, doorway: Doorway, anna: Person, how: str
) -> None:
    """A good signature is not enough: after the cache time the sign-in is known to be over. Others are untouched.

    Until then a deleted user finds that the agents are gone as well.
    """
    agent_id, bert = anna.make_agent(), new_person(project)
    his_agent = bert.make_agent()
    with ServerProcess(settings(doorway, project, openai), faster=FASTER) as server:
        assert opens(server, anna, agent_id)
        if how == "signed out":
            anna.sign_out()
        else:
            project.sql(f"delete from auth.users where id = '{anna.id}'")  # noqa: S608 - an id of our own
        assert eventually(lambda: refused(server, anna, agent_id) == 4001, SHORT_CACHE_S + BUSY_S)
        assert not opens(server, anna, agent_id)
        assert opens(server, bert, his_agent)
        assert "signed out, banned or deleted" in server.log_text()


def test_sign_out_on_one_device_leaves_the_other_alone(
    project: LocalSupabase, openai: SimulatorThread, doorway: Doorway, anna: Person
) -> None:
    """The check is of the sign-in, not of the user."""
    agent_id, laptop = anna.make_agent(), anna.sign_in_again()
    with ServerProcess(settings(doorway, project, openai), faster=FASTER) as server:
        anna.sign_out()
        assert not opens(server, anna, agent_id)
        assert opens(server, laptop, agent_id)


# ---------------------------------------------------------------------- tokens that run out


LIFE_S = 8
"""Long enough for two sessions to open on a busy machine, and all that this test waits for."""


def test_token_that_runs_out_ends_the_session_unless_it_is_replaced(
    project: LocalSupabase, openai: SimulatorThread, doorway: Doorway, anna: Person
) -> None:
    """Both are told in time; the one that sends session.refresh talks on, the other ends with 4001."""
    agent_id = anna.make_agent()
    short = anna.short_token(LIFE_S)
    with (
        ServerProcess(settings(doorway, project, openai)) as server,
        Browser(server, token=short, agent_id=agent_id) as careful,
        Browser(server, token=short, agent_id=agent_id) as careless,
    ):
        careful.live()
        careless.live()
        for browser in (careful, careless):
            told = [event for event in browser.events if event.get("code") == "token_expiring"]
            assert len(told) == 1 and 0 <= told[0]["expires_in_s"] <= LIFE_S
        careful.send("session.refresh", token=new_person(project).token)
        assert careful.error()["code"] == "invalid_token", "somebody else's token is none for this session"
        careful.send("session.refresh", token=anna.token)
        end = careless.end()
        assert (end.code, end.reason) == (4001, "Unauthorized")
        assert end.error is not None and "expired" in end.error["message"]
        careful.type_text("hello")
        assert careful.answer() == "You typed: hello"
        careful.leave()


def test_token_that_has_run_out_is_no_way_in(
    project: LocalSupabase, openai: SimulatorThread, doorway: Doorway, anna: Person
) -> None:
    """Half a minute late is too late: the ten seconds that are forgiven are for clocks, not for people."""
    agent_id = anna.make_agent()
    with ServerProcess(settings(doorway, project, openai)) as server:
        with Browser(server, token=anna.short_token(-30), agent_id=agent_id) as browser:
            end = browser.end()
        assert (end.code, end.reason) == (4001, "Unauthorized")
