"""A machine with its own systemd: this one's root file system under an overlay, booted by systemd-nspawn.

    machine = Machine(tmp_path)                # skips where it is not possible
    machine.write("etc/hosts", "…")
    machine.install_code()
    results = machine.boot("tests/deploy/inside_systemd.py", timeout_s=90)

Everything a boot writes lies in memory and is gone afterwards; only the folder `/out` inside is kept. The network is
loopback alone. It misleads in that limits of memory are not enforced, that packets to and from addresses are not
filtered (IPAddressDeny), and that the service runs on Debian's own Python with the packages of the tests' virtualenv.

The recipe is in the operations reference, section 7, E.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOME = "opt/websocket-voice-server"
PYTHON = Path("/usr/bin/python3")
FOLDERS = ("core", "services", "handlers", "simulator", "cli", "web", "tests", "deploy", "docs")

BOOT = """
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$1/layers"
mkdir "$1/layers/upper" "$1/layers/work" "$1/layers/root"
cp -a "$1/prepared/." "$1/layers/upper/"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/layers/upper,workdir=$1/layers/work" "$1/layers/root"
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system
exec systemd-nspawn --quiet -D "$1/layers/root" --register=no --keep-unit --private-network --link-journal=no \
    --console=pipe --bind="$1/out:/out" --bind-ro="$2:$3" --boot systemd.unit=voice-test.target
"""

TARGET = """[Unit]
Requires=basic.target
After=basic.target
Wants=voice-test.service
AllowIsolate=yes
"""

DRIVER = """[Unit]
After=basic.target
[Service]
Type=oneshot
WorkingDirectory=/{home}
Environment=PYTHONPATH=/{home} SSL_CERT_FILE=/out/chain.pem PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin
ExecStart=/{home}/.venv/bin/python /{home}/{driver}
StandardOutput=append:/out/output
StandardError=append:/out/output
TimeoutStartSec={timeout_s:.0f}
ExecStopPost=/bin/sh -c 'journalctl --no-pager > /out/journal; systemctl poweroff --force'
"""


def why_not() -> str:
    """Return why no machine can be booted here; empty when one can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "only root may boot a machine"
    if shutil.which("systemd-nspawn") is None:
        return "systemd-nspawn is not installed: apt-get install systemd-container"
    if not PYTHON.exists():
        return "Debian's Python is not installed: apt-get install python3"
    version = subprocess.run([PYTHON, "-c", "import platform; print(platform.python_version())"], capture_output=True,
                             text=True, timeout=20).stdout.split(".")  # fmt: skip
    if version[:2] != platform.python_version().split(".")[:2]:
        return "Debian's Python is another version than that of the virtualenv, so its packages cannot be used"
    probe = subprocess.run(["unshare", "-m", "sh", "-c", "mount -t tmpfs tmpfs /mnt"], capture_output=True, timeout=20)
    return "" if probe.returncode == 0 else "this machine lets not even root mount a tmpfs"


class Machine:
    """A machine to be booted.

    Args:
        folder: Empty folder.
    """

    def __init__(self, folder: Path) -> None:
        if reason := why_not():
            pytest.skip(reason)
        self._folder, self.out = folder, folder / "out"
        for name in ("layers", "out", "prepared"):
            (folder / name).mkdir(parents=True)

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Put a file into the machine; `path` has no slash at its beginning."""
        target = self._folder / "prepared" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        target.chmod(mode)

    def install_code(self) -> None:
        """Put the server where the units expect it, with a virtualenv of Debian's Python."""
        home = self._folder / "prepared" / HOME
        home.mkdir(parents=True)
        ignore = shutil.ignore_patterns("__pycache__", "node_modules")
        for name in FOLDERS:
            shutil.copytree(ROOT / name, home / name, ignore=ignore)
        for name in ("server.py", "requirements.txt"):
            shutil.copy(ROOT / name, home / name)
        subprocess.run([PYTHON, "-m", "venv", "--without-pip", home / ".venv"], check=True, timeout=60)
        compile_all = [home / ".venv/bin/python", "-m", "compileall", "-q", *(home / name for name in FOLDERS[:5]),
                       home / "server.py"]  # fmt: skip
        subprocess.run(compile_all, check=True, timeout=120)  # as install.sh does: the service may not write there
        subprocess.run(["chmod", "-R", "u=rwX,go=rX", self._folder / "prepared" / "opt"], check=True, timeout=60)

    def boot(self, driver: str, *, timeout_s: float) -> dict[str, Any]:
        """Boot, run a program of the repository in it as root, and power off; returns the JSON it left in /out/results.

        Raises:
            AssertionError: With the last of what was written, if it left none in time.
        """
        packages = f"/{HOME}/.venv/lib/python3.{sys.version_info.minor}/site-packages"
        self.write("etc/systemd/system/voice-test.target", TARGET)
        service = DRIVER.format(home=HOME, driver=driver, timeout_s=timeout_s)
        self.write("etc/systemd/system/voice-test.service", service)
        command = ["unshare", "-m", "sh", "-c", BOOT, "sh", self._folder, sysconfig.get_paths()["purelib"], packages]
        console = (self._folder / "console").open("wb")
        with console:
            boot = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=console, stderr=console)
            try:
                boot.wait(timeout_s + 30)
            except subprocess.TimeoutExpired:
                boot.kill()
                boot.wait()
        results = self.out / "results"
        assert results.exists(), self.tail("console") + self.tail("out/output") + self.tail("out/journal")
        found: dict[str, Any] = json.loads(results.read_text(encoding="utf-8"))
        return found

    def tail(self, name: str, size: int = 4_000) -> str:
        """Return the end of a file of the machine's folder."""
        path = self._folder / name
        return f"\n--- {name}\n{path.read_text(errors='replace')[-size:]}" if path.exists() else ""
