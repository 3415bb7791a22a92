"""The simulated REST API through the official client."""
from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
import pytest
from twilio.base.exceptions import TwilioRestException
from twilio.http.async_http_client import AsyncTwilioHttpClient
from twilio.http.http_client import TwilioHttpClient
from twilio.rest import Client

from simulator.twilio import TwilioSimulator
from simulator.twilio_caller import HangUp, at
from simulator.twilio_settings import DEMO_ACCOUNT, DEMO_SUBACCOUNT, Account
from tests.fakes.phone_server import phone

Run = Callable[[Coroutine[Any, Any, None]], None]
Eventually = Callable[[Callable[[], bool]], Coroutine[Any, Any, None]]


def client_of(sim: TwilioSimulator, account: Account = DEMO_ACCOUNT, sub_sid: str | None = None) -> Client:
    """Return the official client, pointed at the simulator."""
    client = Client(account.sid, account.auth_token, sub_sid, http_client=TwilioHttpClient(timeout=5))
    client.api.base_url = sim.api_url
    return client


async def refused(work: Callable[[], Any]) -> tuple[int, int]:
    """Return status and code of the exception the client raises."""
    with pytest.raises(TwilioRestException) as caught:
        await asyncio.to_thread(work)
    return caught.value.status, caught.value.code


def test_hanging_up_by_rest_ends_the_stream_with_stop(run: Run, eventually: Eventually) -> None:
    """status=completed: `stop` on the stream, then the call is completed, and fetch says so."""

    async def work() -> None:
        async with phone() as server, TwilioSimulator() as sim:
            call = sim.dial(voice_url=server.voice_url)
            await eventually(lambda: bool(server.of("media")))
            client = client_of(sim)
            fetched = await asyncio.to_thread(client.calls(call.record.sid).fetch)
            assert (fetched.status, fetched.direction, fetched.to) == ("in-progress", "inbound", call.record.to)
            await asyncio.to_thread(client.calls(call.record.sid).update, status="completed")
            record = await call.finished
            assert (record.status, record.ended_by) == ("completed", "rest")
            assert len(server.of("stop")) == 1
            assert (await asyncio.to_thread(client.calls(record.sid).fetch)).status == "completed"

    run(work())


def test_new_twiml_replaces_the_stream_and_keeps_the_call(run: Run, eventually: Eventually) -> None:
    """twiml=<Dial>: `stop` on the stream, no action, and the transfer goes through."""

    async def work() -> None:
        async with phone("tone 30") as server, TwilioSimulator(dial_s=0.1) as sim:
            call = sim.dial(voice_url=server.voice_url)
            await eventually(lambda: len(server.of("media")) > 10)
            update = client_of(sim).calls(call.record.sid).update
            await asyncio.to_thread(update, twiml="<Response><Dial>+15005550199</Dial></Response>")
            record = await call.finished
            assert record.dialled == ["+15005550199"]
            assert len(server.of("stop")) == 1
            assert "/after" not in server.paths()

    run(work())


def test_new_url_is_fetched_signed(run: Run, eventually: Eventually) -> None:
    """url=: the document comes from there, relative to nothing."""

    async def work() -> None:
        async with phone() as server, TwilioSimulator() as sim:
            call = sim.dial(voice_url=server.voice_url)
            await eventually(lambda: bool(server.of("media")))
            update = client_of(sim).calls(call.record.sid).update
            await asyncio.to_thread(update, url=server.url("elsewhere"), method="GET")
            record = await call.finished
            assert ("/elsewhere", True) in [(path, valid) for path, _, valid in server.forms]
            assert record.ended_by == "application"

    run(work())


def test_time_limit_ends_the_call(run: Run, eventually: Eventually) -> None:
    """time_limit counts from the answer."""

    async def work() -> None:
        async with phone() as server, TwilioSimulator() as sim:
            call = sim.dial(voice_url=server.voice_url)
            await eventually(lambda: bool(server.of("media")))
            await asyncio.to_thread(client_of(sim).calls(call.record.sid).update, time_limit=1)
            record = await call.finished
            assert record.ended_by == "time-limit"
            assert record.duration_s == pytest.approx(1.0, abs=0.3)

    run(work())


def test_ended_and_unknown_calls_answer_as_twilio_does(run: Run) -> None:
    """404/20404 for hanging up twice and for a call nobody knows, 400/21220 for redirecting an ended one."""

    async def work() -> None:
        async with phone() as server, TwilioSimulator() as sim:
            record = await sim.call(voice_url=server.voice_url, actions=[HangUp(at(0.1))])
            ended = client_of(sim).calls(record.sid)
            assert await refused(lambda: ended.update(status="completed")) == (404, 20404)
            assert await refused(lambda: ended.update(twiml="<Response/>")) == (400, 21220)
            assert await refused(client_of(sim).calls("CA" + "0" * 32).fetch) == (404, 20404)

    run(work())


