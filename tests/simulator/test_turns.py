"""Spoken turns: voice activity, who ends a turn and who answers it, barge-in, idle prompts, transcription."""
from __future__ import annotations

import base64

import pytest

from simulator.audio import PCMU, from_pcm24, silence, to_pcm24
from simulator.openai import RealtimeSimulator

TRANSCRIBE = {"input": {"transcription": {"model": "gpt-transcribe"}}}
TRANSCRIPTION = "conversation.item.input_audio_transcription"


def vad(**changes):
    """Return a session's audio with these turn detection fields."""
    return {"input": {"turn_detection": {"type": "server_vad", "silence_duration_ms": 500, **changes}}}


async def completed(talk, number):
    """Return the transcript of the n-th transcription event, which may have arrived already."""
    while len(done := [e for e in talk.events if e["type"] == f"{TRANSCRIPTION}.completed"]) < number:
        await talk.next()
    return done[number - 1]["transcript"]


def test_spoken_turn_is_heard_and_echoed(run, talking, words, question):
    """A spoken question is detected, committed, transcribed and answered with a sentence and the caller's own voice."""

    async def turn():
        async with RealtimeSimulator(speed=0) as sim, talking(sim) as talk:
            await talk.update(audio={**vad(), "input": {**vad()["input"], **TRANSCRIBE["input"]}})
            talk.events.clear()
            await talk.speak(question)
            response = await talk.answer()
            if f"{TRANSCRIPTION}.completed" not in talk.types():
                await talk.until(f"{TRANSCRIPTION}.completed")
            assert [t for t in talk.types() if t.startswith(("input_audio_buffer", "response.created"))] == [
                "input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped",
                "input_audio_buffer.committed", "response.created",
            ]
            by_type = {event["type"]: event for event in talk.events}
            started = by_type["input_audio_buffer.speech_started"]
            stopped = by_type["input_audio_buffer.speech_stopped"]
            assert 0 <= started["audio_start_ms"] <= 60  # speech begins at 300 ms, prefix padding reaches back 300 ms
            assert stopped["audio_end_ms"] == pytest.approx(3_100, abs=150)  # 300 + 2,300 of speech + 500 of silence
            assert {by_type["input_audio_buffer.committed"]["item_id"], stopped["item_id"]} == {started["item_id"]}
            done = by_type[f"{TRANSCRIPTION}.completed"]
            assert done["transcript"] == "(speech, 2.3 seconds)"
            assert done["usage"] == {"type": "duration", "seconds": 4}
            assert words(response) == "I heard two point three seconds of speech. Here is what you said."
            echoed = question[48 * started["audio_start_ms"] : 48 * stopped["audio_end_ms"]]
            assert talk.audio().endswith(echoed)

    run(turn())


