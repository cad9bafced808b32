"""Put what the experiment printed into a page, between two marks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from uwbench.api import InputError, write_atomically

BEGIN = "<!-- experiment: written by the command -->"
END = "<!-- end of experiment -->"


def write_tables(page: Path, command: str, lines: Sequence[str]) -> None:
    """Replace what stands between the marks by the command and its tables; raise InputError without the marks."""
    try:
        text = page.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("cannot be read", where=page) from error
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(f"lacks the marks {BEGIN} and {END}", where=page)
    inner = "\n".join(["", "", f"    {command}", "", *lines, "", ""])
    write_atomically(page, f"{before}{begin}{inner}{end}{after}".encode())
