"""The simulator's voice: text to 24 kHz PCM, by espeak-ng when it is installed, else from shipped clips.

espeak-ng runs as a child process (its GPL stays apart). A 4 s sentence takes about 7 ms; resampling it takes longer, so
that runs in a thread and the last sentences are kept.
"""
from __future__ import annotations

import asyncio
import io
import shutil
import wave
from asyncio.subprocess import DEVNULL, PIPE
from collections import OrderedDict

from simulator.audio import PCM_RATE_HZ, bytes_of, resample, samples_of
from simulator.clips.speak import clip_speech

# Generous: measured 7 ms for 4 s of speech; beyond this the machine is in trouble and clips are quicker.
ESPEAK_TIMEOUT_S = 5.0
# Words a minute at speed 1.0 (espeak-ng's own default).
ESPEAK_WORDS_PER_MINUTE = 175
# A small machine answers sooner when few sentences are made at once.
ESPEAK_PROCESSES = 4
CACHED_BYTES = 16 * 1024 * 1024
# Longest text spoken in one breath; a longer one is cut, so that one answer costs at most some minutes of sound.
MAX_TEXT = 2_000

# Each of the ten built-in names sounds different: espeak-ng variant and pitch (0-99).
_ESPEAK_VOICES = {
    "alloy": ("f2", 45), "ash": ("m3", 40), "ballad": ("m1", 50), "coral": ("f3", 60), "echo": ("m7", 45),
    "sage": ("f4", 45), "shimmer": ("f2", 65), "verse": ("m2", 50), "marin": ("f3", 50), "cedar": ("m3", 30),
}


class Voice:
    """Speaks text. Safe to share between sessions of one event loop."""

    def __init__(self, espeak: str | None = None, *, clips_only: bool = False) -> None:
        """Find espeak-ng on PATH unless its path is given; with `clips_only` do not look."""
        self._espeak = None if clips_only else espeak or shutil.which("espeak-ng")
        self._cache: OrderedDict[tuple[str, str, float], bytes] = OrderedDict()
        self._cached_bytes = 0
        self._making: dict[tuple[str, str, float], asyncio.Task[bytes]] = {}
        self._turnstile = asyncio.Semaphore(ESPEAK_PROCESSES)

    @property
    def engine(self) -> str:
        """`espeak-ng` or `clips`."""
        return "espeak-ng" if self._espeak else "clips"

    async def say(self, text: str, voice: str = "alloy", speed: float = 1.0) -> bytes:
        """Return 24 kHz PCM of the text spoken; empty for text without a sayable character."""
        text = text[:MAX_TEXT]
        key = (text, voice, speed)
        pcm = self._cache.get(key)
        if pcm is not None:
            self._cache.move_to_end(key)
            return pcm
        making = self._making.get(key)
        if making is None:  # sessions that say the same at the same time wait for one result
            making = asyncio.get_running_loop().create_task(self._make_and_keep(text, voice, speed), name="speech")
            self._making[key] = making
            making.add_done_callback(lambda _: self._making.pop(key, None))
        return await asyncio.shield(making)

    async def close(self) -> None:
        """Give up what is being made; every child process has ended afterwards."""
        making = list(self._making.values())
        for task in making:
            task.cancel()
        await asyncio.gather(*making, return_exceptions=True)

    async def _make_and_keep(self, text: str, voice: str, speed: float) -> bytes:
        pcm = await self._make(text, voice, speed)
        self._keep((text, voice, speed), pcm)
        return pcm

    async def _make(self, text: str, voice: str, speed: float) -> bytes:
        wav = b""
        if self._espeak and text.strip():
            async with self._turnstile:
                wav = await self._run_espeak(text, voice, speed)
        pcm = await asyncio.to_thread(_pcm24_of_wav, wav)
        return pcm or await asyncio.to_thread(clip_speech, text)

    async def _run_espeak(self, text: str, voice: str, speed: float) -> bytes:
        """Return a WAV file, or nothing when the program fails or does not answer in time."""
        variant, pitch = _ESPEAK_VOICES.get(voice, ("f2", 45))
        words = str(round(ESPEAK_WORDS_PER_MINUTE * speed))
        command = [str(self._espeak), "-v", f"en-us+{variant}", "-p", str(pitch), "-s", words, "--stdin", "--stdout"]
        try:
            child = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL)
        except OSError:
            return b""
        try:
            out, _ = await asyncio.wait_for(child.communicate(text.encode()), ESPEAK_TIMEOUT_S)
        except (TimeoutError, OSError):
            return b""
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        return out if child.returncode == 0 else b""

    def _keep(self, key: tuple[str, str, float], pcm: bytes) -> None:
        self._cache[key] = pcm
        self._cached_bytes += len(pcm)
        while self._cached_bytes > CACHED_BYTES and len(self._cache) > 1:
            self._cached_bytes -= len(self._cache.popitem(last=False)[1])


def _pcm24_of_wav(wav: bytes) -> bytes:
    """Return 24 kHz PCM of a mono 16-bit WAV, nothing of anything else.

    espeak-ng, writing to a pipe, leaves the length fields wrong: the sound is all that follows the header.
    """
    try:
        with wave.open(io.BytesIO(wav)) as reader:
            rate = reader.getframerate()
    except (wave.Error, EOFError):
        return b""
    header = wav.find(b"data") + 8
    return bytes_of(resample(samples_of(wav[header:]), rate, PCM_RATE_HZ))
