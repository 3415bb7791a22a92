"""Twilio's HTTP requests to the application: signed, form encoded, with the fields a phone call has.

Source: Twilio, "TwiML Voice: Twilio's request", "Webhooks security"; the values of places are those of a test number.
"""
from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest

from core.twilio import signature
from simulator.twilio_faults import CallFaults
from simulator.twilio_record import CallRecord, Request
from simulator.twilio_settings import Account, TwilioSettings

USER_AGENT = "TwilioProxy/1.1"
API_VERSION = "2010-04-01"
# Signs what is to be signed wrongly.
WRONG_TOKEN = "f" * 32

_PLACES = {"City": "", "State": "CA", "Zip": "", "Country": "US"}


class Answer(NamedTuple):
    """An HTTP answer; status 0 when there was none."""

    status: int
    content_type: str
    body: bytes


@dataclass
class Webhooks:
    """The requests of one call."""

    settings: TwilioSettings
    account: Account
    record: CallRecord
    faults: CallFaults
    client: AsyncHTTPClient
    direction: str = "inbound"

    def __post_init__(self) -> None:
        self._background: set[asyncio.Task[Answer]] = set()
        self._call_token = json.dumps({"parentCallInfoToken": uuid.uuid4().hex, "identityHeaderTokens": []})

    def standard(self) -> dict[str, str]:
        """Return the fields of every request about this call; some are empty, and are signed all the same."""
        record = self.record
        parties = {"To": record.to, "Called": record.to, "From": record.from_, "Caller": record.from_}
        return {
            "AccountSid": record.account_sid,
            "ApiVersion": API_VERSION,
            "CallSid": record.sid,
            "CallStatus": record.status,
            "CallToken": self._call_token,
            "Direction": self.direction,
            **parties,
            **{name + place: value for name in parties for place, value in _PLACES.items()},
        }

    async def request(
        self, kind: str, url: str, *, method: str = "POST", extra: Mapping[str, str] | None = None
    ) -> Answer:
        """Ask the application; every request is recorded, a failed one has status 0."""
        params = {**self.standard(), **(extra or {})}
        started = time.monotonic()
        answer = await self._fetch(url, method, params)
        took = time.monotonic() - started
        self.record.requests.append(Request(kind, url, params, answer.status, took))
        self.record.note("webhook", kind=kind, path=urlsplit(url).path, status=answer.status, ms=round(took * 1000))
        return answer

    async def _fetch(self, url: str, method: str, params: Mapping[str, str]) -> Answer:
        signed = url if method == "POST" else f"{url}{'&' if '?' in url else '?'}{urlencode(params)}"
        headers = {
            "User-Agent": USER_AGENT,
            "Accept": "*/*",
            "Host": urlsplit(url).netloc,
            "I-Twilio-Idempotency-Token": str(uuid.uuid4()),
        }
        if not self.faults.has("no_webhook_signature"):
            token = WRONG_TOKEN if self.faults.has("wrong_webhook_signature") else self.account.auth_token
            headers["X-Twilio-Signature"] = signature(signed, params.items() if method == "POST" else (), token)
        if method == "POST":
            headers["Content-Type"] = "application/x-www-form-urlencoded; charset=UTF-8"
        limit = self.settings.webhook_timeout_s
        request = HTTPRequest(
            self.settings.reached(signed), method=method, headers=headers, connect_timeout=limit, request_timeout=limit,
            body=urlencode(params) if method == "POST" else None,
        )
        try:
            response = await self.client.fetch(request, raise_error=False)
        except (HTTPClientError, OSError, ValueError):
            return Answer(0, "", b"")
        status = 0 if response.code == 599 else response.code  # 599: Tornado's number for no answer
        return Answer(status, response.headers.get("Content-Type", ""), response.body or b"")

    def later(self, kind: str, url: str, *, method: str = "POST", extra: Mapping[str, str] | None = None) -> None:
        """Ask without waiting for the answer, as status callbacks are sent; `finish` waits for all."""
        work = self.request(kind, url, method=method, extra=extra)
        task = asyncio.get_running_loop().create_task(work, name=f"twilio {kind} callback")
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def finish(self) -> None:
        """Wait for the answers of all status callbacks; each has its own deadline."""
        await asyncio.gather(*self._background)


def rfc2822_now() -> str:
    """Return the time as status callbacks give it."""
    return format_datetime(datetime.now(UTC))


def iso8601_now() -> str:
    """Return the time as stream callbacks give it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
