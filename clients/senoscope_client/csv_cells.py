"""The cells of tables: text that stays in its cell and is not a formula, whatever program reads it."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Final

# What spreadsheets take for the beginning of a formula (OWASP: CSV injection), full-width forms included.
_FORMULA: Final = "=+\\-@＝＋－＠"  # noqa: RUF001
# At the beginning, and behind a semicolon: where the comma is the decimal mark, spreadsheets split lines
# there.
# Blanks and quotation marks before it are skipped as spreadsheets skip them.
_BEGINS_FORMULA: Final = re.compile(rf"(^|;)(?=[\s\"']*[{_FORMULA}])")
# Unicode categories: control characters, line and paragraph separators; format characters (such as those that
# change the direction of writing), lone surrogates and noncharacters.
_UNSAFE: Final = {"Cc", "Zl", "Zp", "Cf", "Cs", "Cn"}


def safe_text(text: str) -> str:
    """Text as it is written into a table.

    Control characters, line breaks among them, and characters without an image of their own become U+FFFD;
    what a spreadsheet would take for a formula is preceded by an apostrophe.
    """
    if not text.isprintable():
        text = "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in _UNSAFE else c for c in text)
    return _BEGINS_FORMULA.sub(r"\1'", text)


def csv_cell(value: object) -> object:
    """A value as `csv.writer` takes it: numbers as they are, everything else as safe text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return " ".join(str(csv_cell(part)) for part in value)
    return safe_text(str(value))


def csv_rows(rows: Iterable[Iterable[object]]) -> Iterator[str]:
    """Rows as lines of CSV, one each. Every table of Senoscope that people open is written here."""
    out = io.StringIO()
    # All text is quoted, so that programs that split lines at other characters than commas keep cells whole.
    writer = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    for row in rows:
        out.seek(0)
        out.truncate()
        writer.writerow([csv_cell(value) for value in row])
        yield out.getvalue()