def test_bad_updates_are_refused(run: Run, eventually: Eventually) -> None:
    """A status that does not exist, two documents, a document that is too long, a limit that is no number."""

    async def work() -> None:
        async with phone() as server, TwilioSimulator() as sim:
            call = sim.dial(voice_url=server.voice_url)
            await eventually(lambda: bool(server.of("media")))
            update = client_of(sim).calls(call.record.sid).update
            for fields in ({"status": "paused"}, {"twiml": "<Response/>", "url": "http://x/"}, {"twiml": "x" * 4001},
                           {"time_limit": "soon"}):
                status, _ = await refused(lambda fields=fields: update(**fields))
                assert status == 400
            assert not call.is_over

    run(work())


def test_credentials_open_their_own_account_and_its_subaccounts(run: Run, eventually: Eventually) -> None:
    """The parent reaches a subaccount's call; a subaccount reaches only its own; a wrong token reaches nothing."""

    async def work() -> None:
        token = DEMO_SUBACCOUNT.auth_token
        async with phone(token=token) as server, TwilioSimulator() as sim:
            call = sim.dial(voice_url=server.voice_url, account_sid=DEMO_SUBACCOUNT.sid)
            await eventually(lambda: bool(server.of("media")))
            sid = call.record.sid
            parent = client_of(sim, DEMO_ACCOUNT, DEMO_SUBACCOUNT.sid)
            own = client_of(sim, DEMO_SUBACCOUNT)
            assert (await asyncio.to_thread(parent.calls(sid).fetch)).account_sid == DEMO_SUBACCOUNT.sid
            assert (await asyncio.to_thread(own.calls(sid).fetch)).sid == sid
            up = client_of(sim, DEMO_SUBACCOUNT, DEMO_ACCOUNT.sid)
            wrong = client_of(sim, Account(DEMO_ACCOUNT.sid, "wrong"))
            assert await refused(up.calls(sid).fetch) == (401, 20003)
            assert await refused(wrong.calls(sid).fetch) == (401, 20003)
            assert await refused(client_of(sim).calls(sid).fetch) == (404, 20404)

    run(work())


# twilio 9.13 gives its credentials to aiohttp 3.14 in a way that aiohttp 4 will not take
@pytest.mark.filterwarnings("ignore:BasicAuth is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The 'auth' parameter is deprecated:DeprecationWarning")
def test_asynchronous_client_works_as_well(run: Run, eventually: Eventually) -> None:
    """The official async client hangs up."""

    async def work() -> None:
        async with phone() as server, TwilioSimulator() as sim:
            call = sim.dial(voice_url=server.voice_url)
            await eventually(lambda: bool(server.of("media")))
            http = AsyncTwilioHttpClient(timeout=5)
            client = Client(DEMO_ACCOUNT.sid, DEMO_ACCOUNT.auth_token, http_client=http)
            client.api.base_url = sim.api_url
            await client.calls(call.record.sid).update_async(status="completed")
            await http.close()
            assert (await call.finished).ended_by == "rest"

    run(work())


def test_placed_call_asks_for_its_document(run: Run) -> None:
    """calls.create: an outbound call that fetches its TwiML and runs it."""

    async def work() -> None:
        async with phone("close after 5") as server, TwilioSimulator() as sim:
            create = client_of(sim).calls.create
            placed = await asyncio.to_thread(create, to="+15005550142", from_="+15005550106", url=server.voice_url)
            record = await sim.calls[placed.sid].finished
            assert server.forms[0][1]["Direction"] == "outbound-api"
            assert record.status == "completed"
            assert await refused(lambda: create(to="+15005550142", from_="+15005550106")) == (400, 21205)

    run(work())


@pytest.mark.parametrize(("fault", "expected"), [("rest_429", (429, 20429)), ("rest_500", (500, 20500))])
def test_faults_of_the_api_reach_the_client(run: Run, fault: str, expected: tuple[int, int]) -> None:
    """Refused and failed requests raise what the client raises for the real ones."""

    async def work() -> None:
        async with TwilioSimulator(faults=[fault]) as sim:
            assert await refused(client_of(sim).calls("CA1").fetch) == expected
            assert len(sim.rest_requests) == 1

    run(work())


def test_call_can_be_simulated_from_outside(run: Run) -> None:
    """POST /simulate/calls begins a call; its record and its sound can be fetched."""

    async def work() -> None:
        async with phone("tone 0.2", "close after 20") as server, TwilioSimulator() as sim, httpx.AsyncClient() as http:
            wanted = {"voice_url": server.voice_url, "to": "+15005550106"}
            begun = (await http.post(f"{sim.api_url}/simulate/calls", json=wanted)).json()
            await sim.calls[begun["sid"]].finished
            record = (await http.get(f"{sim.api_url}/simulate/calls/{begun['sid']}")).json()
            assert (record["status"], len(record["heard_speech"])) == ("completed", 1)
            wav = await http.get(f"{sim.api_url}/simulate/calls/{begun['sid']}/heard.wav")
            assert wav.content.startswith(b"RIFF")
            for bad in ({}, {"voice_url": "x", "nonsense": 1}, {"voice_url": "x", "faults": ["nonsense"]}, []):
                assert (await http.post(f"{sim.api_url}/simulate/calls", json=bad)).status_code == 400
            assert (await http.get(f"{sim.api_url}/simulate/calls/CA1")).status_code == 404

    run(work())
