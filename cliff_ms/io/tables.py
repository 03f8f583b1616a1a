"""Tables of rows, each a dictionary from column to value."""

from collections.abc import Collection, Iterable, Iterator


def cell(value: object) -> str:
    """A value as text: numbers with two decimals, those of an array with none."""
    if isinstance(value, float):
        return f"{value:.2f}"
    if isinstance(value, Collection) and not isinstance(value, str):
        return " ".join(f"{v:.0f}" for v in value)
    return str(value)


def markdown_table(rows: Iterable[dict]) -> Iterator[str]:
    """Write a Markdown table as its rows come.

    Args:
        rows: One or more, all with the columns of the first.

    Yields:
        Its lines: head, rule and a line for each row.
    """
    columns = None
    for row in rows:
        if columns is None:
            columns = list(row)
            yield from (_line(columns), _line("---" for _ in columns))
        yield _line(cell(row[column]) for column in columns)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
