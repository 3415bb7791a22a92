"""What a call is to be: who calls whom, what they say, what goes wrong."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from simulator.audio import PCMU, from_pcm24
from simulator.faults import Fault
from simulator.twilio_caller import Action, Caller, polite
from simulator.twilio_ear import read_wav
from simulator.twilio_record import CallRecord, Entry

MakeCaller = Callable[[CallRecord, Sequence[Action], Callable[[], None]], Caller]
"""Makes the person who calls, from the call's record, the script, and what hangs up."""


@dataclass(frozen=True)
class CallPlan:
    """One call; numbers from the 555-01xx range belong to nobody.

    Attributes:
        voice_url: The webhook of the called number, as configured at Twilio: this text is signed.
        twiml: A document to begin with instead of asking `voice_url`.
        wav: What the caller says, as a file: any rate, 16 bit.
        pcm: The same as 24 kHz PCM16, as the Realtime API has it.
        audio: The same as mu-law.
        actions: The caller's script; without one the caller is `polite` with what they have to say, and with nothing
            to say they listen until the application ends the call or `timeout_s` is over.
        account_sid: Owner of the number; empty: the simulator's first account.
        status_callback: Address that hears of the end of the call.
        faults: What goes wrong, besides the simulator's own faults: names, or `Fault` objects.
        call_sid: To use one a second time; empty: a fresh one.
        timeout_s: Then the caller hangs up.
        watch: Is called with every entry of the timeline.
        make_caller: Makes the person who calls; default: one who follows the script.
    """

    to: str = "+15005550106"
    from_: str = "+15005550142"
    voice_url: str = ""
    voice_method: str = "POST"
    twiml: str = ""
    wav: str | Path = ""
    pcm: bytes = field(default=b"", repr=False)
    audio: bytes = field(default=b"", repr=False)
    actions: Sequence[Action] = ()
    account_sid: str = ""
    status_callback: str = ""
    direction: str = "inbound"
    faults: Sequence[str | Fault] = ()
    call_sid: str = ""
    timeout_s: float = 60.0
    watch: Callable[[Entry], None] | None = field(default=None, repr=False)
    make_caller: MakeCaller = field(default=Caller, repr=False)

    def speech(self) -> bytes:
        """Return what the caller says, as mu-law.

        Raises:
            OSError: If the file cannot be read.
            ValueError: If it is no WAV file of 16-bit samples.
        """
        if self.wav:
            return read_wav(self.wav)
        return from_pcm24(self.pcm, PCMU) if self.pcm else self.audio

    def script(self) -> Sequence[Action]:
        """Return the caller's script."""
        speech = self.speech()
        return self.actions or (polite(speech) if speech else ())
