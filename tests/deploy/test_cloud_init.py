"""`deploy/cloud-init.yaml`: taken by cloud-init's own schema, and its steps done on a clean Debian."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cli.deploy_files import EXAMPLE_REPOSITORY
from tests.fakes.debian_root import DebianRoot
from tests.fakes.nginx import NAME

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "deploy" / "cloud-init.yaml"
UPGRADE = "usr/local/sbin/voice-upgrade"

READ = "python3 -c 'import json, yaml; print(json.dumps(yaml.safe_load(open(\"/cloud-init.yaml\"))))' >/read.json"

REPOSITORY = """
cd /usr/local/src/origin
git init -q -b main && git add -A && git -c user.name=x -c user.email=x@example.org commit -q -m x
"""

RECORDER = "#!/bin/sh\nprintf '%s\\n' \"$*\" >>/ufw-calls\n"
"""In the place of ufw: the chroot has this machine's network, whose firewall is not the test's to set."""


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> DebianRoot:
    """Return a Debian with cloud-init, which does not run."""
    root = DebianRoot.make(tmp_path_factory.mktemp("cloud") / "root")
    packages = "apt-get update -qq && apt-get install -y -qq --no-install-recommends cloud-init git"
    done = root.run(packages, timeout_s=300)
    if done.returncode:
        pytest.skip(f"no packages can be had here: {done.stdout[-300:]}")
    root.write("cloud-init.yaml", FILE.read_text(encoding="utf-8"))
    return root


def contents(root: DebianRoot) -> dict[str, Any]:
    """Return the file as YAML reads it."""
    done = root.run(READ, timeout_s=60)
    assert done.returncode == 0, done.stdout
    found: dict[str, Any] = json.loads((root.folder / "read.json").read_text())
    return found


def test_cloud_init_takes_the_file(debian: DebianRoot) -> None:
    """cloud-init's own schema has nothing to say, and would refuse a key it does not know."""
    done = debian.run("cloud-init schema --config-file /cloud-init.yaml", timeout_s=60)
    assert done.returncode == 0 and "Valid cloud-config" in done.stdout, done.stdout
    debian.write("wrong.yaml", FILE.read_text(encoding="utf-8") + "\npackages: 5\n")
    assert debian.run("cloud-init schema --config-file /wrong.yaml", timeout_s=60).returncode != 0


def test_nothing_secret_is_asked_for(debian: DebianRoot) -> None:
    """User data can be read by every process of the machine: settings are named there, secrets are not."""
    files = {file["path"]: file for file in contents(debian)["write_files"]}
    settings = files["/etc/websocket-voice-server/environment"]["content"]
    assert not [word for word in ("KEY=", "SECRET=", "TOKEN=", "DATABASE_URL") if word in
                settings.replace("SUPABASE_PUBLISHABLE_KEY=", "")]  # fmt: skip
    assert {file["permissions"] for path, file in files.items() if path.startswith("/etc/websocket")} == {"0600"}


def test_everything_a_server_needs_is_there(debian: DebianRoot) -> None:
    """Packages of the installer, upgrades by themselves, the firewall, and memory for the smallest machine."""
    found = contents(debian)
    assert {"nginx", "certbot", "python3-venv", "git", "curl", "logrotate", "ufw", "unattended-upgrades"} <= set(
        found["packages"]
    )
    assert found["package_upgrade"] is True and found["swap"]["maxsize"] >= 2**30
    assert found["runcmd"] == [[f"/{UPGRADE}"]]
    assert [file for file in found["write_files"] if "Unattended-Upgrade" in file["content"]]


def test_script_is_sound(debian: DebianRoot, tmp_path: Path) -> None:
    """shellcheck has nothing to say about the script the file holds."""
    files = {file["path"]: file["content"] for file in contents(debian)["write_files"]}
    script = tmp_path / "voice-upgrade"
    script.write_text(files[f"/{UPGRADE}"])
    done = subprocess.run([Path(sys.executable).with_name("shellcheck"), script], capture_output=True, text=True)
    assert done.stdout + done.stderr == ""


def test_steps_make_a_server_and_upgrade_it(debian: DebianRoot, tmp_path: Path) -> None:
    """What cloud-init would write and run leads to an installation; a new commit and the same script to the next."""
    root = debian.copy(tmp_path / "root")
    for file in contents(debian)["write_files"]:
        text = file["content"].replace(EXAMPLE_REPOSITORY, "/usr/local/src/origin")
        root.write(file["path"].lstrip("/"), text, int(file["permissions"], 8))
    root.write("usr/local/sbin/ufw", RECORDER, 0o755)
    root.copy_checkout("usr/local/src/origin")
    ready = f"echo \"$(hostname -I | cut -d' ' -f1) {NAME}\" >>/etc/hosts\n"  # else its DNS entry is waited for
    first = root.run(f"{REPOSITORY}{ready}/{UPGRADE}", timeout_s=400)
    assert first.returncode == 0, first.stdout[-3000:]
    (root.folder / "usr/local/src/origin/README.md").write_text("Another version.\n")
    second = root.run(f"{REPOSITORY}/{UPGRADE}", timeout_s=400)
    assert second.returncode == 0, second.stdout[-3000:]
    assert len(list((root.folder / "opt/websocket-voice-server.releases").glob("2*"))) == 2
    assert root.path("opt/websocket-voice-server/README.md").read_text() == "Another version.\n"
    calls = (root.folder / "ufw-calls").read_text().splitlines()
    assert calls[:4] == ["limit 22/tcp", "allow 80/tcp", "allow 443/tcp", "--force enable"]
    kept = (root.folder / "etc/websocket-voice-server/install.conf").read_text()
    assert "REPOSITORY=/usr/local/src/origin" in kept and f"DOMAIN={NAME}" in kept
    assert root.owner_and_mode("etc/websocket-voice-server") == ("root", 0o700)
