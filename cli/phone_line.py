"""Whom `./voice call` calls, and as which Twilio account: options, then the running demo's file, then the settings.

The demo writes `demo.json` into its folder, the object that `./voice demo --json` prints. Of it are read:
`agents` (list of `id`, `name`) and `twilio`: `voice_url`, `account_sid`, `auth_token`, `number`, and, if they are
there, `numbers` (list of `number`, `agent_id`) and `api_url` (where the demo looks for Twilio's REST API).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cli.demo_data import DEMO_FILE, demo_dir

VOICE_PATH = "/api/twilio/voice"
DEFAULT_NUMBER = "+15005550106"
"""A number of Twilio's test range: it belongs to nobody."""

_PHONE_NUMBER = re.compile(r"\+[0-9]{3,15}")
_ACCOUNT_SID = re.compile(r"AC[0-9a-fA-F]{32}")


class NoLine(Exception):
    """Raised when it is not clear whom to call; the text says which option is missing."""


@dataclass(frozen=True)
class Line:
    """Where a call goes to.

    Attributes:
        voice_url: Webhook of the called number; its text is signed.
        auth_token: Signs everything.
        api_url: Where the server looks for Twilio's REST API; empty if nobody said.
    """

    voice_url: str
    number: str
    account_sid: str
    auth_token: str = field(repr=False)
    api_url: str = ""

    @property
    def api_port(self) -> int:
        """Port of a REST API on this machine, 0 for any."""
        parts = urlsplit(self.api_url)
        return parts.port or 0 if parts.hostname in {"127.0.0.1", "localhost"} else 0


def demo_file() -> Path:
    """Return where the demo says how it is called."""
    return demo_dir() / DEMO_FILE


def read_demo(path: Path) -> Mapping[str, Any]:
    """Return what the demo wrote; empty when there is no such file or it is damaged."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def find_line(
    *, to: str | None, url: str | None, account: tuple[str | None, str | None],
    demo: Mapping[str, Any], settings: Mapping[str, str],
) -> Line:
    """Return whom to call.

    Args:
        to: Phone number, or id or beginning of the name of one of the demo's agents.
        url: Voice webhook.
        account: Account sid and auth token.
        demo: From `read_demo`.
        settings: Environment and `.env`.

    Raises:
        NoLine: If something is missing or cannot be found.
    """
    phone = demo.get("twilio")
    phone = phone if isinstance(phone, dict) else {}
    public = settings.get("PUBLIC_URL", "").rstrip("/").replace("ws", "http", 1)
    voice_url = url or phone.get("voice_url") or (public and public + VOICE_PATH)
    if not voice_url:
        raise NoLine("Nothing to call: start ./voice demo, or give --url, the voice webhook of a number.")
    if urlsplit(voice_url).scheme not in {"http", "https"}:
        raise NoLine("--url must begin with http:// or https://; it is the webhook, not the stream.")
    sid = account[0] or phone.get("account_sid") or settings.get("TWILIO_ACCOUNT_SID", "")
    token = account[1] or phone.get("auth_token") or settings.get("TWILIO_AUTH_TOKEN", "")
    if not sid or not token:
        raise NoLine("The call must be signed: give --account-sid and --auth-token, or set TWILIO_ACCOUNT_SID and "
                     "TWILIO_AUTH_TOKEN to what the server has.")  # fmt: skip
    if not _ACCOUNT_SID.fullmatch(sid):
        raise NoLine("The account sid must be AC and 32 hexadecimal digits.")
    return Line(voice_url, _number(to, demo, phone), sid, token, str(phone.get("api_url") or ""))


def _number(to: str | None, demo: Mapping[str, Any], phone: Mapping[str, Any]) -> str:
    if not to:
        return str(phone.get("number") or DEFAULT_NUMBER)
    compact = re.sub(r"[\s().-]", "", to)
    if _PHONE_NUMBER.fullmatch(compact):
        return compact
    agents = [agent for agent in demo.get("agents") or [] if isinstance(agent, dict)]
    for agent in agents:
        if to == agent.get("id") or str(agent.get("name", "")).lower().startswith(to.lower()):
            for entry in phone.get("numbers") or []:
                if entry.get("agent_id") == agent.get("id"):
                    return str(entry["number"])
            raise NoLine(f"{agent.get('name')} has no number in the demo.")
    names = ", ".join(str(agent.get("name")) for agent in agents)
    raise NoLine(f"{to!r} is neither a number such as +15005550106 nor an agent of the running demo"
                 + (f": {names}." if names else "."))  # fmt: skip
