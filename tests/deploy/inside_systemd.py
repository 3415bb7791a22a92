"""Runs inside the machine of `tests/fakes/machine.py`: drives the shipped units, leaves what it saw in /out/results.

It judges nothing: test_unit_in_systemd.py does. A step that fails leaves its error under its own name, and the next
ones are tried all the same.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import websocket

from cli.demo_data import DEMO_USER_ID
from simulator.twilio import TwilioSimulator
from simulator.twilio_plan import CallPlan
from simulator.twilio_settings import TwilioSettings
from tests.deploy.inside_tools import (
    CODE,
    CONFIGURATION,
    DRAIN_S,
    JWT_SECRET,
    KEY,
    LOGS,
    NUMBER,
    PATIENCE_S,
    PROBE,
    STATE,
    Talk,
    ready,
    sh,
    show,
    token,
    until,
)
from tests.fakes.browser import PLAIN_ID
from tests.fakes.nginx import NAME
from tests.fakes.phone_gateway import ASKS, CALLER, MASTER
from tests.fakes.server_process import SimulatorThread

DROP_IN = """[Service]
LoadCredential=openai-api-key:/etc/websocket-voice-server/openai-api-key
LoadCredential=supabase-jwt-secret:/etc/websocket-voice-server/supabase-jwt-secret
LoadCredential=twilio-auth-token:/etc/websocket-voice-server/twilio-auth-token
# Shorter than DRAIN_TIMEOUT: the server asks for more time while it drains.
TimeoutStopSec=2
"""

SEED = """
import asyncio, json, sys
from core.calls import PhoneNumber
from services.sql_store import SqlStore
async def seed():
    store = SqlStore.open(sys.argv[1])
    await store.put_agent(json.loads(sys.argv[2]))
    await store.put_number(PhoneNumber(*json.loads(sys.argv[3])))
    await store.close()
