"""A report's content, apart from how it is written down: the Markdown and the HTML say the same.

Text may hold code between backticks; `code` makes whatever a user named safe to stand there.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_LONGEST = 200  # characters of a name or a reason


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: Sequence[str]


@dataclass(frozen=True)
class Table:
    """Cells as text; the first column names the row.

    Attributes:
        head: Of the columns.
        rows: As many cells each.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Plot:
    """A chart, in the HTML alone.

    Attributes:
        figure: Plotly's.
        caption: What it shows, in a sentence.
    """

    figure: Any
    caption: str


Block = Text | Bullets | Table | Plot


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Document:
    """A whole report."""

    title: str
    sections: Sequence[Section]


def code(value: Any, longest: int = _LONGEST) -> str:  # noqa: ANN401
    """``value`` as one line of code: no line breaks or control characters, no backticks, and an end."""
    printable = "".join(letter if letter.isprintable() else " " for letter in str(value))
    text = re.sub(r" +", " ", printable).replace("`", "'").strip() or " "
    return f"`{text if len(text) <= longest else text[: longest - 1] + '…'}`"
