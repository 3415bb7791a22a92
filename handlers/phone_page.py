"""The telephone in a page, at `/phone`: only where somebody hands the server a phone line, as the demo does.

    /phone           web/phone.html; its policy lets it connect to the phone line and to nothing else
    /phone/line      JSON: address and secret of the line, and the numbers to call

Its other files are served below `/client/`, like those of the talk page.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import tornado.web

from handlers.origins import LOCAL_HOSTS
from handlers.pages import CONTENT_SECURITY_POLICY, PAGE_HEADERS, WEB_ROOT

PhoneLine = Callable[[], Mapping[str, Any]]
"""Returns what the page must know: `url` of a WebSocket, `secret`, `numbers` (list of number, name, detail)."""

OWN_PAGE: Final = frozenset({"same-origin", "none", ""})
"""`Sec-Fetch-Site` of a request by our page, by a person, and by a client that is no browser."""


class _Local(tornado.web.RequestHandler):
    """Answers to names of this machine only: a foreign name that was made to lead here (DNS rebinding) would make
    its page one of ours."""

    def initialize(self, line: PhoneLine) -> None:
        """Take the line."""
        self.line = line

    def prepare(self) -> None:
        """Refuse foreign names."""
        try:
            name = urlsplit(f"//{self.request.host}").hostname
        except ValueError:
            name = None
        if name not in LOCAL_HOSTS:
            raise tornado.web.HTTPError(404)


class PhonePage(_Local):
    """`GET /phone`."""

    def get(self) -> None:
        """Answer with the page."""
        try:
            page = (WEB_ROOT / "phone.html").read_bytes()
        except FileNotFoundError:
            raise tornado.web.HTTPError(404, "no phone page in this installation") from None
        for name, value in PAGE_HEADERS.items():
            self.set_header(name, value)
        self.set_header("Content-Security-Policy", CONTENT_SECURITY_POLICY.format(also=f" {self.line()['url']}"))
        self.finish(page)

    def head(self) -> None:
        """Answer with the headers of the page."""
        self.get()


class PhoneLineDoor(_Local):
    """`GET /phone/line`."""

    def get(self) -> None:
        """Answer with the line's address and secret, to our own page."""
        if self.request.headers.get("Sec-Fetch-Site", "") not in OWN_PAGE:
            raise tornado.web.HTTPError(403)
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Cross-Origin-Resource-Policy", "same-origin")
        self.finish(json.dumps(self.line()))


def phone_routes(line: PhoneLine) -> list[Any]:
    """Return the entries of the URL table for the telephone."""
    return [(r"/phone", PhonePage, {"line": line}), (r"/phone/line", PhoneLineDoor, {"line": line})]
