"""Tables as text and as HTML."""

from collections.abc import Sequence
from html import escape

_STYLE = "text-align:{};padding:0 0.8em"


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Return a table whose first `left` columns begin at the left; the others end at the right."""
    lines = [[*map(str, line)] for line in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def joined(line: Sequence[str]) -> str:
        cells = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join([joined(lines[0]), rule, *map(joined, lines[1:])])


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Return the same table for a notebook; whatever stands in it is shown, not interpreted."""

    def line(cells: Sequence[str], tag: str) -> str:
        shown = (
            f'<{tag} style="{_STYLE.format("left" if i < left else "right")}">{escape(str(cell))}'
            f"</{tag}>"
            for i, cell in enumerate(cells)
        )
        return f"<tr>{''.join(shown)}</tr>"

    body = "".join(line(cells, "td") for cells in rows)
    return f"<table><thead>{line(head, 'th')}</thead><tbody>{body}</tbody></table>"
