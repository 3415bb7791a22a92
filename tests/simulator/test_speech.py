"""The voice, with espeak-ng and with the shipped clips."""
from __future__ import annotations

import asyncio
import shutil

import pytest

from simulator.audio import rms, samples_of
from simulator.clips.speak import BLOB, INDEX, clip_speech, number_words
from simulator.openai import RealtimeSimulator
from simulator.speech import Voice

SENTENCE = "I heard two point four seconds of speech. Here is what you said."


@pytest.mark.parametrize(("number", "said"), [
    ("0", "zero"), ("7", "seven"), ("13", "thirteen"), ("40", "forty"), ("42", "forty two"), ("2.4", "two point four"),
    ("105", "one hundred five"), ("1999", "one thousand nine hundred ninety nine"), ("0.05", "zero point zero five"),
    ("12345678", "one two three four five six seven eight"), ("007", "zero zero seven"),
])
def test_numbers_are_said_in_words(number, said):
    """Numbers up to 999,999 are read, longer ones and those with leading zeros digit by digit."""
    assert " ".join(number_words(number)) == said


def test_clips_say_anything():
    """Known phrases, numbers and words are spoken, unknown words are spelled, and the files stay small."""
    assert 3_000 < len(clip_speech(SENTENCE)) // 48 < 6_000
    assert len(clip_speech("zyx")) // 48 > 500
    assert len(clip_speech("42")) > len(clip_speech("4"))
    assert clip_speech("…") == b""
    assert BLOB.stat().st_size + INDEX.stat().st_size <= 400 * 1024


def test_spelling_has_an_end():
    """A long text of unknown words does not become minutes of letters."""
    assert len(clip_speech("qwertz " * 200)) // 48_000 < 60


def test_simulator_speaks_without_espeak(run, talking, words):
    """With clips only, answers have sound and the same transcript."""

    async def turn():
        async with RealtimeSimulator(speed=0, clips_only=True) as sim, talking(sim) as talk:
            assert sim.speech_engine == "clips"
            await talk.type_text("Hello")
            assert words(await talk.answer()) == "You typed: Hello"
            assert rms(samples_of(talk.audio())) > 500

    run(turn())


@pytest.mark.parametrize("behaviour", ["missing", "exit 1", "exit 0", "echo no sound", "exec sleep 30"])
def test_broken_engine_falls_back_to_clips(tmp_path, monkeypatch, behaviour):
    """A speech program that is missing, fails, says nothing, writes nonsense or hangs is replaced by the clips."""
    monkeypatch.setattr("simulator.speech.ESPEAK_TIMEOUT_S", 0.5)
    program = tmp_path / "engine"
    if behaviour != "missing":
        program.write_text(f"#!/bin/sh\n{behaviour}\n", encoding="utf-8")
        program.chmod(0o755)
    assert asyncio.run(Voice(str(program)).say("Hello")) == clip_speech("Hello")


@pytest.mark.skipif(not shutil.which("espeak-ng"), reason="espeak-ng is not installed")
def test_espeak_speaks_whole_sentences():
    """espeak-ng gives loud 24 kHz audio, another voice sounds different, faster speech is shorter, and it is cached."""

    async def say():
        voice = Voice()
        assert voice.engine == "espeak-ng"
        plain = await voice.say(SENTENCE)
        assert 2_000 < len(plain) // 48 < 6_000
        assert rms(samples_of(plain)) > 1_000
        assert await voice.say(SENTENCE) is plain
        assert await voice.say(SENTENCE, "cedar") != plain
        assert len(await voice.say(SENTENCE, speed=1.5)) < 0.8 * len(plain)
        assert await voice.say("") == b""

    asyncio.run(say())
