"""The settings table and the frozen Settings read from it.

The table generates docs/configuration.md and is compared with `.env.example`; nothing else reads the environment, and
nothing reads it after the start.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal
from urllib.parse import urlsplit

Kind = Literal["text", "secret", "url", "int", "float", "switch", "list", "choice"]

HTTP = ("http", "https")


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table.

    Attributes:
        name: Environment variable.
        field: Attribute of `Settings`.
        kind: How the text is read; `switch` takes on/off/true/false/1/0/yes/no.
        default: Text used when the variable is unset or empty; None when there is no default.
        help: One line for the reference page.
        aliases: Further names, looked at in order when `name` is unset.
        low, high: Inclusive range of a number.
        choices: Allowed words of a `choice`, allowed schemes of a `url`.
    """

    name: str
    field: str
    kind: Kind
    default: str | None
    help: str
    aliases: tuple[str, ...] = ()
    low: float = 0
    high: float = float("inf")
    choices: tuple[str, ...] = ()


# fmt: off
TABLE: tuple[Setting, ...] = (
    Setting("SUPABASE_URL", "supabase_url", "url", None,
            "Project URL. Set: Supabase signs users in and stores data.", choices=HTTP),
    Setting("SUPABASE_SERVICE_ROLE_KEY", "supabase_service_key", "secret", None,
            "Service key, legacy JWT or sb_secret_….", aliases=("SUPABASE_SECRET_KEY",)),
    Setting("SUPABASE_PUBLISHABLE_KEY", "supabase_publishable_key", "text", None,
            "Publishable (anon) key, which everybody may know. Set: the talk page offers sign-in with e-mail and "
            "password.", aliases=("SUPABASE_ANON_KEY",)),
    Setting("SUPABASE_JWT_SECRET", "supabase_jwt_secret", "secret", None,
            "Only for projects that still sign with HS256 (at least 32 bytes); otherwise the published keys are used."),
    Setting("SUPABASE_JWT_ISSUER", "supabase_jwt_issuer", "text", None,
            "Issuer user tokens must name; default is SUPABASE_URL + /auth/v1."),
    Setting("SUPABASE_JWKS_URL", "supabase_jwks_url", "url", None,
            "Where the signing keys are published; default is the issuer + /.well-known/jwks.json.", choices=HTTP),
    Setting("SUPABASE_JWT_AUDIENCE", "supabase_jwt_audience", "text", "authenticated",
            "Audience user tokens must name."),
    Setting("ALLOW_ANONYMOUS_USERS", "allow_anonymous_users", "switch", "off",
            "Whether users of Supabase's anonymous sign-in may talk."),
    Setting("SESSION_CHECK", "session_check", "choice", "on",
            "Whether Supabase Auth is asked if the sign-in was revoked, the user banned or deleted: "
            "off, on (an outage of Auth lets signed tokens pass) or strict (an outage refuses).",
            choices=("off", "on", "strict")),
    Setting("DATABASE_URL", "database_url", "url", None,
            "PostgreSQL reached directly, or sqlite:///…. With SUPABASE_URL too: sign-in and Vault by Supabase, "
            "data by SQL.", choices=("postgresql", "postgres", "sqlite")),
    Setting("PORT", "port", "int", "8080", "Port of the doors; 0 takes a free one.", high=65535),
    Setting("HEALTH_PORT", "health_port", "int", None, "Port of /health, /ready and /metrics; default is PORT + 1.",
            high=65535),
    Setting("ADMIN_PORT", "admin_port", "int", None,
            "Port of the operator's page /admin, on 127.0.0.1 only; 0 takes a free one. Unset: off in production, else "
            "PORT + 2, or a free one when that is taken.", high=65535),
    Setting("ADMIN_PUBLIC_URL", "admin_public_url", "url", None,
            "Address under which nginx shows the operator's page to others. Set: whoever comes needs the token of a "
            "user with voice_admin in app_metadata instead of the printed key.", choices=HTTP),
    Setting("HOST", "host", "text", "127.0.0.1", "Address to listen on; nginx stands in front."),
    Setting("NODE_ENV", "environment", "choice", "development",
            "production moves logs to /var/log/websocket-voice-server and forbids development tokens and the demo.",
            aliases=("APP_ENV",), choices=("development", "production", "test")),
    Setting("LOG_LEVEL", "log_level", "choice", "info", "Least level that is logged.",
            choices=("trace", "debug", "info", "warning", "error")),
    Setting("LOG_DIR", "log_dir", "text", None, "Folder of combined.log and error.log; default by environment."),
    Setting("LOG_FORMAT", "log_format", "choice", "text", "A line as text, or as one JSON object.",
            choices=("text", "json")),
    Setting("LOG_ROTATION", "log_rotation", "choice", None,
            "Who renames full log files: own (this process) or logrotate, as wherever several processes write to them. "
            "Default own with one process, else logrotate; the shipped units set logrotate.",
            choices=("own", "logrotate")),
    Setting("LOG_CONSOLE", "log_console", "switch", None,
            "Whether log lines also go to standard error, as containers want it; default on but in production."),
    Setting("DEBUG", "debug", "text", None, "Any value: log level debug."),
    Setting("MAX_CONNECTIONS", "max_connections", "int", "1000", "Live sessions of this server, over all workers.",
            low=1, high=100_000),
    Setting("MAX_SESSIONS_PER_USER", "max_sessions_per_user", "int", "5", "Live sessions of one user.", low=1,
            high=100_000),
    Setting("CONNECTION_TIMEOUT", "connection_timeout_ms", "int", "1800000", "Longest session, in ms.", low=1000,
            high=86_400_000),
    Setting("IDLE_TIMEOUT", "idle_timeout_ms", "int", "300000", "Longest time without speech or client events, in ms.",
            low=1000, high=86_400_000),
    Setting("DRAIN_TIMEOUT", "drain_timeout_s", "float", "900", "Seconds a live session may go on after SIGTERM.",
            high=86_400),
    Setting("WORKERS", "workers", "int", "1",
            "Processes that serve as one, about one for each core: limits, counts and tickets hold over all of them.",
            low=1, high=64),
    Setting("WIRE", "wire", "choice", "fast",
            "How WebSocket frames are read: fast, or tornado for Tornado's own receive loop, which needs more CPU.",
            choices=("fast", "tornado")),
    Setting("PHONE_APPEND_MS", "phone_append_ms", "int", "40",
            "Caller's audio sent to the voice service at a time, in ms: Twilio sends 20, joining saves CPU and delays "
            "by at most the rest.", low=20, high=100),
    Setting("ALLOWED_ORIGINS", "allowed_origins", "list", None,
            "Comma-separated origins of web pages that may connect; empty: same origin, and localhost in development."),
    Setting("QUERY_TOKENS", "query_tokens", "switch", "on", "off refuses JWTs in the URL; tickets stay allowed."),
    Setting("OPENAI_REALTIME_URL", "openai_realtime_url", "url", "wss://api.openai.com/v1/realtime",
            "Realtime service, OpenAI's or any that speaks its GA protocol.", choices=("ws", "wss")),
    Setting("OPENAI_MODEL", "openai_model", "text", "gpt-realtime-2.1", "Model when the agent names none."),
    Setting("OPENAI_TRANSCRIPTION_MODEL", "openai_transcription_model", "text", "gpt-transcribe",
            "Model that writes down what users say."),
    Setting("OPENAI_API_KEY", "openai_api_key", "secret", None, "Only without Supabase Vault."),
    Setting("DAILY_BUDGET_USD_PER_USER", "daily_budget_usd", "float", None,
            "A user's cost per UTC day: notice at 80 %, polite end at 100 %."),
    Setting("PUBLIC_URL", "public_url", "url", None,
            "The server's public address; Twilio's signatures are checked against it.",
            choices=("https", "wss", "http", "ws")),
    Setting("TWILIO_ACCOUNT_SID", "twilio_account_sid", "text", None, "Master account."),
    Setting("TWILIO_AUTH_TOKEN", "twilio_auth_token", "secret", None,
            "Master account's token; subaccount tokens are stored with the number or call."),
    Setting("TWILIO_API_URL", "twilio_api_url", "url", "https://api.twilio.com",
            "Address of Twilio's REST API; another one only for tests and the simulator.", choices=HTTP),
    Setting("MAIN_APP_URL", "main_app_url", "url", None, "The app that may be asked for a call's configuration.",
            choices=HTTP),
    Setting("INTERNAL_API_KEY", "internal_api_key", "secret", None,
            "Bearer key between the main app and this server, at least 16 characters."),
    Setting("STATE_DIR", "state_dir", "text", None,
            "Transcript spool and embedded database; default ./data, in production /var/lib/websocket-voice-server."),
    Setting("OTEL_EXPORTER_OTLP_ENDPOINT", "otel_endpoint", "url", None,
            "Collector of OpenTelemetry traces, OTLP over HTTP; needs requirements-otel.txt. Unset: no traces.",
            choices=HTTP),
    Setting("REDIS_URL", "redis_url", "url", None,
            "Redis that several machines share: limits, tickets and resumes hold over all of them.",
            choices=("redis", "rediss")),
)
# fmt: on

