"""Reading the fields of an event whose sender may leave any of them out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.realtime import Event

OWN = "gw_"
"""Prefix of the ids of events and items this server makes; `core.policy` keeps clients from using it."""


def text_of(holder: Mapping[str, Any], key: str) -> str:
    """Return a text field, or an empty text when it is missing or something else."""
    value = holder.get(key)
    return value if isinstance(value, str) else ""


def object_of(holder: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return an inner object, or an empty one when it is missing or something else."""
    value = holder.get(key)
    return value if isinstance(value, dict) else {}


def is_own(item: Mapping[str, Any]) -> bool:
    """True for items no client sees: ours, the system's, and everything about tools."""
    return text_of(item, "id").startswith(OWN) or item.get("type") != "message" or item.get("role") == "system"


def typed_text(item: Event) -> str:
    """Return the text of a typed message; empty for a spoken one."""
    parts = item.get("content")
    if not isinstance(parts, list):
        return ""
    return "\n".join(
        text_of(part, "text") for part in parts if isinstance(part, dict) and part.get("type") == "input_text"
    )
