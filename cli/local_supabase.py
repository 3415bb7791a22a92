"""A Supabase project on this machine without Docker: PostgreSQL and Supabase Lite, for the demo and the tests.

    with LocalSupabase() as project:
        project.url, project.service_key, project.jwt_secret, project.database_url

Needs Debian's postgresql and Node 20; the pinned Lite is installed on first use. Nothing listens but on loopback and
telemetry is off. Where Lite differs from a hosted project, the difference is made up for here and said so.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import subprocess
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from cli.local_postgres import START_DEADLINE_S, STOP_DEADLINE_S, LocalPostgres, LocalServerError, free_port
from services.auth.signatures import claims_of, signed

REPOSITORY = Path(__file__).resolve().parent.parent
STACK = REPOSITORY / "supabase" / "local"
MIGRATIONS = REPOSITORY / "supabase" / "migrations"

INSTALL_DEADLINE_S = 300.0
"""Some 70 packages, 10 s on a good line."""

REQUEST_DEADLINE_S = 10.0

TOKEN_LIFETIME_S = 3600
"""Supabase's default."""

LITE_ENVIRONMENT = {
    "LITE_TELEMETRY": "0",
    "DO_NOT_TRACK": "1",
    "LITE_NON_INTERACTIVE": "1",
    "LITE_AUTH_BCRYPT_COST": "4",  # the least there is: its passwords protect nothing
    "NO_COLOR": "1",
}

CONFIG = """
[api]
port = {port}
[db]
driver = "postgres"
url = "{database_url}"
[auth]
enabled = true
jwt_secret = "{jwt_secret}"
jwt_expiry = {lifetime}
enable_signup = true
publishable_key = "{publishable_key}"
secret_key = "{service_key}"
[auth.email]
enable_confirmations = false
"""


@dataclass(frozen=True)
class SignIn:
    """One sign-in of one user.

    Attributes:
        user_id: UUID of the user.
        session_id: UUID of the sign-in.
        access_token: Token as the project's Auth issued it.
    """

    user_id: str
    session_id: str
    access_token: str = field(repr=False)


