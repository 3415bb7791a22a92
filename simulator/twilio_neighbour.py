"""Two simulators behind one address: calls that this one does not know are the neighbour's.

A server knows one address of Twilio's REST API. In the demo two simulators place calls: the one of the browser's
telephone, which is always there, and the one of `./voice call`, which comes and goes.
"""
from __future__ import annotations

from typing import Any

from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest

from simulator.twilio_api import CallHandler, Exchange

# Beside us on the same computer; the server itself gives up after 5 s.
ANSWER_S = 3.0


class NeighbourCallHandler(CallHandler):
    """The Call resource: of this simulator, else of the neighbour, else 404."""

    def initialize(self, exchange: Exchange, neighbour: str = "") -> None:
        """Take both."""
        super().initialize(exchange)
        self.neighbour = neighbour

    async def prepare(self) -> None:
        """Pass a request about a call that is not ours on, as it is."""
        await super().prepare()
        if self.path_args[1] in self.exchange.calls:
            return
        kept = {name: self.request.headers.get(name) for name in ("Authorization", "Content-Type")}
        request = HTTPRequest(
            self.neighbour + self.request.path, method=self.request.method or "GET",
            headers={name: value for name, value in kept.items() if value},
            body=self.request.body if self.request.method == "POST" else None,
            connect_timeout=ANSWER_S, request_timeout=ANSWER_S,
        )
        try:
            answer = await AsyncHTTPClient().fetch(request, raise_error=False)
        except (HTTPClientError, OSError):
            return
        if answer.code == 599:  # Tornado's number for no answer: nobody is there
            return
        self.set_status(answer.code)
        self.set_header("Content-Type", answer.headers.get("Content-Type", "application/json"))
        self.finish(answer.body)


def neighbour_doors(exchange: Exchange, neighbour: str) -> list[Any]:
    """Return the entries of a simulator's URL table that know the neighbour, an address such as `api_url`."""
    path = r"/2010-04-01/Accounts/(\w+)/Calls/(\w+)\.json"
    return [(path, NeighbourCallHandler, {"exchange": exchange, "neighbour": neighbour})]
