"""The commands work with the settings the server on this machine would start with."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli import environment as environment_module
from cli.environment import environment, installed, is_production


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """Return a folder of settings like the one `deploy/install.sh` makes."""
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "environment").write_text("# settings\nSUPABASE_URL=https://p.supabase.co\nOPENAI_MODEL=${HOME}\n")
    (folder / "supabase-service-role-key").write_text("sb_secret_canary\n")
    (folder / "openai-api-key").write_text("")
    (folder / "install.conf").write_text("DOMAIN=x\n")
    return folder


def test_settings_of_the_service_are_read_as_systemd_does(settings: Path) -> None:
    """Variables are taken literally, secrets come from their files, empty files and other files set nothing."""
    found = installed(settings)
    assert found == {"NODE_ENV": "production", "SUPABASE_URL": "https://p.supabase.co", "OPENAI_MODEL": "${HOME}",
                     "SUPABASE_SERVICE_ROLE_KEY": "sb_secret_canary"}  # fmt: skip


def test_no_service_has_no_settings(tmp_path: Path) -> None:
    """Without the folder, and with one that may not be looked into, there is nothing."""
    assert installed(tmp_path / "none") == {}
    (tmp_path / "environment").mkdir()  # stands for what cannot be read as a file
    assert installed(tmp_path) == {}


def test_own_file_goes_before_the_service(
    settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkout with a .env works with that alone; the process's variables go before both."""
    monkeypatch.setattr(environment_module, "INSTALLED_SETTINGS", settings)
    monkeypatch.setattr(environment_module, "DOTENV", tmp_path / ".env")
    monkeypatch.delenv("NODE_ENV", raising=False)
    monkeypatch.setenv("SUPABASE_URL", "https://own.supabase.co")
    found = environment()
    assert (found["SUPABASE_URL"], is_production(found)) == ("https://own.supabase.co", True)
    (tmp_path / ".env").write_text("PORT=1\nSUPABASE_URL=https://file.supabase.co\n")
    found = environment()
    assert (found["SUPABASE_URL"], found["PORT"], is_production(found)) == ("https://own.supabase.co", "1", False)
