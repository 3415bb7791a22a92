"""Names of Twilio's things: two letters and 32 hexadecimal digits."""
from __future__ import annotations

import uuid


def new_sid(prefix: str) -> str:
    """Return a sid nobody has: `CA` a call, `MZ` a stream, `AC` an account."""
    return prefix + uuid.uuid4().hex