_SWITCH = {"on": True, "true": True, "1": True, "yes": True, "off": False, "false": False, "0": False, "no": False}

MIN_HS256_SECRET_BYTES = 32
"""RFC 7518, section 3.2: a key of at least the hash's size; shorter ones open CVE-2026-120459 (empty HMAC key)."""


class SettingsError(Exception):
    """Raised when settings are bad or missing; `problems` names every one of them."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Settings:
    """Everything the environment says, read once. Secrets are masked in its repr."""

    supabase_url: str | None
    supabase_service_key: str | None
    supabase_publishable_key: str | None
    supabase_jwt_secret: str | None
    supabase_jwt_issuer: str | None
    supabase_jwks_url: str | None
    supabase_jwt_audience: str
    allow_anonymous_users: bool
    session_check: str
    database_url: str | None
    port: int
    health_port: int
    admin_port: int | None
    admin_public_url: str | None
    host: str
    environment: str
    log_level: str
    log_dir: str
    log_format: str
    log_rotation: str
    log_console: bool
    debug: str | None
    max_connections: int
    max_sessions_per_user: int
    connection_timeout_ms: int
    idle_timeout_ms: int
    drain_timeout_s: float
    workers: int
    wire: str
    phone_append_ms: int
    allowed_origins: tuple[str, ...]
    query_tokens: bool
    openai_realtime_url: str
    openai_model: str
    openai_transcription_model: str
    openai_api_key: str | None
    daily_budget_usd: float | None
    public_url: str | None
    twilio_account_sid: str | None
    twilio_auth_token: str | None
    twilio_api_url: str
    main_app_url: str | None
    internal_api_key: str | None
    state_dir: str
    otel_endpoint: str | None
    redis_url: str | None

    @property
    def is_production(self) -> bool:
        """True when development tokens and the demo are forbidden."""
        return self.environment == "production"

    def __repr__(self) -> str:
        secret = {row.field for row in TABLE if row.kind == "secret"} | {"database_url", "redis_url"}
        shown = (
            f"{f.name}={'…' if f.name in secret and getattr(self, f.name) else repr(getattr(self, f.name))}"
            for f in fields(self)
        )
        return f"Settings({', '.join(shown)})"


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Return the settings an environment holds.

    Args:
        environ: Variables by name; unset and empty are the same.

    Raises:
        SettingsError: Naming every bad or missing setting at once.
    """
    problems: list[str] = []
    bad: list[str] = []
    values: dict[str, Any] = {}
    for row in TABLE:
        text = next((environ[name].strip() for name in (row.name, *row.aliases) if environ.get(name, "").strip()), None)
        try:
            values[row.field] = _read(row, text if text is not None else row.default)
        except ValueError as error:
            problems.append(f"{row.name} {error}")
            bad.append(row.name)
            values[row.field] = _read(row, row.default)
    values |= _derived(values)
    problems += [text for text in _contradictions(values) if not any(name in text for name in bad)]
    if problems:
        raise SettingsError(problems)
    return Settings(**values)


