"""`./voice init` fills the files of deploy/ in for a machine, and writes none over a file that differs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from cli import init
from cli.deploy_files import (
    DEPLOY,
    EXAMPLE_DOMAIN,
    EXAMPLE_REPOSITORY,
    INSTALLED,
    Machine,
    cloud_init,
    credentials,
    nginx,
    pm2,
    services,
    systemd,
)
from cli.main import main
from core.settings import TABLE

HERE = Machine(domain="talk.example.org", instances=3, folder="/srv/voice", user="talker", email="ops@example.org",
               repository="https://git.example.org/voice.git")  # fmt: skip


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take no name from the settings of the machine that tests."""
    monkeypatch.setattr(init, "environment", dict)


def test_unit_has_folder_and_user_of_the_machine() -> None:
    """Nothing of the example's folder and user is left, and the template's port is."""
    text = systemd(HERE)
    assert "WorkingDirectory=/srv/voice\n" in text and "User=talker\nGroup=talker\n" in text
    assert "PORT=%i" in text
    assert INSTALLED not in text and "voicegw" not in text
    assert "%i" not in systemd(Machine(instances=1))


def test_site_has_name_and_ports_of_the_machine() -> None:
    """The upstream has one line for each instance with the options of the shipped one, and the name is ours."""
    text = nginx(HERE)
    upstream = text[text.index("upstream voice {") :].split("}")[0]
    assert re.findall(r"^ +server 127\.0\.0\.1:(\d+) max_fails=0;$", upstream, re.M) == ["8081", "8082", "8083"]
    assert EXAMPLE_DOMAIN not in text and text.count("server_name talk.example.org;") == 2
    assert nginx(Machine(instances=1)).count("server 127.0.0.1:8080 max_fails=0;") == 1


def test_shipped_site_is_for_two_instances() -> None:
    """What deploy/nginx.conf says is what is made for two instances with the example's name."""
    servers = re.compile(r"^ *server 127.*$", re.M)
    assert servers.findall(nginx(Machine(instances=2))) == servers.findall((DEPLOY / "nginx.conf").read_text())


def test_every_secret_has_its_file() -> None:
    """The drop-in names each secret setting, and the addresses that hold passwords; no other."""
    named = {line.split("=")[1].split(":")[0] for line in credentials(HERE).splitlines() if "=" in line}
    secret = {row.name for row in TABLE if row.kind == "secret"} | {"DATABASE_URL", "REDIS_URL"}
    assert named == {name.lower().replace("_", "-") for name in secret}


def test_pm2_file_works_from_anywhere(tmp_path: Path) -> None:
    """Node reads it; every app has the folder, a port and a health port of its own."""
    (tmp_path / "ecosystem.config.js").write_text(pm2(HERE))
    code = "console.log(JSON.stringify(require(process.argv[1]).apps.map(a => [a.cwd, a.env.PORT, a.env.HEALTH_PORT])))"
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed: apt-get install nodejs")
    done = subprocess.run([node, "-e", code, str(tmp_path / "ecosystem.config.js")], capture_output=True, text=True)
    assert json.loads(done.stdout) == [["/srv/voice", str(port), f"1{port}"] for port in (8081, 8082, 8083)]


def test_user_data_has_name_and_repository() -> None:
    """What a new machine reads is ours, in all places."""
    text = cloud_init(HERE)
    for line in ("DOMAIN=talk.example.org", "EMAIL=ops@example.org", "INSTANCES=3",
                 "REPOSITORY=https://git.example.org/voice.git", "PUBLIC_URL=https://talk.example.org"):  # fmt: skip
        assert f"      {line}\n" in text
    assert EXAMPLE_DOMAIN not in text and EXAMPLE_REPOSITORY not in text


def test_services_are_named_by_their_ports() -> None:
    """One process is `voice`, several are `voice@PORT`."""
    assert services(Machine(instances=1)) == ("voice",)
    assert services(HERE) == ("voice@8081", "voice@8082", "voice@8083")


def test_file_is_printed_and_nothing_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Without --write the file is on standard output alone."""
    assert main(["init", "nginx", "--domain", "talk.example.org", "--root", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert printed.out == nginx(Machine(domain="talk.example.org"))
    assert printed.err == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        (["systemd"], "etc/systemd/system/voice.service"),
        (["systemd", "--instances", "2"], "etc/systemd/system/voice@.service"),
        (["credentials", "--instances", "2"], "etc/systemd/system/voice@.service.d/credentials.conf"),
        (["nginx", "--domain", "talk.example.org"], "etc/nginx/sites-available/voice.conf"),
        (["pm2", "--folder", "/srv/voice"], "srv/voice/ecosystem.config.js"),
    ],
)
def test_file_is_put_where_it_belongs(
    arguments: list[str], place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--write makes the file below the root, and says what to type next."""
    assert main(["init", *arguments, "--write", "--root", str(tmp_path)]) == 0
    assert (tmp_path / place).stat().st_mode & 0o777 == 0o644
    printed = capsys.readouterr()
    assert printed.out == "" and "Next: " in printed.err


def test_file_that_differs_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A changed file stays without --force; with it the old one is kept beside; the same text again is no conflict."""
    command = ["init", "systemd", "--write", "--root", str(tmp_path)]
    file = tmp_path / "etc/systemd/system/voice.service"
    assert main(command) == 0
    assert main(command) == 0
    file.write_text("mine")
    assert main(command) == 1
    assert file.read_text() == "mine"
    assert "--force" in capsys.readouterr().err
    assert main([*command, "--force"]) == 0
    assert file.with_name("voice.service.before").read_text() == "mine"
    assert "ExecStart=" in file.read_text()


@pytest.mark.parametrize(
    "wrong",
    [["--domain", "no name;"], ["--instances", "0"], ["--instances", "33"], ["--user", "Root User"],
     ["--email", "a b"], ["--repository", "$(id)"]],
)  # fmt: skip
def test_values_that_would_break_a_file_are_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What is no name, number or address is refused before anything is made of it."""
    with pytest.raises(SystemExit) as ended:
        main(["init", "nginx", *wrong])
    assert ended.value.code == 2


def test_example_name_and_hidden_folder_are_pointed_out(capsys: pytest.CaptureFixture[str]) -> None:
    """A site for the example's name, and a unit for a folder it cannot see, are told of on standard error."""
    assert main(["init", "nginx"]) == 0
    assert "--domain NAME" in capsys.readouterr().err
    assert main(["init", "systemd", "--folder", "/home/user/voice"]) == 0
    assert "cannot see /home/user/voice" in capsys.readouterr().err


def test_name_comes_from_the_settings(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """PUBLIC_URL's host is the site's name unless another is given."""
    monkeypatch.setattr(init, "environment", lambda: {"PUBLIC_URL": "wss://talk.example.org"})
    assert main(["init", "nginx"]) == 0
    assert "server_name talk.example.org;" in capsys.readouterr().out


def test_file_that_lost_its_place_is_not_filled_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A shipped file without what is to be replaced is a mistake, not a file with the example's name."""
    monkeypatch.setattr("cli.deploy_files.DEPLOY", tmp_path)
    for name in ("nginx.conf", "voice@.service", "cloud-init.yaml", "ecosystem.config.js"):
        (tmp_path / name).write_text(f"{EXAMPLE_DOMAIN}\n")
    for make in (nginx, systemd, cloud_init, pm2):
        with pytest.raises(ValueError, match=r"deploy/"):
            make(HERE)
