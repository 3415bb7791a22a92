"""The two API keys of a Supabase project: told apart by what they are, since the names are easily mixed up."""

from __future__ import annotations

import base64
import json

import pytest

from core.settings import SettingsError, read_settings

URL = "https://project.supabase.co"
SECRET = "sb_secret_0123456789abcdef"
PUBLISHABLE = "sb_publishable_0123456789abcdef"


def legacy(payload: object) -> str:
    """Return a key of the older form: a token whose payload names the role."""
    return f"eyJhbGciOiJIUzI1NiJ9.{base64.urlsafe_b64encode(json.dumps(payload).encode()).decode().rstrip('=')}.c2ln"


def problems(service_key: str, publishable_key: str = "") -> list[str]:
    """Return what is wrong with settings that hold these keys."""
    environment = {"SUPABASE_URL": URL, "SUPABASE_SECRET_KEY": service_key, "SUPABASE_ANON_KEY": publishable_key}
    try:
        read_settings(environment)
    except SettingsError as error:
        return error.problems
    return []


@pytest.mark.parametrize("service_key", [SECRET, legacy({"role": "service_role"})])
@pytest.mark.parametrize("publishable_key", ["", PUBLISHABLE, legacy({"role": "anon"})])
def test_keys_in_their_places_are_fine(service_key: str, publishable_key: str) -> None:
    """Both forms of both keys are taken, under their older names too."""
    assert problems(service_key, publishable_key) == []


@pytest.mark.parametrize("key", [PUBLISHABLE, legacy({"role": "anon"})])
def test_publishable_key_is_no_service_key(key: str) -> None:
    """With it row level security would hide everything from the server, and nothing would say why."""
    (problem,) = problems(key)
    assert "SUPABASE_SERVICE_ROLE_KEY is a publishable key" in problem


@pytest.mark.parametrize("key", [SECRET, legacy({"role": "service_role"})])
def test_secret_key_is_not_shown_to_everybody(key: str) -> None:
    """The talk page hands the publishable key to every visitor; a secret one in its place stops the start."""
    (problem,) = problems(SECRET, key)
    assert "SUPABASE_PUBLISHABLE_KEY is a secret key" in problem
    assert key not in problem


@pytest.mark.parametrize(
    "key", ["opaque", "a.b.c", "a.!!!.c", legacy(["role"]), legacy({"role": 7}), legacy({"sub": "x"}), "a.ü.c"]
)
def test_key_of_another_shape_is_left_to_the_project(key: str) -> None:
    """Self-hosted projects may have keys of their own making."""
    assert problems(key, key) == []
