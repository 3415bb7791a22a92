"""The server asks the doctor with its own settings."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from core.settings import Settings, read_settings
from services import doctor as doctor_service
from services.doctor import Doctor


def settings(tmp_path: Path) -> Settings:
    return read_settings({
        "DATABASE_URL": f"sqlite:///{tmp_path}/voice.db", "OPENAI_API_KEY": "sk-of-a-test", "STATE_DIR": str(tmp_path),
        "LOG_DIR": str(tmp_path), "PORT": "1", "OPENAI_REALTIME_URL": "ws://127.0.0.1:9/v1/realtime",
        "ALLOWED_ORIGINS": "https://a.example,https://b.example", "QUERY_TOKENS": "off",
    })  # fmt: skip


def test_doctor_looks_at_the_servers_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The findings are of this server's settings, not of the environment's, and are kept for a while."""
    monkeypatch.setenv("DATABASE_URL", "nonsense")

    async def asked() -> None:
        doctor = Doctor(settings(tmp_path))
        found = await doctor.findings()
        told = {check["name"]: check for check in found["checks"]}
        assert told["settings"]["state"] == "ok" and str(tmp_path) in told["folders"]["text"]
        assert "sk-of-a-test" not in str(found)
        assert await doctor.findings() is found

    asyncio.run(asked())


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("DEADLINE_S", 0.01, "took longer"),
        ("ROOT", Path("/nowhere"), "could not be started"),
        ("ROOT", Path("/"), "no answer"),
    ],
)
def test_doctor_that_cannot_be_asked_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: object, words: str
) -> None:
    """Whatever goes wrong, there is an answer that says so."""
    monkeypatch.setattr(doctor_service, name, value)
    found = asyncio.run(Doctor(settings(tmp_path)).findings())
    assert found["ok"] is False and found["checks"] == [] and words in found["problem"]
