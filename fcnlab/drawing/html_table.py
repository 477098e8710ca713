"""Tables for notebooks, which show an object by its ``_repr_html_``."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


def html_table(
    caption: str, header: Sequence[str], rows: Sequence[Sequence[str]], colours: Sequence[Sequence[int]] = ()
) -> str:
    """Return a table as HTML, in which every text is escaped.

    Args:
        caption: The line above the table.
        header: The names of the columns.
        rows: The texts of each row, one for each column.
        colours: The RGB colours, 0 to 255, of squares before the first text of the first rows; one for each of them.
    """
    squares = [f'<span style="color:rgb({red},{green},{blue})">&#9632;</span> ' for red, green, blue in colours]
    squares += [""] * (len(rows) - len(squares))
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join(
        f"<tr><td>{square}" + "</td><td>".join(map(escape, row)) + "</td></tr>"
        for square, row in zip(squares, rows, strict=True)
    )
    return f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
