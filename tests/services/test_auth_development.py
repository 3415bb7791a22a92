"""The development secret on disk."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.auth import load_development_secret, mint_development_token
from services.auth.development import SECRET_FILE


def test_secret_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    """The first use makes folder and file, mode 0600; later uses read the same secret."""
    folder = tmp_path / "state" / "deeper"
    secret = load_development_secret(folder)
    assert len(secret) >= 32
    assert load_development_secret(str(folder)) == secret
    assert stat.S_IMODE((folder / SECRET_FILE).stat().st_mode) == 0o600
    assert [path.name for path in folder.iterdir()] == [SECRET_FILE]


def test_two_machines_have_two_secrets(tmp_path: Path) -> None:
    """Secrets are random."""
    assert load_development_secret(tmp_path / "a") != load_development_secret(tmp_path / "b")


def test_file_that_others_may_read_is_closed(tmp_path: Path) -> None:
    """A secret copied with open rights loses them."""
    secret = load_development_secret(tmp_path)
    (tmp_path / SECRET_FILE).chmod(0o644)
    assert load_development_secret(tmp_path) == secret
    assert stat.S_IMODE((tmp_path / SECRET_FILE).stat().st_mode) == 0o600


def test_emptied_file_is_not_taken_for_a_secret(tmp_path: Path) -> None:
    """A file that holds nothing stops the start, saying what to do."""
    (tmp_path / SECRET_FILE).write_text("\n")
    with pytest.raises(ValueError, match="delete it"):
        load_development_secret(tmp_path)


def test_workers_that_start_together_agree(tmp_path: Path) -> None:
    """Whoever is first makes the secret; all others get that one."""
    with ThreadPoolExecutor(8) as pool:
        secrets = set(pool.map(lambda _: load_development_secret(tmp_path), range(64)))
    assert len(secrets) == 1


def test_user_of_a_development_token_is_a_uuid() -> None:
    """A token for something else than a UUID is not made, nor one with a short secret."""
    with pytest.raises(ValueError, match="UUID"):
        mint_development_token("x" * 32, "me", ttl_s=60, now=0)
    with pytest.raises(ValueError, match="32 bytes"):
        mint_development_token("short", "5f0c1c1e-8f5e-4d0a-9a55-0123456789ab", ttl_s=60, now=0)
