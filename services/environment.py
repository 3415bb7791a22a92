"""Where the server's settings come from: `.env`, the process's environment, and systemd's credentials."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values


def effective_environment(dotenv: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of `.env`, over them the process's own, and over those systemd's credentials.

    Args:
        dotenv: The file; a missing one holds nothing.
        environ: The process's own; its `CREDENTIALS_DIRECTORY` names the folder of LoadCredential (systemd.exec(5)),
            where each file is named as a setting in small letters with hyphens.

    Raises:
        OSError: If the credentials cannot be read.
    """
    found = {name: value for name, value in dotenv_values(dotenv).items() if value is not None}
    found |= environ
    credentials = environ.get("CREDENTIALS_DIRECTORY")
    if credentials:
        for file in Path(credentials).iterdir():
            if text := file.read_text().strip():  # an empty file sets nothing, and hides no variable
                found[file.name.upper().replace("-", "_")] = text
    return found
