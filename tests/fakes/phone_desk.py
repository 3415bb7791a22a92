"""Twilio's and the main app's HTTP side of a gateway: the webhooks and /api/calls, asked as those two ask.

    with Desk(gateway) as desk:
        answer = desk.voice()                    # signed by the real twilio package
        desk.put(call_sid, {...})

It misleads in one way: subaccount tokens come from a dictionary instead of a Vault.
"""

from __future__ import annotations

import json
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode
from uuid import uuid4

import httpx
from twilio.request_validator import RequestValidator

from core.calls import PhoneNumber
from services.telephony import Accounts
from services.vault import SecretUnavailable
from tests.fakes.browser import PLAIN_ID, USER_ID
from tests.fakes.gateway import Gateway

PUBLIC_URL = "https://voice.example.com"
MASTER, MASTER_TOKEN = "AC" + "1" * 32, "0123456789abcdef" * 2
SUB, SUB_TOKEN, SUB_SECRET_ID = "AC" + "2" * 32, "fedcba9876543210" * 2, "00000000-0000-4000-8000-0000000000e1"
INTERNAL_KEY = "internal-key-of-the-tests"
CALLER = "+14155550111"
NUMBER, SUB_NUMBER = "+14155550100", "+14155550122"

SETTINGS = {
    "PUBLIC_URL": PUBLIC_URL,
    "TWILIO_ACCOUNT_SID": MASTER,
    "TWILIO_AUTH_TOKEN": MASTER_TOKEN,
    "INTERNAL_API_KEY": INTERNAL_KEY,
}
"""What a gateway needs to have a telephone."""


def new_sid() -> str:
    """Return a call's sid."""
    return f"CA{uuid4().hex}"


class Desk:
    """The doors of a gateway that HTTP reaches about calls; two numbers lead to the plain agent.

    Attributes:
        vault: Tokens by Vault id.
    """

    def __init__(self, gateway: Gateway) -> None:
        """Prepare the desk; `with` opens it."""
        self.gateway = gateway
        self.vault: dict[str, str] = {SUB_SECRET_ID: SUB_TOKEN}
        settings = gateway.settings
        self.accounts = Accounts(settings.twilio_account_sid, settings.twilio_auth_token, secret=self._secret)

    def __enter__(self) -> Self:
        self.gateway.run(self._open())
        self.http = httpx.Client(base_url=self.gateway.url, timeout=15.0, trust_env=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.http.close()

    async def _secret(self, secret_id: str) -> str:
        if secret_id not in self.vault:
            raise SecretUnavailable("secret_missing")
        return self.vault[secret_id]

    async def _open(self) -> None:
        context = self.gateway.server.context
        context.accounts = self.accounts
        for number in (
            PhoneNumber(NUMBER, PLAIN_ID, USER_ID),
            PhoneNumber(SUB_NUMBER, PLAIN_ID, USER_ID, SUB, SUB_SECRET_ID),
        ):
            await context.store.put_number(number)  # type: ignore[attr-defined] # the gateway's is a SqlStore

    # ------------------------------------------------------------------ Twilio

    def form(self, **changes: str | None) -> dict[str, str]:
        """Return the fields of a request about a new call; a change to None leaves a field out."""
        fields = {
            "AccountSid": MASTER,
            "ApiVersion": "2010-04-01",
            "CallSid": new_sid(),
            "CallStatus": "ringing",
            "Direction": "inbound",
            "From": CALLER,
            "To": NUMBER,
            "CallerCity": "",
            "CallerName": "Zoë & Söhne +1",
        }
        return {name: value for name, value in (fields | changes).items() if value is not None}

    def post(
        self, path: str, form: dict[str, str], *, token: str = MASTER_TOKEN, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        """Post a form as Twilio does; `headers` may replace the signature."""
        signed = {
            "Content-Type": "application/x-www-form-urlencoded; charset=UTF-8",
            "X-Twilio-Signature": RequestValidator(token).compute_signature(PUBLIC_URL + path, form),
            **(headers or {}),
        }
        return self.http.post(path, content=urlencode(form), headers=signed)

    def voice(self, *, token: str = MASTER_TOKEN, **changes: str | None) -> httpx.Response:
        """Ask for the TwiML of a call."""
        return self.post("/api/twilio/voice", self.form(**changes), token=token)

    def after(self, call_sid: str, *, token: str = MASTER_TOKEN, **changes: str | None) -> httpx.Response:
        """Ask for what follows the stream."""
        return self.post("/api/twilio/after", self.form(CallSid=call_sid, **changes), token=token)

    def status(self, call_sid: str, *, token: str = MASTER_TOKEN, **changes: str | None) -> httpx.Response:
        """Report how a call or its stream goes."""
        return self.post("/api/twilio/status", self.form(CallSid=call_sid, **changes), token=token)

    # ------------------------------------------------------------------ the main app

    def call(self, method: str, call_sid: str, body: Any = None, *, key: str | None = INTERNAL_KEY) -> httpx.Response:
        """Ask `/api/calls`; a body of bytes goes as it is."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        content = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        return self.http.request(method, f"/api/calls/{call_sid}", content=content, headers=headers)

    def put(self, call_sid: str, body: Any) -> httpx.Response:
        """Announce a call."""
        return self.call("PUT", call_sid, body)
