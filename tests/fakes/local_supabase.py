"""One local Supabase project for the whole test run: the stack of `./voice demo --supabase`.

Import the fixture `project` into a test module; whichever test asks first starts it, and it ends with the run.
It misleads where Supabase Lite differs from a hosted project: it signs with HS256 only, publishes no keys, keeps
secrets of the Vault unencrypted, and says `SUP` where PostgreSQL says 23514.
"""

from __future__ import annotations

import shutil
import uuid

import pytest

from cli.local_postgres import LocalServerError, postgres_tool
from cli.local_supabase import LocalSupabase, SignIn

PASSWORD = "correct-horse-battery"

_RUNNING = pytest.StashKey[LocalSupabase]()


@pytest.fixture(scope="session")
def project(request: pytest.FixtureRequest) -> LocalSupabase:
    """Return the run's project; the database is shared, so tests make users of their own."""
    reason = missing()
    if reason:
        pytest.skip(reason)
    stash = request.config.stash
    if _RUNNING not in stash:
        running = LocalSupabase()
        request.config.add_cleanup(running.stop)
        running.start()
        stash[_RUNNING] = running
    return stash[_RUNNING]


def missing() -> str | None:
    """Return why the project cannot be started here, or None."""
    try:
        postgres_tool("initdb")
    except LocalServerError as error:
        return str(error)
    absent = [name for name in ("node", "npm") if shutil.which(name) is None]
    return f"{' and '.join(absent)} not installed: apt-get install nodejs npm" if absent else None


def new_user(project: LocalSupabase) -> SignIn:
    """Sign up a user that no other test has."""
    return project.sign_up(f"{uuid.uuid4()}@example.com", PASSWORD)
