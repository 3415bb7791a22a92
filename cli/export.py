"""`./voice export ID`: a stored conversation as a document. It leaves an audit line in the log."""

from __future__ import annotations

import argparse
import json
import os

from cli.console import given_path, say
from cli.operations import CannotLook, audit
from cli.show import stored
from core.export import as_json, as_text


def main(argv: list[str]) -> int:
    """Write one conversation to standard output or to a file that only this user may read.

    Returns:
        0, or 1 when there is no such conversation, the database cannot be read or the file cannot be written.
    """
    parser = argparse.ArgumentParser(prog="./voice export", description="Write a stored conversation as a document.")
    parser.add_argument("id", metavar="ID", help="of the conversation, or the sid of its call")
    parser.add_argument("--format", choices=("json", "text"), default="json", help="default json")
    parser.add_argument("--out", metavar="FILE", help="a new file (default: standard output)")
    options = parser.parse_args(argv)
    try:
        of, turns = stored(options.id)
    except CannotLook as error:
        say(f"voice export: {error}")
        return 1
    audit("transcript exported", conversation_id=of.id, format=options.format)
    document = as_text(of, turns) if options.format == "text" else json.dumps(as_json(of, turns), indent=2) + "\n"
    if options.out is None:
        print(document, end="")
        return 0
    try:
        path = given_path(options.out)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(document)
    except OSError as error:
        say(f"voice export: {options.out} cannot be written ({error.strerror or type(error).__name__})")
        return 1
    say(f"{len(turns)} messages written to {options.out}")
    return 0
