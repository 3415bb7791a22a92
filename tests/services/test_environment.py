"""Where settings come from, and which wins."""

from __future__ import annotations

from pathlib import Path

from services.environment import effective_environment


def test_credentials_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    """Each source hides the one before, but an empty credential hides nothing."""
    (tmp_path / ".env").write_text("PORT=1\nHOST=file\nLOG_LEVEL=debug\nBARE\n")
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / "supabase-service-role-key").write_text("from the unit\n")
    (folder / "host").write_text("\n")
    environ = {"PORT": "2", "CREDENTIALS_DIRECTORY": str(folder), "SUPABASE_SERVICE_ROLE_KEY": "from the shell"}
    found = effective_environment(tmp_path / ".env", environ)
    assert (found["PORT"], found["HOST"], found["LOG_LEVEL"]) == ("2", "file", "debug")
    assert found["SUPABASE_SERVICE_ROLE_KEY"] == "from the unit" and "BARE" not in found


def test_nothing_but_the_environment_is_needed(tmp_path: Path) -> None:
    """Without `.env` and credentials the process's own variables are all."""
    assert effective_environment(tmp_path / ".env", {"PORT": "3"}) == {"PORT": "3"}
