"""What the server knows and decides: facts in, commands out; no I/O, no clock, no log."""
