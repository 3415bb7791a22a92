"""Several processes as one server: a parent that keeps them going, and each one's seat in it.

`sockets` opens what they listen on, `seat` is a worker's side of the link to its parent, `supervisor` the parent's.
The parent takes no connection and touches no session: it starts workers, restarts them, and passes on what it is told.
"""

from __future__ import annotations

from .seat import DRAIN, FORCE, FORGET, LEAVE, ORPHANED, Seat
from .sockets import bind, listen, open_groups
from .supervisor import Supervisor

__all__ = ["DRAIN", "FORCE", "FORGET", "LEAVE", "ORPHANED", "Seat", "Supervisor", "bind", "listen", "open_groups"]
