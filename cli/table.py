"""Plain tables for a terminal: columns as wide as their widest cell, numbers to the right."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from core.redaction import one_line

GAP = "  "


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset()) -> list[str]:
    """Return the lines of a table, its head first; control characters in cells are written as escapes.

    Args:
        heads: Names of the columns.
        rows: Cells, as many as there are columns.
        right: Places of the columns that are flush right.
    """
    clean = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(len(row[place]) for row in [heads, *clean]) for place in range(len(heads))]
    return [_line(row, widths, right) for row in [heads, *clean]]


def _line(row: Sequence[str], widths: Sequence[int], right: frozenset[int]) -> str:
    cells = (
        cell.rjust(width) if place in right else cell.ljust(width)
        for place, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    return GAP.join(cells).rstrip()


def fitted(lines: Sequence[str]) -> list[str]:
    """Return the lines cut at the terminal's width, so that none takes two."""
    columns = shutil.get_terminal_size((120, 40)).columns
    return [line[:columns] for line in lines]


def age(seconds: float) -> str:
    """Return a duration as people read it: `4:07`, `1:02:03`, `3 d 04:00`."""
    whole = int(seconds)
    days, hours, minutes = whole // 86_400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours:02}:{minutes:02}"
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def money(usd: float) -> str:
    """Return US dollars with what matters of them."""
    return f"${usd:.2f}" if usd >= 1 or usd == 0 else f"${usd:.4f}"


def delay(milliseconds: float | None) -> str:
    """Return a delay in milliseconds, `-` for none."""
    return "-" if milliseconds is None else f"{milliseconds:g} ms"
