"""A clean Debian 12 in a folder, for what must be tried from nothing: the installer, the image's steps, cloud-init.

    root = DebianRoot.make(tmp_path / "root")           # skips where it is not possible
    root.copy_checkout("usr/local/src/voice")
    root.run("apt-get update && …")                     # in a chroot, with this machine's network
    root.boot("systemctl …", out, timeout_s=90)         # under a systemd of its own, without network

debootstrap makes it once (30 s) below the user's cache folder; each test gets a copy (a second). It misleads in that
the kernel, and what is mounted on /dev, are this machine's.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

MAKE_S = 600.0
"""debootstrap fetches 60 MB."""

KEEP_S = 30 * 86_400
"""A month: apt-get update brings what is newer."""

PACKAGES = "ca-certificates,dbus,systemd,systemd-sysv"
"""What every server's Debian has, and debootstrap's smallest lacks."""

FROM_THIS_MACHINE = re.compile(r"(?i).*_proxy|PIP_(?!FIND_LINKS).*|.*CERT.*|.*CA_BUNDLE")
"""Variables that tell how to reach the network; folders of packages on this machine are not in the chroot."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

ENTER = """
set -e
mount --make-rprivate /
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
exec chroot "$1" /bin/sh /run-in-chroot
"""

BOOT = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system
exec systemd-nspawn --quiet -D "$1" --register=no --keep-unit --private-network --link-journal=no --console=pipe \
    --bind="$2:/out" --boot
"""

DRIVER = """[Unit]
After=basic.target nginx.service
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'exec /bin/sh /run-in-boot >/out/output 2>&1'
TimeoutStartSec={timeout_s:.0f}
ExecStopPost=/bin/sh -c 'journalctl --no-pager > /out/journal; systemctl poweroff --force'
[Install]
WantedBy=multi-user.target
"""


def why_not() -> str:
    """Return why no clean Debian can be made here; empty when one can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "only root may make a clean Debian"
    if shutil.which("debootstrap") is None:
        return "debootstrap is not installed: apt-get install debootstrap"
    probe = subprocess.run(["unshare", "-m", "sh", "-c", "mount -t tmpfs tmpfs /mnt"], capture_output=True, timeout=20)
    return "" if probe.returncode == 0 else "this machine lets not even root mount a tmpfs"


def _cached() -> Path:
    """Return the untouched root, made if it is not there; one process makes it, the others wait."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "voice-server-tests"
    cache.mkdir(parents=True, exist_ok=True)
    folder, part = cache / "debian-bookworm", cache / "debian-bookworm.part"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists() and time.time() - folder.stat().st_mtime < KEEP_S:
            return folder
        for old in (folder, part):
            shutil.rmtree(old, ignore_errors=True)
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(part)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=MAKE_S)
        if done.returncode:
            pytest.skip(f"debootstrap cannot make a Debian: {(done.stdout + done.stderr).strip().splitlines()[-1:]}")
        for archive in (part / "var/cache/apt/archives").glob("*.deb"):
            archive.unlink()
        os.utime(part)
        part.rename(folder)
    return folder


class DebianRoot:
    """A root file system of its own; made by `make`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def make(cls, folder: Path) -> Self:
        """Return a new one, which knows how to reach the network as this machine does; skips where it is impossible."""
        if reason := why_not():
            pytest.skip(reason)
        subprocess.run(["cp", "-a", "--reflink=auto", _cached(), folder], check=True, timeout=120)
        for name in ("etc/resolv.conf", "etc/ssl/certs/ca-certificates.crt"):
            if Path("/", name).exists():
                (folder / name).unlink(missing_ok=True)
                shutil.copy(Path("/", name), folder / name)
        made = cls(folder)
        made.write("usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", 0o755)  # installing a package starts nothing
        return made

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Put a file into it; `path` has no slash at its beginning."""
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        target.chmod(mode)

    def path(self, name: str) -> Path:
        """Return where a file of it lies on this machine, through links that lead to places inside."""
        current = self.folder
        for part in name.strip("/").split("/"):
            current /= part
            if current.is_symlink():
                target = current.readlink()
                inside = target if target.is_absolute() else current.parent.relative_to(self.folder) / target
                current = self.path(str(inside))
        return current

    def owner_and_mode(self, name: str) -> tuple[str, int]:
        """Return the owner's name by its own table of users, and the permissions."""
        seen = self.path(name).stat()
        rows = (line.split(":") for line in (self.folder / "etc/passwd").read_text(encoding="utf-8").splitlines())
        return next(row[0] for row in rows if row[2] == str(seen.st_uid)), stat.S_IMODE(seen.st_mode)

    def copy(self, folder: Path) -> DebianRoot:
        """Return one that is as this one is, for tests that change it."""
        subprocess.run(["cp", "-a", "--reflink=auto", self.folder, folder], check=True, timeout=120)
        return DebianRoot(folder)

    def copy_checkout(self, path: str) -> None:
        """Copy the files that are, or will be, in the repository."""
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
        listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=60)
        for name in filter(None, listed.stdout.split("\0")):
            source, target = REPOSITORY / name, self.folder / path / name
            if source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)

    def run(self, script: str, *, timeout_s: float) -> subprocess.CompletedProcess[str]:
        """Run a shell script as root in it; returns output and errors together in stdout."""
        self.write("run-in-chroot", f"set -eu\n{script}\n")
        environment = {key: value for key, value in os.environ.items() if FROM_THIS_MACHINE.fullmatch(key)}
        environment |= {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8"}
        return subprocess.run(
            ["unshare", "-m", "sh", "-c", ENTER, "sh", self.folder], env=environment, text=True, timeout=timeout_s,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def boot(self, script: str, out: Path, *, timeout_s: float) -> str:
        """Boot it, run a shell script as root, power off; returns what the script printed. `/out` inside is `out`.

        Skips where systemd-nspawn is not installed.
        """
        if shutil.which("systemd-nspawn") is None:
            pytest.skip("systemd-nspawn is not installed: apt-get install systemd-container")
        self.write("run-in-boot", script)
        self.write("etc/systemd/system/drive.service", DRIVER.format(timeout_s=timeout_s))
        (self.folder / "usr/sbin/policy-rc.d").unlink(missing_ok=True)
        wants = self.folder / "etc/systemd/system/multi-user.target.wants/drive.service"
        wants.unlink(missing_ok=True)
        wants.symlink_to("/etc/systemd/system/drive.service")
        out.mkdir(exist_ok=True)
        with (out / "console").open("wb") as console:
            boot = subprocess.Popen(["unshare", "-m", "sh", "-c", BOOT, "sh", self.folder, out],
                                    stdin=subprocess.DEVNULL, stdout=console, stderr=console)  # fmt: skip
            try:
                boot.wait(timeout_s + 30)
            except subprocess.TimeoutExpired:
                boot.kill()
                boot.wait()
        output = out / "output"
        assert output.exists(), (out / "console").read_text(errors="replace")[-3000:]
        return output.read_text(errors="replace")
