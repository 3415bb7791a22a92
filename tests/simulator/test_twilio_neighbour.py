"""Two simulators behind one address of the REST API."""
from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from twilio.base.exceptions import TwilioRestException
from twilio.rest import Client

from simulator.twilio import TwilioSimulator
from simulator.twilio_neighbour import neighbour_doors
from simulator.twilio_settings import DEMO_ACCOUNT

Run = Callable[[Coroutine[Any, Any, None]], None]

PAUSE = "<Response><Pause length='30'/></Response>"


def client_of(simulator: TwilioSimulator) -> Client:
    """Return Twilio's own client, pointed at a simulator."""
    client = Client(DEMO_ACCOUNT.sid, DEMO_ACCOUNT.auth_token)
    client.api.base_url = simulator.api_url
    return client


def test_calls_of_both_are_ended_at_one_address(run: Run) -> None:
    """Its own calls by itself, the neighbour's by the neighbour, nobody's are not found; wrong keys open neither."""

    async def work() -> None:
        async with TwilioSimulator() as other:
            first = TwilioSimulator()
            await first.start(doors=neighbour_doors(first, other.api_url))
            client = client_of(first)
            for simulator in (first, other):
                call = simulator.dial(twiml=PAUSE)
                fetched = await asyncio.to_thread(client.calls(call.record.sid).fetch)
                assert fetched.sid == call.record.sid
                await asyncio.to_thread(client.calls(call.record.sid).update, status="completed")
                assert (await call.finished).ended_by == "rest"
            stranger = Client(DEMO_ACCOUNT.sid, "0" * 32)
            stranger.api.base_url = first.api_url
            for who, sid, status in ((client, "CA" + "0" * 32, 404), (stranger, call.record.sid, 401)):
                try:
                    await asyncio.to_thread(who.calls(sid).fetch)
                except TwilioRestException as error:
                    assert error.status == status
                else:
                    raise AssertionError("found")
            await first.stop()

    run(work())


def test_neighbour_that_is_not_there_is_no_fault(run: Run) -> None:
    """Its calls are not found, as if there were none."""

    async def work() -> None:
        first = TwilioSimulator()
        await first.start(doors=neighbour_doors(first, "http://127.0.0.1:9"))
        try:
            await asyncio.to_thread(client_of(first).calls("CA" + "0" * 32).fetch)
        except TwilioRestException as error:
            assert (error.status, error.code) == (404, 20404)
        else:
            raise AssertionError("found")
        await first.stop()

    run(work())
