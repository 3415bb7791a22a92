"""What a worker does beside its sessions: brings transcripts to the store, looks after keys, takes over lost spools."""

from __future__ import annotations

import asyncio
from pathlib import Path

from handlers.context import Context
from services.spool import Spool
from services.vault import KeyUnavailable

DRAIN_AGAIN_S = 1.0
"""Pause before the drainer is begun again after a bug: long enough not to fill the log, short for a transcript."""

ADOPT_S = 30.0
"""Between two looks for spool files without a process: a worker that crashed is back within seconds and goes on with
its own, so a file is lost when two looks in a row find it so."""

SPOOL_WAIT_S = 5.0
"""How long a worker waits for its spool file while a sibling adopts it; that takes milliseconds for each record."""


def spool_name(worker: str) -> str:
    """Return the name of a worker's spool file."""
    return f"spool-{worker}.spool"


async def adopt_at_start(spool: Spool, state_dir: str, worker: str, workers: int) -> None:
    """Take over the spool files of workers that are no more; those of this server's seats have owners to come."""
    port = worker.rpartition("-")[0]
    seats = {spool_name(f"{port}-{number}") for number in range(workers)}
    await spool.adopt(state_dir, await spool.ownerless(state_dir) - seats)


async def keep_adopting(context: Context) -> None:
    """Take over the spool files of workers that died for good, until cancelled."""
    folder = Path(context.settings.state_dir)
    before: frozenset[str] = frozenset()
    while True:
        await asyncio.sleep(ADOPT_S)
        found = await context.spool.ownerless(folder)
        if lost := found & before:
            await context.spool.adopt(folder, lost)
        before = found - lost


def keep_draining(context: Context) -> None:
    """Bring transcripts to the store until the spool is closed; begin again after a bug has stopped it."""

    def again() -> None:
        asyncio.get_running_loop().call_later(DRAIN_AGAIN_S, keep_draining, context)

    context.start(context.spool.run(context.store), "spool-drainer", failed=again)


async def warm(context: Context) -> None:
    """Fetch the signing keys and the API key before the first caller needs them; what is missing is logged."""
    await context.verifier.warm()
    try:
        await context.keys.key()
    except KeyUnavailable as error:
        context.logger.error("no API key", step=error.step, mend=error.how_to_mend)


def forget_keys(context: Context) -> None:
    """Drop the API keys and the published signing keys from memory, so that a change counts with the next session."""
    context.keys.forget()
    context.verifier.purge()
    context.logger.info("keys forgotten")
