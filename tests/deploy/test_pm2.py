"""`deploy/ecosystem.config.js` under the real PM2: start, reload without a gap, logs, save; stops outlast drains.

The daemon is this test's own, in a PM2_HOME of its own, and is ended with it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cli.deploy_files import Machine, pm2
from core.settings import read_settings

ROOT = Path(__file__).resolve().parents[2]
PM2 = ROOT / "tests" / "deploy" / "pm2" / "node_modules" / ".bin" / "pm2"
DEADLINE_S = 40.0
FIRST_DELAY_S = 0.2
"""`exp_backoff_restart_delay` of the file."""

SECRET = "not-a-secret-" * 4


def free_ports() -> tuple[int, int]:
    """Return two ports of four digits that are free, and so are those with a 1 before them."""
    found = []
    for port in range(5000 + os.getpid() % 4000, 9999):
        try:
            for each in (port, 10_000 + port):
                with socket.create_server(("127.0.0.1", each)):
                    pass
        except OSError:
            continue
        found.append(port)
        if len(found) == 2:
            return found[0], found[1]
    pytest.skip("no free ports of four digits")


def eventually(is_true: Callable[[], bool]) -> None:
    """Wait until something is true."""
    until = time.monotonic() + DEADLINE_S
    while not is_true():
        assert time.monotonic() < until
        time.sleep(0.05)


class Daemon:
    """PM2 with two instances of the server."""

    def __init__(self, folder: Path) -> None:
        self.ports = free_ports()
        self.config = folder / "ecosystem.config.js"
        text = pm2(Machine(instances=2, folder=str(ROOT)))
        self.config.write_text(re.sub(r"const ports = .*;", f"const ports = {list(self.ports)};", text))
        self.home = folder / "pm2"
        self.environment = {
            "PATH": f"{PM2.parent}:{os.environ['PATH']}", "PM2_HOME": str(self.home), "HOME": str(folder),
            "DATABASE_URL": f"sqlite:///{folder}/voice.db", "SUPABASE_JWT_SECRET": SECRET,
            "OPENAI_API_KEY": "sk-not-a-key-0123456789", "STATE_DIR": str(folder / "state"),
            "LOG_DIR": str(folder / "logs"), "DRAIN_TIMEOUT": "2",
        }  # fmt: skip

    def run(self, *command: str) -> str:
        """Run a command; returns its output."""
        done = subprocess.run(command, env=self.environment, cwd=ROOT, capture_output=True, text=True,
                              timeout=DEADLINE_S)  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def apps(self) -> dict[str, Any]:
        """Return what PM2 knows of each app."""
        return {app["name"]: app for app in json.loads(self.run("pm2", "jlist", "--silent"))}

    def is_ready(self, port: int) -> bool:
        """Tell whether an instance takes new sessions."""
        try:
            return httpx.get(f"http://127.0.0.1:1{port}/ready", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Return a running PM2 whose instances are ready."""
    if shutil.which("node") is None or not PM2.exists():
        pytest.skip("PM2 is not installed: npm install in tests/deploy/pm2")
    made = Daemon(tmp_path_factory.mktemp("pm2"))
    try:
        made.run("pm2", "start", str(made.config), "--silent")
        eventually(lambda: all(map(made.is_ready, made.ports)))
        yield made
    finally:
        subprocess.run(["pm2", "kill"], env=made.environment, capture_output=True, timeout=DEADLINE_S)
        pid = made.home / "pm2.pid"
        if pid.exists():  # it did not listen
            os.kill(int(pid.read_text()), signal.SIGKILL)


def test_both_instances_serve(daemon: Daemon) -> None:
    """Each app is one process on ports of its own, and together they know of both."""
    apps = daemon.apps()
    assert set(apps) == {f"voice-{port}" for port in daemon.ports}
    assert all(app["pm2_env"]["status"] == "online" for app in apps.values())
    report = httpx.get(f"http://127.0.0.1:1{daemon.ports[0]}/health", trust_env=False).json()
    assert (report["status"], report["activeConnections"]) == ("healthy", 0)


