"""The environment is read once, and every problem is named at once."""

from __future__ import annotations

import base64
import json
from dataclasses import fields
from typing import Any

import pytest

from core.settings import TABLE, Settings, SettingsError, read_settings

HOSTED = {"SUPABASE_URL": "https://x.supabase.co", "SUPABASE_SERVICE_ROLE_KEY": "sb_secret_x"}
OWN = {"DATABASE_URL": "sqlite:///x.db", "OPENAI_API_KEY": "sk-x"}


def legacy_key(role: object) -> str:
    """Return a key of the older kind, a token that names its role."""
    return f"h.{base64.urlsafe_b64encode(json.dumps({'role': role}).encode()).decode().rstrip('=')}.s"


def problems(**environ: str) -> list[str]:
    """Return what is wrong with an environment."""
    with pytest.raises(SettingsError) as refused:
        read_settings(environ)
    assert str(refused.value) == "; ".join(refused.value.problems)
    return refused.value.problems


@pytest.mark.parametrize(
    ("given", "shown"),
    [({}, True), ({"LOG_CONSOLE": "off"}, False), ({"NODE_ENV": "production", **HOSTED}, False),
     ({"NODE_ENV": "production", "LOG_CONSOLE": "on", **HOSTED}, True)],
)  # fmt: skip
def test_console_has_the_log_in_development_and_where_it_is_asked_for(given: dict[str, str], shown: bool) -> None:
    """Production writes files alone, unless LOG_CONSOLE says otherwise, as containers want it."""
    assert read_settings({**OWN, **given}).log_console is shown


def test_the_table_and_the_record_are_one() -> None:
    """Every row fills one field and every field has a row, with a line of help; no name is there twice."""
    assert {row.field for row in TABLE} == {field.name for field in fields(Settings)}
    assert all(row.help.endswith(".") for row in TABLE)
    names = [name for row in TABLE for name in (row.name, *row.aliases)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", 8080),
        ("health_port", 8081),
        ("host", "127.0.0.1"),
        ("environment", "development"),
        ("is_production", False),
        ("log_level", "info"),
        ("log_dir", "./logs"),
        ("max_connections", 1000),
        ("max_sessions_per_user", 5),
        ("connection_timeout_ms", 1_800_000),
        ("idle_timeout_ms", 300_000),
        ("drain_timeout_s", 900.0),
        ("workers", 1),
        ("allowed_origins", ()),
        ("query_tokens", True),
        ("openai_realtime_url", "wss://api.openai.com/v1/realtime"),
        ("openai_model", "gpt-realtime-2.1"),
        ("openai_transcription_model", "gpt-transcribe"),
        ("daily_budget_usd", None),
        ("state_dir", "./data"),
        ("supabase_jwt_issuer", "https://x.supabase.co/auth/v1"),
        ("supabase_jwks_url", "https://x.supabase.co/auth/v1/.well-known/jwks.json"),
    ],
)
def test_the_defaults_of_the_contract(name: str, value: Any) -> None:
    """Contract, section 5, with a hosted project and nothing else set."""
    assert getattr(read_settings(HOSTED), name) == value


def test_production_keeps_its_files_where_systems_do() -> None:
    """Logs and state move when the environment says production."""
    settings = read_settings({**HOSTED, "NODE_ENV": "Production"})
    assert settings.is_production
    assert settings.log_dir == "/var/log/websocket-voice-server"
    assert settings.state_dir == "/var/lib/websocket-voice-server"
    assert read_settings({**HOSTED, "APP_ENV": "production", "NODE_ENV": " "}).is_production


def test_aliases_stand_in_for_unset_names() -> None:
    """The second name is looked at when the first is unset or empty."""
    environ = {"SUPABASE_URL": HOSTED["SUPABASE_URL"], "SUPABASE_SECRET_KEY": "second"}
    assert read_settings(environ).supabase_service_key == "second"
    assert read_settings({**environ, "SUPABASE_SERVICE_ROLE_KEY": "first"}).supabase_service_key == "first"


def test_a_server_without_supabase() -> None:
    """A database and a key of one's own are enough; there is no issuer then."""
    settings = read_settings(OWN)
    assert settings.supabase_jwt_issuer is None
    assert settings.supabase_jwks_url is None


def test_values_are_read_by_their_kind() -> None:
    """Numbers, switches, lists, words and addresses; spaces around them do not matter."""
    settings = read_settings(
        HOSTED
        | {
            "PORT": " 0 ",
            "QUERY_TOKENS": "Off",
            "ALLOWED_ORIGINS": "https://a.example/, ,https://b.example",
            "LOG_LEVEL": "WARN",
            "DRAIN_TIMEOUT": "0.5",
            "MAIN_APP_URL": "https://app.example/",
            "REDIS_URL": "rediss://r/0",
            "DAILY_BUDGET_USD_PER_USER": "2.5",
        }
    )
    assert (settings.port, settings.health_port) == (0, 0)
    assert settings.query_tokens is False
    assert settings.allowed_origins == ("https://a.example", "https://b.example")
    assert settings.log_level == "warning"
    assert settings.drain_timeout_s == 0.5
    assert settings.main_app_url == "https://app.example"
    assert settings.daily_budget_usd == 2.5