class LocalSupabase(LocalPostgres):
    """A context manager around one project with the migrations applied; keys and secrets are new for each start."""

    def __init__(self, folder: Path | None = None, *, migrations: Path = MIGRATIONS) -> None:
        """Make the project's folder inside `folder`, by default among the temporary files; it is removed at the end.

        Args:
            folder: Where to put it; root's server runs as user `postgres`, who must get through to it.
            migrations: SQL files, applied by name; the last one called `*_privileges.sql` may be run again.
        """
        super().__init__(folder)
        self._migrations = migrations
        self.api_port = free_port()
        self.url = f"http://127.0.0.1:{self.api_port}"
        self.publishable_key = f"sb_publishable_{secrets.token_urlsafe(24)}"
        self.service_key = f"sb_secret_{secrets.token_urlsafe(24)}"
        self.jwt_secret = secrets.token_urlsafe(48)
        self._lite: subprocess.Popen[bytes] | None = None

    @property
    def issuer(self) -> str:
        """Claim `iss` of the project's tokens."""
        return f"{self.url}/auth/v1"

    def environment(self) -> dict[str, str]:
        """Return the settings with which the server uses this project."""
        return {
            "SUPABASE_URL": self.url,
            "SUPABASE_SERVICE_ROLE_KEY": self.service_key,
            "SUPABASE_PUBLISHABLE_KEY": self.publishable_key,
            "SUPABASE_JWT_SECRET": self.jwt_secret,
        }

    def start(self) -> None:
        """Return when sign-in and data API answer; raises LocalServerError when something does not start."""
        install_lite()
        super().start()
        self._run_scripts("0*.sql")
        project = self.folder / "project"
        (project / "supabase").mkdir(parents=True)
        (project / "supabase" / "migrations").symlink_to(self._migrations)
        config = CONFIG.format(
            port=self.api_port,
            database_url=self.database_url,
            jwt_secret=self.jwt_secret,
            lifetime=TOKEN_LIFETIME_S,
            publishable_key=self.publishable_key,
            service_key=self.service_key,
        )
        (project / "supabase" / "config.toml").write_text(config, encoding="utf-8")
        self._start_lite(project)
        # Lite's first data request of a process opens every table to every API role: provoke that, then restore what
        # the migrations say.
        self.request("GET", "/rest/v1/agents?limit=0", key=self.service_key)
        self.restore_privileges()

    def restore_privileges(self) -> None:
        """Apply the privileges migration again, which puts exactly its state back."""
        self.sql(max(self._migrations.glob("*_privileges.sql")).read_text(encoding="utf-8"))

    def stop_api(self) -> None:
        """Stop Auth, data API and Vault; PostgreSQL stays up."""
        if self._lite is not None and self._lite.poll() is None:
            self._lite.terminate()
            try:
                self._lite.wait(STOP_DEADLINE_S)
            except subprocess.TimeoutExpired:
                self._lite.kill()
                self._lite.wait()

    def stop(self) -> None:
        """Stop both servers and remove the folder."""
        self.stop_api()
        super().stop()

    def sign_up(self, email: str, password: str) -> SignIn:
        """Make a user and sign it in."""
        body = {"email": email, "password": password}
        return self._sign_in(self.request("POST", "/auth/v1/signup", key=self.publishable_key, body=body))

    def sign_in(self, email: str, password: str) -> SignIn:
        """Sign a user in once more: a new session."""
        body = {"email": email, "password": password}
        return self._sign_in(
            self.request("POST", "/auth/v1/token?grant_type=password", key=self.publishable_key, body=body)
        )

    def sign_out(self, sign_in: SignIn) -> None:
        """End the session of this sign-in."""
        path = "/auth/v1/logout?scope=local"
        self.request("POST", path, key=self.publishable_key, bearer=sign_in.access_token)

    def token(self, user_id: str, session_id: str | None = None, **claims: Any) -> str:
        """Return an access token with the claims a hosted project issues; given claims replace them.

        Source: Supabase, "JWT claims reference".
        """
        now = int(time.time())
        complete = {
            "iss": self.issuer,
            "sub": user_id,
            "aud": "authenticated",
            "role": "authenticated",
            "iat": now,
            "exp": now + TOKEN_LIFETIME_S,
            "session_id": session_id or str(uuid.uuid4()),
            "aal": "aal1",
            "amr": [{"method": "password", "timestamp": now}],
            "is_anonymous": False,
            "email": "",
            "phone": "",
            "app_metadata": {},
            "user_metadata": {},
        }
        return signed({**complete, **claims}, self.jwt_secret)

    def store_secret(self, value: str) -> str:
        """Put a secret into the Vault and return its id."""
        return self.sql(f"select vault.create_secret({_literal(value)})")

    def set_openai_key(self, value: str) -> str:
        """Make this the key the server finds for `openai`; returns its Vault id."""
        secret_id = self.store_secret(value)
        row = f"values ('openai', 'OpenAI', {_literal(secret_id)}, true)"
        self.sql(f"""
            insert into public.system_api_keys (provider_name, display_name, vault_secret_id, is_active) {row}
            on conflict (provider_name) do update set vault_secret_id = excluded.vault_secret_id, is_active = true
        """)
        return secret_id

    def request(
        self, method: str, path: str, *, key: str, bearer: str | None = None, body: dict[str, Any] | None = None
    ) -> Any:
        """Return the JSON answer of the project's API, None when it is empty; raises LocalServerError for a refusal."""
        headers = {"apikey": key}
        if bearer:
            headers["Authorization"] = f"Bearer {bearer}"
        try:
            with httpx.Client(base_url=self.url, timeout=REQUEST_DEADLINE_S, trust_env=False) as http:
                response = http.request(method, path, headers=headers, json=body)
        except httpx.TransportError as error:
            raise LocalServerError(f"Supabase Lite does not answer: {type(error).__name__}") from None
        if response.is_error:
            raise LocalServerError(f"Supabase Lite answered {response.status_code} to {method} {path.split('?')[0]}")
        return response.json() if response.content else None

    def _run_scripts(self, pattern: str) -> None:
        for script in sorted(STACK.glob(pattern)):
            self.sql(script.read_text(encoding="utf-8"))

    def _sign_in(self, answer: dict[str, Any]) -> SignIn:
        token = str(answer["access_token"])
        return SignIn(str(answer["user"]["id"]), _session_of(token), token)

    def _start_lite(self, project: Path) -> None:
        environment = {**os.environ, **LITE_ENVIRONMENT, "VOICE_TOKEN_ISSUER": self.issuer}
        lite = STACK / "node_modules/@supabase/lite/dist/cli/index.js"
        command = [os.environ.get("NODE", "node"), "--import", (STACK / "like-hosted.mjs").as_uri(), str(lite)]
        done = subprocess.run(
            [*command, "migration", "up"], cwd=project, env=environment, capture_output=True, text=True
        )
        if done.returncode:
            raise LocalServerError(f"the migrations failed: {(done.stdout + done.stderr)[-2000:]}")
        self._run_scripts("9*.sql")  # before the start, at which Lite learns what functions there are
        with (self.folder / "lite.log").open("wb") as log:
            self._lite = subprocess.Popen(
                [*command, "start", "--no-admin"],  # its admin page would serve requests without a key as service_role
                cwd=project,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_DEADLINE_S
        while not self._answers():
            if self._lite.poll() is not None or time.monotonic() > deadline:
                text = (self.folder / "lite.log").read_text(errors="replace")
                raise LocalServerError(f"Supabase Lite did not start: {text[-2000:]}")
            time.sleep(0.03)

    def _answers(self) -> bool:
        try:
            self.request("GET", "/auth/v1/.well-known/jwks.json", key=self.publishable_key)
        except LocalServerError:
            return False
        return True


def install_lite() -> None:
    """Install the pinned Supabase Lite unless it is there; raises LocalServerError when that fails.

    Scripts of packages are not run. A lock keeps two processes from installing at once.
    """
    marker = STACK / "node_modules" / ".package-lock.json"
    lock = STACK / "package-lock.json"
    if _is_newer(marker, lock):
        return
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if _is_newer(marker, lock):
            return
        command = [os.environ.get("NPM", "npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        try:
            done = subprocess.run(command, cwd=STACK, capture_output=True, text=True, timeout=INSTALL_DEADLINE_S)
        except FileNotFoundError:
            raise LocalServerError("npm was not found: apt-get install nodejs npm (Node 20 or newer)") from None
        except subprocess.TimeoutExpired:
            raise LocalServerError("npm ci took too long: is the package registry reachable?") from None
        if done.returncode:
            raise LocalServerError(f"npm ci failed: {done.stderr.strip()[-2000:]}")


def _is_newer(marker: Path, lock: Path) -> bool:
    return marker.exists() and marker.stat().st_mtime >= lock.stat().st_mtime


def _session_of(token: str) -> str:
    """Return the session id in a token that came from Lite itself."""
    return str(claims_of(token)["session_id"])


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def main() -> None:
    """Keep a project up and print its settings as JSON, until interrupted."""
    with LocalSupabase() as project:
        print(json.dumps({**project.environment(), "DATABASE_URL": project.database_url}, indent=2), flush=True)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
