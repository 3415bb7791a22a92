"""The demo's telephone company: addresses, numbers, and what the rest of the demo is told."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from cli.demo_phone import DemoPhone, free_port, number_of
from cli.phone_line import find_line

AGENTS = ({"id": "a1", "name": "Rosa, receptionist"}, {"id": "a2", "name": "Tom, language tutor"})


def test_facts_are_enough_for_a_call() -> None:
    """`./voice call` finds webhook, account, number and the address of the REST API in them."""

    async def work() -> None:
        phone = DemoPhone(8080, AGENTS)
        await phone.start(beside=False)
        facts, environment, line = phone.facts(), phone.environment(), phone.line()
        await phone.stop()
        found = find_line(to="tom", url=None, account=(None, None), settings={},
                          demo={"agents": list(AGENTS), "twilio": facts})  # fmt: skip
        assert found.number == number_of(1) == "+15005550107"
        assert found.voice_url == "http://127.0.0.1:8080/api/twilio/voice"
        assert found.voice_url.startswith(environment["PUBLIC_URL"])
        assert (found.account_sid, found.auth_token) == (
            environment["TWILIO_ACCOUNT_SID"], environment["TWILIO_AUTH_TOKEN"])  # fmt: skip
        assert [entry["name"] for entry in line["numbers"]] == ["Rosa, receptionist", "Tom, language tutor"]
        assert found.api_url != environment["TWILIO_API_URL"], "two simulators, two addresses"
        assert urlsplit(line["url"]).port == urlsplit(environment["TWILIO_API_URL"]).port

    asyncio.run(work())


def test_ports_beside_the_page_are_known_beforehand() -> None:
    """Page, health, telephone, `./voice call`: four ports in a row, so that they can be forwarded."""

    async def work() -> None:
        port = free_port()
        phone = DemoPhone(port, AGENTS)
        await phone.start(beside=True)
        assert urlsplit(phone.line()["url"]).port == port + 2
        assert phone.facts()["api_url"] == f"http://127.0.0.1:{port + 3}"
        await phone.stop()

    asyncio.run(work())
