"""Twilio's REST API for calls, as far as a phone server uses it: create, fetch, update. Form encoded, basic auth.

Also `/simulate/calls`, which is no API of Twilio's: it makes somebody call one of your numbers.
"""
from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import io
import json
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict
from email.utils import formatdate
from typing import Any, Protocol

from tornado.web import RequestHandler

from simulator.faults import Fault, UnknownFaultError
from simulator.twilio_call import Call
from simulator.twilio_ear import write_wav
from simulator.twilio_faults import CallFaults
from simulator.twilio_plan import CallPlan
from simulator.twilio_settings import TwilioSettings

# Longest document the API takes as an argument.
TWIML_CHARS = 4_000
_METHODS = ("GET", "POST")


class Exchange(Protocol):
    """The simulator, as the API sees it."""

    settings: TwilioSettings
    calls: dict[str, Call]
    rest_requests: deque[str]

    def dial(self, plan: CallPlan) -> Call:
        """Begin a call."""


class RestError(Exception):
    """Raised to answer with Twilio's error object."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def call_json(call: Call) -> dict[str, Any]:
    """Return the Call resource."""
    record = call.record
    path = f"/2010-04-01/Accounts/{record.account_sid}/Calls/{record.sid}"
    return {
        "sid": record.sid, "account_sid": record.account_sid, "parent_call_sid": None, "api_version": "2010-04-01",
        "to": record.to, "to_formatted": record.to, "from": record.from_, "from_formatted": record.from_,
        "phone_number_sid": None, "status": record.status, "direction": call.plan.direction, "answered_by": None,
        "date_created": formatdate(), "date_updated": formatdate(), "start_time": formatdate(),
        "end_time": formatdate() if call.is_over else None,
        "duration": str(round(record.duration_s)) if call.is_over else None,
        "price": None, "price_unit": "USD", "forwarded_from": None, "group_sid": None, "caller_name": None,
        "queue_time": "0", "trunk_sid": None, "uri": f"{path}.json",
        "subresource_uris": {"streams": f"{path}/Streams.json", "recordings": f"{path}/Recordings.json"},
    }


class _Handler(RequestHandler):
    """Errors in Twilio's shape."""

    exchange: Exchange

    def initialize(self, exchange: Exchange) -> None:
        """Take the simulator."""
        self.exchange = exchange

    async def prepare(self) -> None:
        """Note the request; strike with the faults of the API."""
        self.exchange.rest_requests.append(f"{self.request.method} {self.request.path}")
        faults = CallFaults(self.exchange.settings.faults)
        slow: Fault | None = faults.has("rest_slow")
        if slow:
            await asyncio.sleep(slow.seconds)
        if faults.has("rest_429"):
            raise RestError(429, 20429, "Too Many Requests")
        if faults.has("rest_500"):
            raise RestError(500, 20500, "Internal Server Error")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer with Twilio's error object."""
        error = kwargs.get("exc_info", (None, None))[1]
        code = error.code if isinstance(error, RestError) else 20404 if status_code == 404 else 20001
        if isinstance(error, RestError):
            status_code = error.status
            self.set_status(status_code)
        self.finish({
            "code": code, "message": str(error), "status": status_code,
            "more_info": f"https://www.twilio.com/docs/errors/{code}",
        })

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Log what is not one of Twilio's errors."""
        if not isinstance(value, RestError):
            super().log_exception(typ, value, tb)


class _AccountHandler(_Handler):
    """A resource of one account; its own credentials or its parent's open it."""

    def check(self, account_sid: str) -> None:
        """Refuse credentials that do not open this account."""
        settings = self.exchange.settings
        wanted = settings.account(account_sid)
        scheme, _, encoded = self.request.headers.get("Authorization", "").partition(" ")
        try:
            user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            user, password = "", ""
        known = settings.account(user) if scheme.lower() == "basic" else None
        proved = known is not None and hmac.compare_digest(known.auth_token.encode(), password.encode())
        if wanted is None or known is None or not proved or known.sid not in {wanted.sid, wanted.parent_sid}:
            raise RestError(401, 20003, "Authenticate")

    def found(self, account_sid: str, call_sid: str) -> Call:
        """Return a call of this account."""
        call = self.exchange.calls.get(call_sid)
        if call is None or call.record.account_sid != account_sid:
            raise RestError(404, 20404, f"The requested resource {self.request.path} was not found")
        return call

    def field(self, name: str) -> str:
        """Return a form field; empty where absent."""
        return str(self.get_body_argument(name, ""))


