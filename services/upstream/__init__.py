"""The link to the Realtime API; the only package that names a WebSocket client library.

One `Upstream` (`opening`) serves the process and holds what links share: the address, one TLS context with the tickets
to resume its sessions (`tickets`), the deadlines. A `Link` (`link`) gives messages as whole frames in bytes and takes
them as such; it says once, and only once, that it is lost. `dialer` connects its socket.
"""

from __future__ import annotations

from .link import Link
from .opening import Target, Upstream, UpstreamError

__all__ = ["Link", "Target", "Upstream", "UpstreamError"]