def test_debug_means_the_debug_level() -> None:
    """Any value of DEBUG wins over LOG_LEVEL."""
    assert read_settings({**HOSTED, "DEBUG": "*", "LOG_LEVEL": "error"}).log_level == "debug"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("PORT", "http"),
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("PORT", "80.5"),
        ("MAX_CONNECTIONS", "0"),
        ("DRAIN_TIMEOUT", "nan"),
        ("DRAIN_TIMEOUT", "soon"),
        ("QUERY_TOKENS", "maybe"),
        ("NODE_ENV", "prod"),
        ("OPENAI_REALTIME_URL", "https://api.openai.com"),
        ("OPENAI_REALTIME_URL", "wss:///v1"),
        ("MAIN_APP_URL", "app.example"),
        ("MAIN_APP_URL", "http://[::1"),
        ("DATABASE_URL", "mysql://x/y"),
        ("INTERNAL_API_KEY", "short"),
        ("SUPABASE_JWT_SECRET", "short"),
    ],
)
def test_a_bad_setting_stops_the_start(name: str, text: str) -> None:
    """It is named, once, without its value."""
    [problem] = problems(**{**HOSTED, name: text})
    assert problem.startswith(name)
    assert text not in problem.removeprefix(name).split()


@pytest.mark.parametrize("url", ["postgresql+asyncpg://u:p@h/d", "postgres://h/d", "sqlite:////var/x.db"])
def test_database_addresses(url: str) -> None:
    """Drivers may be named in the scheme; SQLite needs no host."""
    assert read_settings({**OWN, "DATABASE_URL": url}).database_url == url


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({}, "SUPABASE_URL or DATABASE_URL"),
        ({"SUPABASE_URL": "https://x.supabase.co"}, "SUPABASE_SERVICE_ROLE_KEY"),
        ({"DATABASE_URL": "sqlite:///x.db"}, "OPENAI_API_KEY"),
        ({**OWN, "NODE_ENV": "production"}, "SUPABASE_JWT_SECRET"),
        ({**HOSTED, "HEALTH_PORT": "8080"}, "HEALTH_PORT"),
        ({**HOSTED, "ADMIN_PORT": "8081"}, "ADMIN_PORT"),
        ({**HOSTED, "WORKERS": "2", "LOG_ROTATION": "own"}, "LOG_ROTATION"),
        ({**HOSTED, "SUPABASE_SERVICE_ROLE_KEY": "sb_publishable_x"}, "SUPABASE_SERVICE_ROLE_KEY"),
        ({**HOSTED, "SUPABASE_SERVICE_ROLE_KEY": legacy_key("anon")}, "SUPABASE_SERVICE_ROLE_KEY"),
        ({**HOSTED, "SUPABASE_PUBLISHABLE_KEY": "sb_secret_x"}, "SUPABASE_PUBLISHABLE_KEY"),
        ({**HOSTED, "SUPABASE_ANON_KEY": legacy_key("service_role")}, "SUPABASE_PUBLISHABLE_KEY"),
        ({**HOSTED, "PORT": "65535"}, "HEALTH_PORT"),
    ],
)
def test_combinations_that_cannot_work_are_named(environ: dict[str, str], named: str) -> None:
    """What is missing for the rest to work is said before anybody connects."""
    assert any(named in problem for problem in problems(**environ))


@pytest.mark.parametrize(
    "key", ["sb_secret_x", legacy_key("service_role"), legacy_key(5), "a.b.c", "a.W10.c", "opaque", "a.e30.c"]
)
def test_a_service_key_of_any_kind_is_taken(key: str) -> None:
    """Only a key that plainly says it is the wrong one is refused."""
    assert read_settings({**HOSTED, "SUPABASE_SERVICE_ROLE_KEY": key}).supabase_service_key == key


def test_all_problems_are_named_at_once() -> None:
    """Bad values and missing settings are in one list; what is bad is not called missing too."""
    found = problems(PORT="x", QUERY_TOKENS="?", NODE_ENV="production", INTERNAL_API_KEY="short")
    assert [problem.split()[0] for problem in found] == [
        "PORT",
        "QUERY_TOKENS",
        "SUPABASE_URL",
        "OPENAI_API_KEY",
        "SUPABASE_URL",
        "INTERNAL_API_KEY",
    ]
    [only] = problems(SUPABASE_URL="x.supabase.co", SUPABASE_SERVICE_ROLE_KEY="k")
    assert only.startswith("SUPABASE_URL must be an address")


def test_secrets_are_masked() -> None:
    """No secret, and no address that may hold a password, is in the repr; what is unset is seen to be."""
    environ = {row.name: "s3cret-s3cret-s3cret-s3cret-s3cret" for row in TABLE if row.kind == "secret"}
    environ |= {"DATABASE_URL": "postgresql://u:s3cret@h/d", "REDIS_URL": "redis://:s3cret@h", "HOST": "::1"}
    shown = repr(read_settings({**HOSTED, **environ}))
    assert "s3cret" not in shown
    assert "host='::1'" in shown
    assert "openai_api_key=None" in repr(read_settings(HOSTED))