def _read(row: Setting, text: str | None) -> Any:
    if text is None:
        return () if row.kind == "list" else None
    match row.kind:
        case "int" | "float":
            return _number(row, text)
        case "switch":
            if text.lower() not in _SWITCH:
                raise ValueError("must be on or off")
            return _SWITCH[text.lower()]
        case "choice":
            word = "warning" if text.lower() == "warn" else text.lower()
            if word not in row.choices:
                raise ValueError(f"must be one of {', '.join(row.choices)}")
            return word
        case "list":
            return tuple(part.strip().rstrip("/") for part in text.split(",") if part.strip())
        case "url":
            return _url(row, text)
        case _:
            return text


def _number(row: Setting, text: str) -> float:
    try:
        number = int(text) if row.kind == "int" else float(text)
    except ValueError:
        raise ValueError("must be a whole number" if row.kind == "int" else "must be a number") from None
    if not row.low <= number <= row.high:  # also refuses NaN
        raise ValueError(f"must be between {row.low:g} and {row.high:g}")
    return number


def _url(row: Setting, text: str) -> str:
    try:
        parts = urlsplit(text)
        scheme = parts.scheme.split("+")[0]
        complete = bool(parts.netloc) or scheme == "sqlite"
    except ValueError:
        scheme, complete = "", False
    if scheme not in row.choices or not complete:
        raise ValueError(f"must be an address beginning with {' or '.join(s + '://' for s in row.choices)}")
    return text.rstrip("/") if scheme in HTTP else text