asyncio.run(seed())
"""

found: dict[str, Any] = {}


# ---------------------------------------------------------------------- steps


def prepare(upstream: str, twilio: str) -> None:
    """Install units, settings, secrets, nginx and logrotate as the operator does, from the shipped files."""
    sh("useradd", "--system", "--home-dir", str(CODE), "--shell", "/usr/sbin/nologin", "voicegw")
    CONFIGURATION.mkdir(mode=0o755)
    settings = {
        "DATABASE_URL": f"sqlite:///{STATE}/gateway.db",
        "OPENAI_REALTIME_URL": upstream,
        "TWILIO_API_URL": twilio,
        "TWILIO_ACCOUNT_SID": MASTER.sid,
        "PUBLIC_URL": f"https://{NAME}",
        "DRAIN_TIMEOUT": str(DRAIN_S),
        "MAX_SESSIONS_PER_USER": "100",
        "PORT": "8080",
    }
    secrets = {
        "supabase-service-role-key": "sb_secret_unused",
        "openai-api-key": KEY,
        "supabase-jwt-secret": JWT_SECRET,
        "twilio-auth-token": MASTER.auth_token,
    }
    (CONFIGURATION / "environment").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    for name, value in secrets.items():
        (CONFIGURATION / name).write_text(value)
    for file in CONFIGURATION.iterdir():
        file.chmod(0o600)
    units = Path("/etc/systemd/system")
    for unit in ("voice.service", "voice@.service"):
        (units / unit).write_bytes((CODE / "deploy" / unit).read_bytes())
        (units / f"{unit}.d").mkdir()
        (units / f"{unit}.d" / "secrets.conf").write_text(DROP_IN)
    template = (CODE / "deploy" / "voice@.service").read_text()
    probe = template.replace("Type=notify", "Type=oneshot").replace("Restart=always", "Restart=no")
    probe = re.sub(r"^(WatchdogSec|NotifyAccess|ExecReload)=.*\n", "", probe, flags=re.MULTILINE)
    probe = re.sub(r"^ExecStart=.*$", f"ExecStart={CODE}/.venv/bin/python {CODE}/probe.py", probe, flags=re.MULTILINE)
    (units / "voice-probe@.service").write_text(probe.replace("[Service]\n", DROP_IN))
    (CODE / "probe.py").write_text(PROBE)
    Path("/etc/logrotate.d/websocket-voice-server").write_bytes((CODE / "deploy" / "logrotate.conf").read_bytes())
    Path("/etc/nginx/sites-enabled/default").unlink(missing_ok=True)
    Path("/etc/nginx/sites-enabled/voice.conf").write_bytes((CODE / "deploy" / "nginx.conf").read_bytes())
    sh("systemctl", "daemon-reload")


def start() -> None:
    """Start both instances, measuring each to its READY, and put an agent and a number into the database."""
    for port in (8081, 8082):
        sh("systemctl", "start", f"voice@{port}")
        began = int(show(f"voice@{port}", "ExecMainStartTimestampMonotonic"))
        found[f"start_to_ready_s_{port}"] = (int(show(f"voice@{port}", "ActiveEnterTimestampMonotonic")) - began) / 1e6
    agent = {"id": PLAIN_ID, "user_id": DEMO_USER_ID, "name": "Plain", "greeting": "Good morning."}
    sh("setpriv", "--reuid=voicegw", "--regid=voicegw", "--clear-groups", str(CODE / ".venv/bin/python"), "-c", SEED,
       f"sqlite:///{STATE}/gateway.db", json.dumps(agent), json.dumps([NUMBER, PLAIN_ID, DEMO_USER_ID]),
       env={**os.environ}, cwd=CODE)  # fmt: skip
    sh("systemctl", "start", "nginx")
    found["ready"] = [ready(8081), ready(8082)]
    found["verify"] = sh("systemd-analyze", "verify", "voice@8081.service", "voice.service")
    live = sh("systemd-analyze", "security", "voice@8081.service", "--no-pager")
    found["exposure"] = float(re.findall(r"exposure level for \S+: ([\d.]+)", live)[0])


def browser() -> None:
    """Talk through nginx with TLS."""
    talk = Talk()
    found["browser_answered"] = talk.ask()
    found["status_text_with_one"] = until(lambda: "1 browser" in show("voice@8081", "StatusText") + show(
        "voice@8082", "StatusText"), 20.0) >= 0  # fmt: skip
    talk.leave()


def phone(simulator: TwilioSimulator, loop: asyncio.AbstractEventLoop) -> None:
    """Have the simulated Twilio call the number through nginx with TLS: webhook, stream, REST."""
    plan = CallPlan(to=NUMBER, from_=CALLER, voice_url=f"https://{NAME}/api/twilio/voice", actions=ASKS, timeout_s=40.0)
    record = asyncio.run_coroutine_threadsafe(simulator.call(plan), loop).result(60)
    found["call"] = {
        "status": record.status,
        "rejected": record.rejected,
        "warnings": [warned.code for warned in record.warnings],
        "speech_s": sum(stretch.ends_s - stretch.begins_s for stretch in record.heard_speech()),
    }


def sandbox() -> None:
    """Look at the sandbox from inside and from outside."""
    sh("systemctl", "start", "voice-probe@8099")
    found["sandbox"] = json.loads(sh("journalctl", "-u", "voice-probe@8099", "-o", "cat").split("\n{", 1)[-1].join(
        ["{", ""]).splitlines()[0])  # fmt: skip
    environ = Path(f"/proc/{show('voice@8081', 'MainPID')}/environ").read_text()
    found["key_in_environment"] = KEY in environ or JWT_SECRET in environ


def reload_unit() -> None:
    """systemctl reload has the keys read anew, and the unit stays active."""
    before = (LOGS / "combined.log").read_text().count("keys forgotten")
    sh("systemctl", "reload", "voice@8081")
    until = time.monotonic() + 5.0  # a line is in the file a moment after what it tells
    while not (told := (LOGS / "combined.log").read_text().count("keys forgotten") - before):
        if time.monotonic() > until:
            break
        time.sleep(0.05)
    found["reloaded"] = told
    found["state_after_reload"] = show("voice@8081", "ActiveState")


@contextmanager
def blocked(port: int) -> Iterator[None]:
    """Stop the process of an instance as a loop that is blocked does, and measure how the watchdog mends it."""
    before, pid = show(f"voice@{port}", "NRestarts"), int(show(f"voice@{port}", "MainPID"))
    began = time.monotonic()
    os.kill(pid, signal.SIGSTOP)
    yield

    def is_back() -> bool:
        return show(f"voice@{port}", "NRestarts") != before and ready(port)

    found["blocked_to_ready_s"] = time.monotonic() - began if until(is_back) >= 0 else -1.0


def killed(port: int) -> None:
    """Kill an instance and measure how long nobody answers on its port."""
    pid = int(show(f"voice@{port}", "MainPID"))
    os.kill(pid, signal.SIGKILL)
    began = time.monotonic()

    def serves() -> bool:
        talk = Talk(port)
        talk.leave()
        return True

    def tries() -> bool:
        with suppress(websocket.WebSocketException):
            return serves()
        return False

    found["killed_to_serving_s"] = time.monotonic() - began if until(tries) >= 0 else -1.0


def rotation(port: int) -> None:
    """Rotate the logs again and again while sessions come and go; count what they wrote."""
    before = (LOGS / "combined.log").read_text().count("conversation opened")
    opened, done = [0], threading.Event()

    def come_and_go() -> None:
        while not done.is_set():
            Talk(port).leave()
            opened[0] += 1

    thread = threading.Thread(target=come_and_go)
    thread.start()
    rotations = 0
    until_s = time.monotonic() + 3.0
    while time.monotonic() < until_s and rotations < 12:  # the rule keeps 14 files
        sh("logrotate", "--force", "/etc/logrotate.d/websocket-voice-server")
        rotations += 1
        time.sleep(0.2)
    done.set()
    thread.join(20)
    text = sh("sh", "-c", f"zcat -f {LOGS}/combined.log*")
    status = (LOGS / "combined.log").stat()
    found["rotation"] = {
        "rotations": rotations,
        "opened": opened[0],
        "mode": oct(status.st_mode & 0o777),
        "owner": (LOGS / "combined.log").owner(),
        "in_logs": text.count("conversation opened") - before,
        "compressed": len(list(LOGS.glob("combined.log.*.gz"))),
    }


def drain() -> None:
    """Stop an instance with a live session: who comes is refused, who talks goes on until the deadline."""
    sh("systemctl", "stop", "voice@8082")
    talk = Talk()  # through nginx, which finds the one that is left
    began = time.monotonic()
    sh("systemctl", "stop", "--no-block", "voice@8081")
    found["notice"] = talk.until("gateway.notice") and talk.events[-1]["code"]
    found["ready_while_draining"] = ready(8081)
    found["status_while_draining"] = show("voice@8081", "StatusText")
    with suppress(websocket.WebSocketException):
        late = Talk(8081)
        found["late_close_code"] = late.close_code
    found["answered_while_draining"] = talk.ask()
    found["closed_by_server"] = not talk.until("never")
    found["close_code"], found["drain_s"] = talk.close_code, time.monotonic() - began
    found["last_error"] = [event["error"]["code"] for event in talk.events if event["type"] == "error"][-1:]
    until(lambda: show("voice@8081", "ActiveState") == "inactive")
    found["stopped"] = [show("voice@8081", name) for name in ("ActiveState", "Result")]


def single() -> None:
    """Run voice.service with two workers: the parent speaks to systemd for both."""
    drop_in = Path("/etc/systemd/system/voice.service.d/workers.conf")
    drop_in.write_text("[Service]\nEnvironment=WORKERS=2\n")
    sh("systemctl", "daemon-reload")
    sh("systemctl", "start", "voice")
    began = int(show("voice", "ExecMainStartTimestampMonotonic"))
    found["workers_start_to_ready_s"] = (int(show("voice", "ActiveEnterTimestampMonotonic")) - began) / 1e6
    talk = Talk(8080)
    found["workers_answered"] = talk.ask()
    found["workers_status"] = until(lambda: show("voice", "StatusText").startswith("1 browser"), 20.0) >= 0
    talk.leave()
    sh("systemctl", "stop", "voice")
    found["workers_stopped"] = [show("voice", name) for name in ("ActiveState", "Result")]


def bad_settings() -> None:
    """A mistake in the settings ends with 78 and is not tried again."""
    with (CONFIGURATION / "environment").open("a") as file:
        file.write("MAX_CONNECTIONS=many\n")
    subprocess.run(["systemctl", "start", "voice@8083"], capture_output=True, timeout=PATIENCE_S)
    time.sleep(1.0)  # longer than RestartSec: what is looked for is that nothing happens
    found["bad_settings"] = [show("voice@8083", name) for name in ("ActiveState", "ExecMainStatus", "NRestarts")]
    found["bad_settings_told"] = "MAX_CONNECTIONS" in sh("journalctl", "-u", "voice@8083", "-o", "cat")


def tidy() -> None:
    """Look for secrets in every log."""
    texts = [file.read_text(errors="replace") for file in (*LOGS.glob("*.log"), *Path("/var/log/nginx").glob("*.log"))]
    texts.append(sh("journalctl", "--no-pager"))
    found["secrets_in_logs"] = [s for s in (KEY, JWT_SECRET, token().partition(".")[0]) if any(s in t for t in texts)]


def attempt(step: Callable[..., None], *arguments: Any) -> None:
    """Take a step; what it raises is left under its name."""
    began = time.monotonic()
    try:
        step(*arguments)
    except Exception:  # noqa: BLE001 - whatever it is, the tests are told
        found.setdefault("failed", {})[step.__name__] = traceback.format_exc()[-2_000:]
    found.setdefault("seconds", {})[step.__name__] = round(time.monotonic() - began, 2)


def main() -> None:
    """Take all steps."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    twilio = TwilioSimulator(replace(TwilioSettings(), accounts=(MASTER,)))
    asyncio.run_coroutine_threadsafe(twilio.start(), loop).result(20)
    with SimulatorThread([KEY]) as openai:
        attempt(prepare, openai.url, twilio.api_url)
        attempt(start)
        attempt(browser)
        attempt(phone, twilio, loop)
        with suppress(OSError, RuntimeError), blocked(8082):  # its twenty seconds are used for the rest
            attempt(sandbox)
            attempt(reload_unit)
            attempt(rotation, 8081)
            attempt(killed, 8081)
        attempt(drain)
        attempt(single)
        attempt(bad_settings)
        attempt(tidy)
    Path("/out/results").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
