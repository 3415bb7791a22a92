"""The server: who is let in, what REST answers, what it remembers, how it ends, and the program around it."""
from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import websocket
import websockets
from openai import AsyncOpenAI, OpenAI
from tornado.ioloop import IOLoop
from websockets.exceptions import ConnectionClosedError

from simulator.openai import RealtimeSimulator, main

ROOT = Path(__file__).resolve().parents[2]


async def refusal(talk):
    """Return the code of the first event, an error, and the close that follows."""
    code = (await talk.next())["error"]["code"]
    with pytest.raises(ConnectionClosedError) as closed:
        await talk.next()
    return code, closed.value.rcvd.code, closed.value.rcvd.reason


def third_ping(url):
    """Return when the server has sent three pings to a client that answers them."""
    headers = ["Authorization: Bearer sk-x"]
    socket = websocket.create_connection(f"{url}?model=gpt-realtime-2.1", header=headers, timeout=5)
    with contextlib.closing(socket):
        pings = 0
        while pings < 3:
            opcode, _ = socket.recv_data_frame(control_frame=True)
            pings += opcode == websocket.ABNF.OPCODE_PING


@pytest.mark.parametrize(("connect", "expected"), [
    ({"key": "sk-invalid-1"}, ("invalid_api_key", 3000, "invalid_request_error.invalid_api_key")),
    ({"model": ""}, ("missing_model", 4000, "invalid_request_error.missing_model")),
    ({"model": "gpt-4o-realtime-preview"}, ("model_not_found", 4004, "invalid_request_error.model_not_found")),
    ({"model": "gpt-live-1"}, ("invalid_model", 4000, "invalid_request_error.invalid_model")),
    ({"extra_headers": {"OpenAI-Beta": "realtime=v1"}},
     ("beta_api_shape_disabled", 4000, "invalid_request_error.beta_api_shape_disabled")),
])
def test_wrong_door_is_told_and_closed(run, talking, connect, expected):
    """Bad key, no model, unknown model and the beta header: upgrade, error event, close with type and code."""

    async def turn():
        async with RealtimeSimulator() as sim, talking(sim, **connect) as talk:
            assert await refusal(talk) == expected

    run(turn())


def test_beta_client_is_refused(run):
    """The official beta client sends the beta header and is closed with 4000."""

    async def turn():
        async with RealtimeSimulator() as sim:
            client = AsyncOpenAI(api_key="sk-x", websocket_base_url=sim.url.removesuffix("/realtime"))
            async with client, client.beta.realtime.connect(model="gpt-realtime-2.1") as connection:
                assert (await connection.recv()).error.code == "beta_api_shape_disabled"
                with pytest.raises(ConnectionClosedError) as closed:
                    await connection.recv()
            assert closed.value.rcvd.code == 4000

    run(turn())


def test_only_configured_keys_are_let_in(run, talking):
    """With keys configured others are refused; without, any key passes but sk-invalid."""

    async def turn():
        async with RealtimeSimulator(keys=("sk-right",)) as sim:
            async with talking(sim, key="sk-wrong") as talk:
                assert (await refusal(talk))[0] == "invalid_api_key"
            async with talking(sim, key="sk-right") as talk:
                await talk.until("session.created")
            assert "sk-right" not in repr(sim.sessions)
            assert sim.sessions[-1].headers["Authorization"] == "Bearer sk-***"

    run(turn())


def test_browser_brings_its_key_in_the_subprotocol(run):
    """The key may come as openai-insecure-api-key.<key>; the server selects realtime, whatever the origin."""

    async def turn():
        async with RealtimeSimulator(keys=("ek_secret",)) as sim:
            async with websockets.connect(
                f"{sim.url}?model=gpt-realtime-2.1", origin="https://example.com",
                subprotocols=["realtime", "openai-insecure-api-key.ek_secret"],
            ) as socket:
                assert socket.subprotocol == "realtime"
                assert json.loads(await socket.recv())["type"] == "session.created"
            assert "ek_secret" not in repr(sim.sessions)

    run(turn())


def test_pings_go_both_ways_unless_told_otherwise(run, talking):
    """The server pings and answers pings; with no_pong it does neither and stays open."""

    async def turn():
        async with RealtimeSimulator(ping_interval_s=0.1) as sim:
            async with talking(sim) as talk:
                await asyncio.wait_for(await talk.connection._connection.ping(), 5)
            await asyncio.to_thread(third_ping, sim.url)
            async with talking(sim, extra_query={"fault": "no_pong"}) as talk:
                await talk.until("session.created")
                pong = await talk.connection._connection.ping()
                done, _ = await asyncio.wait([pong], timeout=0.35)
                assert not done
                await talk.update()

    run(turn())


