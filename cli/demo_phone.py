"""The demo's telephone company: a simulated Twilio on this machine, the page's telephone, and a number for each agent.

The page's telephone calls through the simulator of this process. `./voice call` starts a simulator of its own at
`api_url` of the demo's facts; the server knows one address of the REST API, so the first passes on what is the other's.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import Any

from cli.phone_line import VOICE_PATH
from simulator.softphone import Listed, Softphone
from simulator.twilio import TwilioSimulator
from simulator.twilio_neighbour import neighbour_doors
from simulator.twilio_settings import DEMO_ACCOUNT

FIRST_NUMBER = 15_005_550_106
"""Of Twilio's test range, which belongs to nobody."""

PHONE_PORT, CALL_PORT = 2, 3
"""Ports of the two simulators, above the demo's own: page and doors, then health, come first."""


def free_port() -> int:
    """Return a port of this machine that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def number_of(position: int) -> str:
    """Return the number of the agent at this place of the demo's list."""
    return f"+{FIRST_NUMBER + position}"


class DemoPhone:
    """A telephone company and the agents that can be called; make it before the server, `connect` it after."""

    def __init__(self, page_port: int, agents: Sequence[Mapping[str, Any]]) -> None:
        """Prepare it; nothing listens.

        Args:
            page_port: Where the demo's page will be; not 0, since signatures are made over the address.
            agents: With `id` and `name`.
        """
        self._page_port = page_port
        self._agents = agents
        self._simulator = TwilioSimulator()
        self._softphone = Softphone(self._simulator)
        self._call_url = ""
        self.line = self._softphone.configuration
        """What `server.start(phone=…)` is given: the page's configuration, asked anew for each load."""

    async def start(self, *, beside: bool) -> None:
        """Listen; afterwards `environment` holds.

        Args:
            beside: Take the ports above the page's; False: free ones.

        Raises:
            OSError: If a port is taken.
        """
        own, other = (self._page_port + PHONE_PORT, self._page_port + CALL_PORT) if beside else (0, free_port())
        self._call_url = f"http://127.0.0.1:{other}"
        doors = [*self._softphone.doors(), *neighbour_doors(self._simulator, self._call_url)]
        await self._simulator.start(own, doors=doors)
        origins = [f"http://{host}:{self._page_port}" for host in ("127.0.0.1", "localhost")]
        numbers = [Listed(number_of(place), str(agent["name"])) for place, agent in enumerate(self._agents)]
        self._softphone.connect(voice_url=self.voice_url, origins=origins, numbers=numbers)

    async def stop(self) -> None:
        """Hang up every call."""
        await self._simulator.stop()

    @property
    def voice_url(self) -> str:
        """Webhook of every number."""
        return f"http://127.0.0.1:{self._page_port}{VOICE_PATH}"

    def environment(self) -> dict[str, str]:
        """Return the settings with which the server takes these calls."""
        return {
            "PUBLIC_URL": f"http://127.0.0.1:{self._page_port}",
            "TWILIO_ACCOUNT_SID": DEMO_ACCOUNT.sid,
            "TWILIO_AUTH_TOKEN": DEMO_ACCOUNT.auth_token,
            "TWILIO_API_URL": self._simulator.api_url,
        }

    def facts(self) -> dict[str, Any]:
        """Return the part `twilio` of the demo's facts (contract, section 8)."""
        numbers = [{"number": number_of(place), "agent_id": agent["id"]} for place, agent in enumerate(self._agents)]
        return {
            "voice_url": self.voice_url, "account_sid": DEMO_ACCOUNT.sid, "auth_token": DEMO_ACCOUNT.auth_token,
            "number": number_of(0), "numbers": numbers, "api_url": self._call_url,
        }  # fmt: skip
