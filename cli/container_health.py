"""Asks the server in the same container whether it is alive: `python -m cli.container_health`, for HEALTHCHECK.

Standard library only: it runs every few seconds, and importing the command line would cost more than asking.
"""

from __future__ import annotations

import http.client
import os
import sys

ANSWER_S = 4.0
"""Below the 5 s after which the engine gives up by itself."""

DEFAULT_PORT = "8081"


def main() -> int:
    """Return 0 when the server answers, whatever it says of itself: one that drains must not be restarted."""
    port = os.environ.get("HEALTH_PORT") or DEFAULT_PORT
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=ANSWER_S)
    try:
        connection.request("GET", "/health")
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return 1
    finally:
        connection.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