def test_reload_leaves_no_gap(daemon: Daemon) -> None:
    """The script restarts one after the other, drained by SIGINT; one is ready at any moment; none runs twice."""
    before = {name: app["pid"] for name, app in daemon.apps().items()}
    script = subprocess.Popen([ROOT / "deploy" / "pm2-reload.sh"], env=daemon.environment, cwd=ROOT,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # fmt: skip
    gaps = 0
    until = time.monotonic() + DEADLINE_S
    while script.poll() is None and time.monotonic() < until:
        gaps += not any(map(daemon.is_ready, daemon.ports))
        time.sleep(0.02)
    said = script.communicate(timeout=5)[0]
    assert (script.returncode, gaps) == (0, 0), said
    apps = daemon.apps()
    after = {name: app["pid"] for name, app in apps.items()}
    assert set(before.values()) & set(after.values()) == set()
    assert all(not Path(f"/proc/{pid}").exists() for pid in before.values())
    children = [path for path in Path("/proc").glob("[0-9]*/cmdline") if server_of(daemon, path)]
    assert len(children) == 2
    log = (Path(daemon.environment["LOG_DIR"]) / "combined.log").read_text()
    assert log.count("draining") >= 2 and log.count("stopped") >= 2


def server_of(daemon: Daemon, cmdline: Path) -> bool:
    """Tell whether a process is a server of this daemon's."""
    try:
        is_server = b"server.py" in cmdline.read_bytes()
        return is_server and str(daemon.home).encode() in (cmdline.parent / "environ").read_bytes()
    except OSError:
        return False


def test_logs_and_save_work(daemon: Daemon) -> None:
    """`pm2 logs` finds the instances' files, and `pm2 save` keeps both for the next boot."""
    assert f"voice-{daemon.ports[0]}" in daemon.run("pm2", "logs", "--nostream", "--lines", "5")
    daemon.run("pm2", "save", "--force")
    saved = json.loads((daemon.home / "dump.pm2").read_text())
    assert {app["name"] for app in saved} == {f"voice-{port}" for port in daemon.ports}


def test_mistake_in_the_settings_is_not_tried_again(daemon: Daemon, tmp_path: Path) -> None:
    """An app that ends with status 78 is not started again, and `pm2 logs` shows what must be mended."""
    config = tmp_path / "ecosystem.config.js"
    config.write_text(daemon.config.read_text().replace("`voice-", "`wrong-").replace('"production"', '"nonsense"'))
    daemon.run("pm2", "start", str(config), "--silent")
    name = f"wrong-{daemon.ports[0]}"
    try:
        eventually(lambda: daemon.apps()[name]["pm2_env"].get("exit_code") == 78)
        time.sleep(FIRST_DELAY_S * 2)  # within which it would have been started again
        shown = daemon.run("pm2", "logs", name, "--nostream", "--err", "--lines", "20")
        assert "Mend these settings" in shown
        assert daemon.apps()[name]["pm2_env"]["restart_time"] == 0
    finally:
        daemon.run("pm2", "delete", *(f"wrong-{port}" for port in daemon.ports))


@pytest.mark.parametrize("drain", [None, "60"])
def test_kill_comes_after_the_drain(drain: str | None) -> None:
    """PM2 waits for the drain and half a minute more, also for another DRAIN_TIMEOUT."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed: apt-get install nodejs")
    code = "console.log(JSON.stringify(require(process.argv[1]).apps))"
    environment = {"PATH": os.environ["PATH"]} | ({"DRAIN_TIMEOUT": drain} if drain else {})
    done = subprocess.run([node, "-e", code, ROOT / "deploy" / "ecosystem.config.js"], capture_output=True, text=True,
                          env=environment)  # fmt: skip
    settings = read_settings({"DATABASE_URL": "sqlite:///x.db", "OPENAI_API_KEY": "sk-x", **environment})
    for app in json.loads(done.stdout):
        assert app["kill_timeout"] >= (settings.drain_timeout_s + 30) * 1000
        assert float(app["env"]["DRAIN_TIMEOUT"]) == settings.drain_timeout_s
        assert app["stop_exit_codes"] == [78] and app["treekill"] is False
        assert app["exp_backoff_restart_delay"] == FIRST_DELAY_S * 1000