def test_official_client_reads_models_and_searches(run):
    """The REST client of the official SDK lists models with their last day and searches a vector store."""

    async def turn():
        async with RealtimeSimulator() as sim:
            async with AsyncOpenAI(api_key="sk-x", base_url=sim.base_url) as client:
                models = {model.id: model async for model in client.models.list()}
                assert "gpt-realtime-2.1" in models
                assert models["gpt-realtime"].shutdown_date == "2027-01-20"
                page = await client.vector_stores.search("vs_demo", query="opening hours on Sunday", max_num_results=2)
                assert page.data[0].filename == "opening-hours.md"
                assert 0 < page.data[0].score <= 1
                assert "nine to six" in page.data[0].content[0].text
            async with httpx.AsyncClient(base_url=sim.base_url) as rest:
                assert (await rest.get("/models")).status_code == 401
                headers = {"Authorization": "Bearer k"}
                bad = await rest.post("/vector_stores/vs_1/search", headers=headers, json={"query": "x", "top_k": 3})
                assert (bad.status_code, bad.json()["error"]["code"]) == (400, "unknown_parameter")
                missing = await rest.post("/vector_stores/nope/search", headers=headers, json={"query": "x"})
                assert missing.status_code == 404
                nothing = await rest.post("/vector_stores/vs_1/search", headers=headers, json={"query": "quantum"})
                assert nothing.json()["data"] == []

    run(turn())


def test_session_is_remembered_without_audio(run, talking, question, eventually):
    """The record holds events, configuration, lengths and the close code, but neither audio nor key."""

    async def turn():
        async with RealtimeSimulator(speed=0) as sim:
            async with talking(sim) as talk:
                await talk.update(instructions="Remember me.")
                await talk.speak(question)
                await talk.answer()
                record = sim.sessions[-1]
            await eventually(lambda: not record.open)
            assert record.close_code == 1000
            assert record.config["instructions"] == "Remember me."
            assert [event["type"] for event in record.received] == ["session.update", "input_audio_buffer.append"]
            (heard,) = record.events("input_audio_buffer.append")
            assert heard["audio_bytes"] == pytest.approx(len(question), rel=0.01)
            assert record.sent["response.done"] == 1

    run(turn())


def test_stopping_closes_sessions_with_1001(run, talking):
    """stop() ends every living session and leaves no task behind."""

    async def turn():
        sim = RealtimeSimulator()
        await sim.start()
        async with talking(sim) as talk:
            await talk.type_text("test long answer")
            await talk.until("response.output_audio.delta")
            await sim.stop()
            with pytest.raises(websockets.ConnectionClosed) as closed:
                while True:
                    await talk.next()
            assert closed.value.rcvd.code == 1001
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert not [name for name in names if name.startswith(("response", "transcription", "session end"))]

    run(turn())


def test_sessions_speak_at_the_same_time(run, talking, words):
    """Many sessions are answered in parallel, each with its own words."""

    async def one(sim, number):
        async with talking(sim) as talk:
            await talk.type_text(f"caller {number}")
            return words(await talk.answer())

    async def turn():
        async with RealtimeSimulator() as sim:
            answers = await asyncio.gather(*(one(sim, number) for number in range(8)))
            assert answers == [f"You typed: caller {number}" for number in range(8)]

    run(turn())


def test_program_prints_its_url_and_ends_on_a_signal():
    """`python -m simulator.openai` prints the URL, serves the blocking official client, and ends with status 0."""
    command = [sys.executable, "-m", "simulator.openai", "--port", "0", "--speed", "0", "--key", "sk-mine"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        try:
            url = child.stdout.readline().strip()
            assert url.startswith("ws://127.0.0.1:")
            base = url.removesuffix("/realtime")
            with (
                OpenAI(api_key="sk-mine", websocket_base_url=base) as client,
                client.realtime.connect(model="gpt-realtime-2.1-mini") as connection,
            ):
                assert connection.recv().type == "session.created"
            child.send_signal(signal.SIGTERM)
            assert child.wait(10) == 0
        finally:
            child.kill()


def test_program_refuses_an_unknown_fault(capsys):
    """A misspelt fault ends the program with status 2 and the list of faults."""
    assert main(["--port", "0", "--fault", "dorp"]) == 2
    assert "drop_mid_audio" in capsys.readouterr().err


def test_simulator_runs_beside_tornado(run):
    """It starts inside an event loop that Tornado already uses."""

    async def turn():
        assert IOLoop.current().asyncio_loop is asyncio.get_running_loop()
        async with RealtimeSimulator() as sim, httpx.AsyncClient() as client:
            answer = await client.get(f"{sim.base_url}/models", headers={"Authorization": "Bearer k"})
            assert answer.status_code == 200

    run(turn())
