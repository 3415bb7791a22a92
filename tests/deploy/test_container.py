"""`deploy/Dockerfile`, step by step in a clean Debian, and started: user, health, signals; fly.toml fits it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import httpx
import pytest

from cli.container_health import DEFAULT_PORT
from cli.local_postgres import free_port
from core.settings import TABLE, read_settings
from tests.fakes.debian_root import DebianRoot
from tests.fakes.image_steps import Image, ImageSteps, instructions, is_ignored

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
DEADLINE_S = 30.0

FLY_LONGEST_KILL_S = 300
"""Source: Fly.io, "Fly Launch configuration", kill_timeout."""

NAMES = {"app", "primary_region", "kill_signal", "kill_timeout", "build", "env", "mounts", "http_service", "vm",
         "metrics"}  # fmt: skip
"""Tables of fly.toml that are used here. Source: the same page."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Image]:
    """Return the stages of the file, built."""
    folder = tmp_path_factory.mktemp("image")
    base = DebianRoot.make(folder / "base")
    done = base.run("apt-get update -qq && apt-get install -y -qq --no-install-recommends python3 python3-venv",
                    timeout_s=300)  # fmt: skip
    if done.returncode:
        pytest.skip(f"no packages can be had here: {done.stdout[-300:]}")
    context = DebianRoot(folder / "context")
    context.folder.mkdir()
    context.copy_checkout(".")
    (context.folder / ".env").write_text("OPENAI_API_KEY=sk-canary-of-the-developer\n")
    return ImageSteps(DOCKERFILE, context.folder, folder, base).build()


def settings(image: Image) -> dict[str, str]:
    """Return what the container is given when it runs."""
    return {
        "DATABASE_URL": "sqlite:////var/lib/websocket-voice-server/voice.db", "SUPABASE_JWT_SECRET": "x" * 40,
        "OPENAI_API_KEY": "sk-not-a-key-0123456789", "PORT": str(free_port()), "HEALTH_PORT": str(free_port()),
        "HOST": "127.0.0.1", "DRAIN_TIMEOUT": "1",
    }  # fmt: skip


def wait_until_healthy(process: subprocess.Popen[str], port: str) -> None:
    """Wait until the server in a container answers."""
    until = time.monotonic() + DEADLINE_S
    while True:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            raise AssertionError(process.communicate()[0][-3000:])
        time.sleep(0.05)


def owner_of(image: Image, process: subprocess.Popen[str]) -> tuple[str, int]:
    """Return the user of the container's first process, and how many groups it has besides."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    uid = re.search(r"^Uid:\t(\d+)", status, re.M)
    groups = re.search(r"^Groups:\t(.*)$", status, re.M)
    assert uid is not None and groups is not None
    rows = (line.split(":") for line in (image.root.folder / "etc/passwd").read_text().splitlines())
    return next(row[0] for row in rows if row[2] == uid[1]), len(groups[1].split())


@pytest.mark.parametrize("stage", ["", "volume-of-root"])
def test_image_serves_and_drains(images: dict[str, Image], stage: str) -> None:
    """The server runs as voicegw, is healthy by the image's own check, logs to the console, and ends on the signal."""
    image = images[stage]
    given = settings(image)
    if stage:  # as Fly mounts it
        os.chown(image.root.folder / "var/lib/websocket-voice-server", 0, 0)
    process = image.start(given)
    try:
        wait_until_healthy(process, given["HEALTH_PORT"])
        assert owner_of(image, process)[0] == "voicegw"
        assert health_status(image, given) == 0
        process.send_signal(getattr(signal, image.stop_signal))
        output = process.communicate(timeout=DEADLINE_S)[0]
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, output
    events = [json.loads(line)["event"] for line in output.splitlines()]
    assert events[0] == "listening" and events[-2:] == ["draining", "stopped"]
    assert health_status(image, given) == 1  # nobody answers any more


def health_status(image: Image, given: dict[str, str]) -> int:
    """Return the exit status of the image's check, run as the engine does: without the entrypoint."""
    check = Image(image.root, image.workdir, "voicegw", image.environment, image.health).start(given)
    check.communicate(timeout=DEADLINE_S)
    return check.returncode


def test_no_secret_and_no_tests_are_in_the_image(images: dict[str, Image]) -> None:
    """What a developer has in .env stays outside, and so do history and tests."""
    folder = images[""].root.folder / images[""].workdir.lstrip("/")
    assert not [name for name in (".env", ".git", "tests", "data", "logs") if (folder / name).exists()]
    found = subprocess.run(["grep", "-rlF", "canary-of-the-developer", folder], capture_output=True, text=True)
    assert found.stdout == ""


