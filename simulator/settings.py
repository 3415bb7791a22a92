"""How a simulator behaves: one frozen record, filled by a test, by the demonstration or from the command line."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from simulator.faults import Fault

# Models of the Realtime API that answer on 2026-11-20; those before the gap are announced to end on 2027-01-20.
CURRENT_MODELS = ("gpt-realtime-2.1", "gpt-realtime-2.1-mini", "gpt-realtime-2", "gpt-realtime-1.5")
ENDING_MODELS = ("gpt-realtime", "gpt-realtime-2025-08-28", "gpt-realtime-mini", "gpt-realtime-mini-2025-12-15")
ENDING_ON = "2027-01-20"

DEMO_FACTS = (
    ("opening-hours.md", "Open Monday to Friday from nine to six, on Saturday from ten to two. Never on Sunday."),
    ("returns.md", "Goods can be returned within thirty days with the receipt. Refunds take five working days."),
    ("shipping.md", "Shipping inside the country is free from forty euros and takes two to three days."),
    ("contact.md", "A person answers the telephone on weekdays from nine to five. Mail is answered within one day."),
    ("parking.md", "There is free parking behind the building, and the tram stop Market Square is two minutes away."),
)


@dataclass(frozen=True)
class SimulatorSettings:
    """Everything that can be chosen; the defaults are a believable service.

    Attributes:
        speed: Audio is sent so many times faster than it plays; 0 sends as fast as it can.
        think_s: Silence between a response and its first output.
        slow_s: The same, for the script rule "test slow".
        transcripts: What a recogniser would say of each utterance of a session, in order; later ones have none.
        transcription_delay_s: From commit to the transcription events; independent of responses.
        keys: Accepted API keys; empty accepts any key that does not begin with `sk-invalid`.
        models: Names accepted in `?model=`.
        session_limit_s: Life of a session; the service ends it after 60 minutes.
        idle_timeout_scale: Multiplies `idle_timeout_ms`, whose smallest legal value (5 s) is long for a test.
        ping_interval_s: Between server pings; 20.3 s were measured.
        echo_event_ids: Repeat the client's `event_id` in every error. The service does so only for some errors
            (seen: empty commit, colliding responses), and so does the default.
        clips_only: Do not look for espeak-ng.
        facts: (file name, text) pairs of every vector store.
        faults: What goes wrong in every session.
    """

    speed: float = 4.0
    think_s: float = 0.05
    slow_s: float = 6.0
    transcripts: Sequence[str] = ()
    transcription_delay_s: float = 0.15
    keys: Sequence[str] = ()
    models: Sequence[str] = CURRENT_MODELS + ENDING_MODELS
    session_limit_s: float = 3_600.0
    idle_timeout_scale: float = 1.0
    ping_interval_s: float = 20.0
    echo_event_ids: bool = False
    clips_only: bool = False
    facts: Sequence[tuple[str, str]] = DEMO_FACTS
    faults: Sequence[Fault] = ()

    def accepts_key(self, key: str) -> bool:
        """Return whether a connection with this key is let in."""
        if not key or key.startswith("sk-invalid"):
            return False
        return not self.keys or key in self.keys


def model_list(settings: SimulatorSettings) -> list[Mapping[str, object]]:
    """Return the entries of `GET /v1/models`."""
    return [
        {
            "id": name,
            "object": "model",
            "created": 1_756_252_800,  # 2025-08-27, one day before the GA release; nothing depends on it
            "owned_by": "openai",
            "shutdown_date": ENDING_ON if name in ENDING_MODELS else None,
        }
        for name in settings.models
    ]