class CallsHandler(_AccountHandler):
    """`POST /2010-04-01/Accounts/{sid}/Calls.json`: place a call; the simulated callee answers and listens."""

    def post(self, account_sid: str) -> None:
        """Begin an outbound call."""
        self.check(account_sid)
        if not self.field("To") or not self.field("From"):
            raise RestError(400, 21201, "No 'To' or 'From' number is specified")
        if bool(self.field("Url")) == bool(self.field("Twiml")):
            raise RestError(400, 21205, "Exactly one of Url and Twiml is needed")
        call = self.exchange.dial(CallPlan(
            to=self.field("To"), from_=self.field("From"), voice_url=self.field("Url"), twiml=self.field("Twiml"),
            voice_method=self.field("Method") or "POST", account_sid=account_sid, direction="outbound-api",
            status_callback=self.field("StatusCallback"), timeout_s=self.exchange.settings.max_call_s,
        ))
        self.set_status(201)
        self.finish(call_json(call))


class CallHandler(_AccountHandler):
    """`/2010-04-01/Accounts/{sid}/Calls/{sid}.json`."""

    def get(self, account_sid: str, call_sid: str) -> None:
        """Fetch a call; those that are over are kept."""
        self.check(account_sid)
        self.finish(call_json(self.found(account_sid, call_sid)))

    def post(self, account_sid: str, call_sid: str) -> None:
        """Update a call: Status, Twiml, Url with Method, TimeLimit."""
        self.check(account_sid)
        call = self.found(account_sid, call_sid)
        status, document, url = self.field("Status"), self.field("Twiml"), self.field("Url")
        limit = self.field("TimeLimit")
        if call.is_over:
            if status:
                raise RestError(404, 20404, f"The requested resource {self.request.path} was not found")
            raise RestError(400, 21220, "Call is not in-progress. Cannot redirect.")
        if status not in {"", "completed", "canceled"}:
            raise RestError(400, 21219, "Invalid status")
        if document and url:
            raise RestError(400, 21205, "Twiml and Url are mutually exclusive")
        if len(document) > TWIML_CHARS or (self.field("Method") or "POST") not in _METHODS:
            raise RestError(400, 20001, "Twiml is too long, or Method is neither GET nor POST")
        if limit and not limit.isdigit():
            raise RestError(400, 20001, "TimeLimit must be a number of seconds")
        if limit:
            call.limit(float(limit))
        if status:
            call.complete()
        elif document or url:
            call.replace(twiml_text=document, url=url, method=self.field("Method") or "POST")
        self.finish(call_json(call))


class SimulateHandler(_Handler):
    """`POST /simulate/calls`: somebody calls one of your numbers. JSON in, the Call resource out."""

    _FIELDS = frozenset({"to", "from_", "voice_url", "wav", "account_sid", "status_callback", "faults", "timeout_s"})

    def post(self) -> None:
        """Begin an inbound call; fields are those of `CallPlan`."""
        try:
            wanted = json.loads(self.request.body)
            if not isinstance(wanted, Mapping) or set(wanted) - self._FIELDS or "voice_url" not in wanted:
                raise ValueError(f"an object with voice_url, and of {', '.join(sorted(self._FIELDS))}")
            call = self.exchange.dial(CallPlan(**wanted))
        except (ValueError, OSError, TypeError, UnknownFaultError) as error:
            raise RestError(400, 20001, str(error)) from None
        self.set_status(201)
        self.finish(call_json(call))


class SimulatedCallHandler(_Handler):
    """`GET /simulate/calls/{sid}` and `…/heard.wav`: how a call goes, and what the caller heard."""

    def get(self, call_sid: str, wav: str) -> None:
        """Return the record of a call without its audio, or the audio so far."""
        call = self.exchange.calls.get(call_sid)
        if call is None:
            raise RestError(404, 20404, "no such call")
        record = call.record
        if wav:
            sound = io.BytesIO()
            write_wav(sound, bytes(record.heard))
            self.set_header("Content-Type", "audio/wav")
            self.finish(sound.getvalue())
            return
        self.finish({
            "sid": record.sid, "status": record.status, "ended_by": record.ended_by,
            "warnings": [warned._asdict() for warned in record.warnings], "rejected": record.rejected,
            "marks": [asdict(mark) for mark in record.marks], "clears": record.clears,
            "heard_speech": [stretch._asdict() for stretch in record.heard_speech()],
            "timeline": [entry._asdict() for entry in record.timeline],
        })