def test_server_may_write_state_and_logs_alone(images: dict[str, Image]) -> None:
    """The code belongs to root."""
    image = images[""]
    assert image.root.owner_and_mode("var/lib/websocket-voice-server") == ("voicegw", 0o700)
    assert image.root.owner_and_mode("opt/websocket-voice-server/server.py")[0] == "root"


def test_linter_has_nothing_to_say() -> None:
    """hadolint takes the file as it is."""
    done = subprocess.run([Path(sys.executable).with_name("hadolint"), DOCKERFILE], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_last_stage_is_never_root() -> None:
    """Whoever names no target gets the image that runs as voicegw's number, in exec form, with a health check."""
    steps = instructions(DOCKERFILE)
    last = steps[max(n for n, (word, _) in enumerate(steps) if word == "FROM") :]
    assert ("USER", "10001:10001") in last
    assert all(rest.startswith("[") for word, rest in steps if word in {"CMD", "ENTRYPOINT"})
    assert [rest for word, rest in steps if word == "HEALTHCHECK"]
    assert not [rest for word, rest in steps if word == "ADD" or "latest" in rest]


def test_settings_of_the_image_are_settings() -> None:
    """Every variable the image and fly.toml set is one of the server's, or Python's; none is a secret."""
    known = {row.name: row for row in TABLE}
    named = {pair.split("=")[0] for word, rest in instructions(DOCKERFILE) if word == "ENV" for pair in rest.split()}
    named |= set(fly()["env"])
    assert {name for name in named if not name.startswith("PYTHON")} <= set(known)
    assert not [name for name in named & set(known) if known[name].kind == "secret"]
    assert f"HEALTH_PORT={DEFAULT_PORT}" in DOCKERFILE.read_text()


def fly() -> dict[str, dict[str, object]]:
    """Return fly.toml."""
    return tomllib.loads((ROOT / "deploy" / "fly.toml").read_text(encoding="utf-8"))


def test_fly_fits_the_image() -> None:
    """Ports, folder, target and signal are those of the image; the drain is over before Fly kills."""
    config: dict[str, object] = dict(fly())
    assert set(config) == NAMES
    service, build, mounts = fly()["http_service"], fly()["build"], fly()["mounts"]
    exposed = next(rest for word, rest in instructions(DOCKERFILE) if word == "EXPOSE").split()
    assert [str(service["internal_port"]), str(fly()["metrics"]["port"])] == exposed
    assert f'VOLUME ["{mounts["destination"]}"]' in DOCKERFILE.read_text()
    assert (ROOT / "deploy" / str(build["dockerfile"])).exists()
    assert f"AS {build['build-target']}" in DOCKERFILE.read_text()
    assert config["kill_signal"] == "SIGTERM" and f"STOPSIGNAL {config['kill_signal']}" in DOCKERFILE.read_text()
    kill_s = config["kill_timeout"]
    assert isinstance(kill_s, int) and kill_s <= FLY_LONGEST_KILL_S
    given = read_settings({str(key): str(value) for key, value in fly()["env"].items()}
                          | {"SUPABASE_SERVICE_ROLE_KEY": "x", "NODE_ENV": "production"})  # fmt: skip
    assert kill_s >= given.drain_timeout_s + 30


def test_fly_counts_talks_and_never_stops_a_machine() -> None:
    """Load is measured by connections, the proxy's limit is above the server's, and checks ask /ready."""
    service = fly()["http_service"]
    concurrency = service["concurrency"]
    assert isinstance(concurrency, dict)
    most = int(str(fly()["env"]["MAX_CONNECTIONS"]))
    assert concurrency["type"] == "connections"
    assert concurrency["soft_limit"] < most < concurrency["hard_limit"]
    assert (service["auto_stop_machines"], service["force_https"]) == ("off", True)
    assert [check["path"] for check in service["checks"]] == ["/ready"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("path", "ignored"),
    [(".env", True), (".env.production", True), (".env.example", False), ("server.py", False), ("tests/x.py", True),
     ("web/node_modules/x.js", True), ("core/__pycache__/a.pyc", True), ("core/agent.py", False), ("logs/x", True)],
)  # fmt: skip
def test_what_the_build_does_not_see(path: str, ignored: bool) -> None:
    """.dockerignore leaves out secrets, tests and litter, and nothing the server needs."""
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert is_ignored(path, patterns) is ignored
