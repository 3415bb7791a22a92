"""The demo user and the demo agents."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def demo_dir() -> Path:
    """Return the folder of the demo's database, transcripts and signing secret; STATE_DIR moves it."""
    return Path(os.environ.get("STATE_DIR") or "data") / "demo"


DEMO_FILE = "demo.json"


def running_demo() -> Mapping[str, Any]:
    """Return what the running demo left word of: the object of `./voice demo --json`; empty when none runs."""
    try:
        facts = json.loads((demo_dir() / DEMO_FILE).read_text(encoding="utf-8"))
        os.kill(facts["pid"], 0)  # signal 0 asks whether the process is there
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return {}
    return facts if isinstance(facts, dict) else {}


DEMO_USER_ID = "00000000-0000-4000-8000-000000000001"

RECEPTIONIST_ID = "00000000-0000-4000-8000-0000000000a1"
TUTOR_ID = "00000000-0000-4000-8000-0000000000a2"
ASSISTANT_ID = "00000000-0000-4000-8000-0000000000a3"

DEMO_AGENTS: tuple[dict[str, Any], ...] = (
    {
        "id": RECEPTIONIST_ID,
        "user_id": DEMO_USER_ID,
        "name": "Rosa, receptionist",
        "instructions": (
            "You are Rosa, the receptionist of the Harbour Street dental practice. You are calm and warm, you answer "
            "in one or two sentences, and you offer to take a message when you do not know something. The practice is "
            "open Monday to Friday from eight to six."
        ),
        "greeting": "Harbour Street dental practice, this is Rosa. How can I help you?",
        "voice": "marin",
        "personality": "calm, warm, attentive",
        "language": "en",
        "tools": [{"builtin": "end_call"}],
    },
    {
        "id": TUTOR_ID,
        "user_id": DEMO_USER_ID,
        "name": "Tom, language tutor",
        "instructions": (
            "You are Tom, a patient tutor of English. Speak slowly and simply, praise what was good, correct one "
            "mistake at a time, and end each answer with a short question."
        ),
        "voice": "cedar",
        "personality": "patient, cheerful",
        "accent": "British",
        "speed": 0.9,
        "language": "en",
    },
    {
        "id": ASSISTANT_ID,
        "user_id": DEMO_USER_ID,
        "name": "Ada, assistant with tools",
        "instructions": "You are Ada, a quick and precise assistant. Use your tools whenever they help.",
        "voice": "sage",
        "personality": "quick, precise",
        "language": "en",
        "tools": [{"builtin": "current_time"}, {"builtin": "search_knowledge"}, {"builtin": "end_call"}],
        "knowledge": [{"vector_store_id": "vs_demo", "name": "Practice handbook", "description": "prices and hours"}],
    },
)