def _derived(values: Mapping[str, Any]) -> dict[str, Any]:
    """Fill the defaults that depend on other settings."""
    production = values["environment"] == "production"
    issuer = values["supabase_jwt_issuer"] or (f"{values['supabase_url']}/auth/v1" if values["supabase_url"] else None)
    port = values["port"]
    return {
        "supabase_jwt_issuer": issuer,
        "supabase_jwks_url": values["supabase_jwks_url"] or (f"{issuer}/.well-known/jwks.json" if issuer else None),
        "health_port": values["health_port"] if values["health_port"] is not None else (port + 1 if port else 0),
        "log_dir": values["log_dir"] or ("/var/log/websocket-voice-server" if production else "./logs"),
        "log_rotation": values["log_rotation"] or ("own" if values["workers"] == 1 else "logrotate"),
        "log_console": not production if values["log_console"] is None else values["log_console"],
        "log_level": "debug" if values["debug"] else values["log_level"],
        "state_dir": values["state_dir"] or ("/var/lib/websocket-voice-server" if production else "./data"),
    }


def _contradictions(values: Mapping[str, Any]) -> list[str]:
    """Name every combination that cannot work."""
    problems = []
    if not values["supabase_url"] and not values["database_url"]:
        problems.append("SUPABASE_URL or DATABASE_URL must be set: one of them holds agents and conversations")
    if values["supabase_url"] and not values["supabase_service_key"]:
        problems.append("SUPABASE_SERVICE_ROLE_KEY is missing: SUPABASE_URL needs it")
    if _key_role(values["supabase_service_key"]) == "anon":
        problems.append("SUPABASE_SERVICE_ROLE_KEY is a publishable key: with it every table would look empty")
    if _key_role(values["supabase_publishable_key"]) == "service_role":
        problems.append("SUPABASE_PUBLISHABLE_KEY is a secret key: the talk page would show it to everybody")
    if not values["supabase_url"] and not values["openai_api_key"]:
        problems.append("OPENAI_API_KEY is missing: without SUPABASE_URL there is no Vault to read it from")
    if values["environment"] == "production" and not values["supabase_url"] and not values["supabase_jwt_secret"]:
        problems.append("SUPABASE_URL or SUPABASE_JWT_SECRET must be set in production: nothing else can sign users in")
    if values["log_rotation"] == "own" and values["workers"] > 1:
        problems.append("LOG_ROTATION must be logrotate with several WORKERS: each would compress what others write to")
    secret = values["supabase_jwt_secret"]
    if secret and len(secret.encode()) < MIN_HS256_SECRET_BYTES:
        problems.append(f"SUPABASE_JWT_SECRET must have at least {MIN_HS256_SECRET_BYTES} bytes")
    if values["internal_api_key"] and len(values["internal_api_key"]) < 16:
        problems.append("INTERNAL_API_KEY must have at least 16 characters")
    if values["health_port"] and values["health_port"] == values["port"]:
        problems.append("HEALTH_PORT must differ from PORT")
    if values["admin_port"] and values["admin_port"] in {values["port"], values["health_port"]}:
        problems.append("ADMIN_PORT must differ from PORT and HEALTH_PORT")
    if values["health_port"] > 65535:
        problems.append("HEALTH_PORT is missing: PORT + 1 is no port")
    return problems


def _key_role(key: str | None) -> str | None:
    """Return the database role a Supabase API key speaks for; None when it does not show.

    Source: Supabase, "Understanding API keys": new keys tell by their beginning, legacy ones are tokens with a `role`.
    """
    if not key:
        return None
    if key.startswith(("sb_publishable_", "sb_secret_")):
        return "anon" if key.startswith("sb_publishable_") else "service_role"
    payload = key.split(".")[1] if key.count(".") == 2 else ""
    try:
        role = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["role"]
    except (ValueError, KeyError, TypeError):
        return None
    return role if isinstance(role, str) else None