def test_phone_audio_is_heard_in_mu_law(run, talking, question):
    """With audio/pcmu input, positions count 8 bytes a millisecond and the same speech is found."""

    async def turn():
        async with RealtimeSimulator(speed=0) as sim, talking(sim) as talk:
            phone = {"format": {"type": "audio/pcmu"}}
            await talk.update(audio={"input": {**phone, **vad()["input"]}, "output": phone})
            await talk.speak(from_pcm24(question, PCMU), chunk=160)
            stopped = await talk.until("input_audio_buffer.speech_stopped")
            assert stopped["audio_end_ms"] == pytest.approx(3_100, abs=150)
            await talk.answer()
            assert sim.sessions[0].audio_in_ms == pytest.approx(len(question) // 48, abs=1)
            assert 4_000 < len(to_pcm24(talk.audio(), PCMU)) // 48 < 8_000

    run(turn())


def test_barge_in_cancels_the_answer_and_truncation_drops_its_words(run, talking, question):
    """Speech over an answer cancels it for turn_detected; a truncate within what was sent is accepted."""

    async def turn():
        async with RealtimeSimulator() as sim, talking(sim) as talk:
            await talk.update(audio=vad())
            await talk.type_text("test long answer")
            for _ in range(5):
                await talk.until("response.output_audio.delta")
            await talk.speak(question)
            await talk.until("input_audio_buffer.speech_started")
            cancelled = await talk.answer()
            assert cancelled["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
            item_id = cancelled["output"][0]["id"]
            sent_ms = len(talk.audio()) // 48
            cut = {"item_id": item_id, "content_index": 0}
            await talk.send("conversation.item.truncate", **cut, audio_end_ms=sent_ms + 60)
            error = await talk.error()
            assert error["code"] == "invalid_value"
            assert error["message"] == f"Audio content of {sent_ms}ms is already shorter than {sent_ms + 60}ms"
            await talk.send("conversation.item.truncate", **cut, audio_end_ms=400)
            assert (await talk.until("conversation.item.truncated"))["audio_end_ms"] == 400
            await talk.send("conversation.item.retrieve", item_id=item_id)
            part = (await talk.until("conversation.item.retrieved"))["item"]["content"][0]
            assert len(base64.b64decode(part["audio"])) == 400 * 48
            assert "transcript" not in part

    run(turn())


def test_no_interruption_collides_with_the_automatic_answer(run, talking, question):
    """With interrupt_response false the answer goes on, and the automatic response of the turn is refused."""

    async def turn():
        async with RealtimeSimulator() as sim, talking(sim) as talk:
            await talk.update(audio=vad(interrupt_response=False))
            await talk.type_text("test long answer")
            await talk.until("response.output_audio.delta")
            await talk.speak(question)
            assert (await talk.error())["code"] == "conversation_already_has_active_response"
            await talk.send("response.cancel")
            assert (await talk.answer())["status_details"]["reason"] == "client_cancelled"

    run(turn())


@pytest.mark.parametrize("interrupt", [True, False])
def test_without_create_response_turns_wait_for_the_client(run, talking, words, question, interrupt):
    """With create_response false a turn is committed but not answered until response.create."""

    async def turn():
        async with RealtimeSimulator(speed=0) as sim, talking(sim) as talk:
            await talk.update(audio=vad(create_response=False, interrupt_response=interrupt))
            await talk.speak(question)
            await talk.until("conversation.item.done")
            await talk.send("conversation.item.retrieve", item_id="nobody")
            await talk.error()
            assert "response.created" not in talk.types()
            await talk.send("response.create")
            assert words(await talk.answer()).startswith("I heard")

    run(turn())


def test_push_to_talk_is_ended_by_the_client(run, talking, words, question):
    """With turn_detection null nothing happens by itself; commit makes the item, clear empties the buffer."""

    async def turn():
        async with RealtimeSimulator(speed=0) as sim, talking(sim) as talk:
            await talk.update(audio={"input": {"turn_detection": None}})
            await talk.speak(question)
            await talk.send("input_audio_buffer.clear")
            await talk.until("input_audio_buffer.cleared")
            await talk.send("input_audio_buffer.commit", event_id="too_soon")
            error = await talk.error()
            assert (error["code"], error["event_id"]) == ("input_audio_buffer_commit_empty", "too_soon")
            await talk.speak(question)
            await talk.send("input_audio_buffer.commit")
            committed = await talk.until("input_audio_buffer.committed")
            assert committed["previous_item_id"] is None
            assert "input_audio_buffer.speech_started" not in talk.types()
            await talk.send("response.create")
            assert words(await talk.answer()).startswith("I heard two point three seconds")

    run(turn())


def test_semantic_vad_ends_turns_by_eagerness(run, talking, question):
    """semantic_vad closes a turn after a pause that depends on its eagerness."""

    async def turn():
        async with RealtimeSimulator(speed=0) as sim, talking(sim) as talk:
            ends = {}
            for eagerness in ("high", "low"):
                detection = {"type": "semantic_vad", "eagerness": eagerness, "create_response": False}
                await talk.update(audio={"input": {"turn_detection": detection}})
                await talk.speak(question + silence(1_000))
                started = await talk.until("input_audio_buffer.speech_started")
                ends[eagerness] = (await talk.until("input_audio_buffer.speech_stopped"))["audio_end_ms"]
                ends[eagerness] -= started["audio_start_ms"]
            assert ends["low"] - ends["high"] == pytest.approx(1_200, abs=20)

    run(turn())


def test_long_silence_after_an_answer_triggers_the_idle_prompt(run, talking, words):
    """When nobody speaks for idle_timeout_ms after an answer, empty audio is committed and answered."""

    async def turn():
        async with RealtimeSimulator(speed=0, idle_timeout_scale=0.001) as sim, talking(sim) as talk:
            await talk.update(audio=vad(idle_timeout_ms=5_000))
            await talk.type_text("Hi")
            await talk.answer()
            await talk.until("input_audio_buffer.timeout_triggered")
            await talk.until("input_audio_buffer.committed")
            assert words(await talk.answer()) == "Are you still there?"

    run(turn())


def test_scripted_transcripts_drive_the_script(run, talking, words, question):
    """The n-th utterance takes the n-th transcript, which counts as typed text for the rules."""

    async def turn():
        transcripts = ["My name is Ada.", "what did I say"]
        async with RealtimeSimulator(speed=0, transcripts=transcripts) as sim, talking(sim) as talk:
            await talk.update(audio=TRANSCRIBE)
            await talk.speak(question)
            assert words(await talk.answer()).startswith("You said: My name is Ada. I heard")
            await talk.speak(question)
            assert words(await talk.answer()) == "You said: My name is Ada."
            assert [await completed(talk, number) for number in (1, 2)] == transcripts

    run(turn())


def test_reseeded_conversation_is_remembered(run, talking, words):
    """Turns put back after a reconnect are known: the last earlier user text is repeated."""

    async def turn():
        async with RealtimeSimulator(speed=0) as sim, talking(sim) as talk:
            await talk.type_text("I like tea.", answer=False)
            await talk.type_text("So do I.", answer=False, role="assistant")
            await talk.type_text("What did I say?")
            assert words(await talk.answer()) == "You said: I like tea."

    run(turn())


def test_marker_in_the_instructions_drives_spoken_turns(run, talking, question):
    """Without a recogniser, a bracketed marker in the session's instructions chooses what a spoken turn does."""

    async def turn():
        async with RealtimeSimulator(speed=0) as sim, talking(sim) as talk:
            await talk.update(instructions="Say goodbye politely. [test error]")
            await talk.speak(question)
            assert (await talk.answer())["status"] == "failed"

    run(turn())


def test_transcriptions_come_out_of_order(run, talking, question):
    """The order across turns is not guaranteed: a later turn may be transcribed before an earlier one."""

    async def turn():
        async with RealtimeSimulator(speed=0, transcripts=["first", "second"]) as sim:
            sim.faults.next("transcription_shuffled", seconds=3.0)
            async with talking(sim) as talk:
                await talk.update(audio=TRANSCRIBE)
                for _ in range(2):
                    await talk.speak(question)
                    await talk.until("input_audio_buffer.committed")
                assert [await completed(talk, number) for number in (1, 2)] == ["second", "first"]

    run(turn())


def test_transcription_never_comes(run, talking, question):
    """With transcription_never a whole turn and the next one pass without any transcription event."""

    async def turn():
        faults = ["transcription_never"]
        async with RealtimeSimulator(speed=0, faults=faults, transcription_delay_s=0) as sim, talking(sim) as talk:
            await talk.update(audio=TRANSCRIBE)
            await talk.speak(question)
            await talk.answer()
            await talk.type_text("Hello")
            await talk.answer()
            assert not [t for t in talk.types(without=()) if t.startswith(TRANSCRIPTION)]

    run(turn())


@pytest.mark.parametrize(("fault", "last"), [("transcription_failed", "failed"), ("transcription_late", "completed")])
def test_transcription_fails_or_comes_late(run, talking, question, fault, last):
    """Transcription is independent of the answer: it can fail, or come long after response.done."""

    async def turn():
        async with RealtimeSimulator(speed=0) as sim:
            sim.faults.next(fault, seconds=3.0)
            async with talking(sim) as talk:
                await talk.update(audio=TRANSCRIBE)
                await talk.speak(question)
                event = await talk.until(f"{TRANSCRIPTION}.{last}")
                assert event["item_id"]
                if fault == "transcription_late":
                    assert "response.done" in talk.types()

    run(turn())
