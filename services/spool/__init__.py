"""The durable outbox: what was said is safe on disk before anybody is told so, and reaches the store when it can.

Rules 1 to 10 of the operations reference, section 5. `outbox` is the door both ways, `disk` the file and its thread,
`rows` what is in it, `drain` order, retries and dead rows, `adopt` takes over the files of processes that are gone.
Audio has no way in: only records of `core.records` do.
"""

from __future__ import annotations

from .disk import Report, SpoolClosed, SpoolError, SpoolFull, SpoolLocked
from .drain import SpoolLimits
from .outbox import Spool, SpoolStats, message_id

__all__ = [
    "Report",
    "Spool",
    "SpoolClosed",
    "SpoolError",
    "SpoolFull",
    "SpoolLimits",
    "SpoolLocked",
    "SpoolStats",
    "message_id",
]
