"""The logs of a running server: as JSON when asked for, one line a second under a flood, and no harm by a full disk."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
import websocket

from tests.fakes.browser import PLAIN_ID, Browser, eventually
from tests.fakes.instances import KEY, Instances
from tests.fakes.server_process import SimulatorThread

LOST = re.compile(r"^voice_log_lines_lost(?:\{[^}]*\})? ([\d.]+)$", re.MULTILINE)


@contextmanager
def running(folder: Path, **settings: str) -> Iterator[Instances]:
    """Run one server with these settings."""
    with ExitStack() as opened:
        openai = opened.enter_context(SimulatorThread([KEY]))
        yield opened.enter_context(Instances(folder / "voice", 1, openai.url, settings))


def lost_lines(port: int) -> float:
    """Return what the metrics say of lines the disk did not take."""
    text = httpx.get(f"http://127.0.0.1:1{port}/metrics", trust_env=False, timeout=10).text
    found = LOST.search(text)
    assert found is not None, text[-500:]
    return float(found.group(1))


def talk(instances: Instances) -> None:
    """Have a conversation with one answer."""
    with Browser(instances.at(instances.ports[0])) as browser:
        browser.live()
        browser.type_text("hello")
        assert browser.answer()
        browser.leave()


def test_lines_are_json_when_asked_for(tmp_path: Path) -> None:
    """With LOG_FORMAT=json every line of a conversation is one object with time, level and event."""
    with running(tmp_path, LOG_FORMAT="json") as instances:
        talk(instances)
        assert eventually(lambda: "conversation ended" in instances.log_text(), 5.0)
        lines = [json.loads(line) for line in instances.log_text().splitlines()]
    events = Counter(line["event"] for line in lines)
    assert events["listening"] == events["conversation opened"] == events["conversation ended"] == 1
    assert all({"time", "level", "event"} <= line.keys() for line in lines)
    (ended,) = (line for line in lines if line["event"] == "conversation ended")
    assert ended["turns"] >= 1 and isinstance(ended["duration_s"], float)


def test_flood_of_refusals_is_one_line_a_second(tmp_path: Path) -> None:
    """200 connections with bad tokens leave a line a second, which says how many more there were."""
    with running(tmp_path) as instances:
        address = f"{instances.at(instances.ports[0]).ws_url}?token=x.y.z&agent_id={PLAIN_ID}"
        began = time.monotonic()
        for _ in range(200):
            socket = websocket.create_connection(address, timeout=10, suppress_origin=True)
            while socket.recv():  # the error event, then the close
                pass
            socket.shutdown()
        seconds = time.monotonic() - began
        time.sleep(1.1)  # the interval of a cause, after which the rest is told
        socket = websocket.create_connection(address, timeout=10, suppress_origin=True)
        socket.recv()
        socket.shutdown()
        lines = [line for line in instances.log_text().splitlines() if "connection refused" in line]
    assert 2 <= len(lines) <= seconds + 3
    told = [int(hit.group(1)) for line in lines if (hit := re.search(r"suppressed=(\d+)", line))]
    assert sum(told) + len(lines) == 201


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small tmpfs")
def test_full_disk_does_not_touch_talks(tmp_path: Path) -> None:
    """With no room for logs people talk as before, the lines are counted, and with room the log says how many."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, timeout=20).returncode != 0:
        pytest.skip("this machine lets not even root mount a tmpfs")
    try:
        with running(tmp_path, LOG_DIR=str(disk)) as instances:
            (port,) = instances.ports
            with Browser(instances.at(port)) as browser:
                browser.live()
                fill(disk / "ballast")
                browser.type_text("hello")
                assert browser.answer()
                began = time.monotonic()
                for _ in range(10):
                    talk(instances)
                assert time.monotonic() - began < 20
                browser.type_text("still there?")
                assert browser.answer()
                browser.leave()
            assert lost_lines(port) >= 10
            (disk / "ballast").unlink()
            time.sleep(1.1)  # the pause the log gives a full disk
            talk(instances)
            text = eventually(lambda: (disk / "combined.log").read_text().partition("log lines lost")[2], 5.0)
            told = re.findall(r"lost=(\d+)", text)
            assert sum(map(int, told)) >= 10
            assert "Traceback" not in (tmp_path / "voice" / f"output-{port}").read_text()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False, timeout=20)


def fill(path: Path) -> None:
    """Write until nothing more fits."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 1024)
        except OSError:
            return
