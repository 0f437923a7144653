"""A table that stands in a page of docs, replaced in place."""

from pathlib import Path


def put_table(page: Path, table: list[str]) -> None:
    """Replace the table with the same heading; what is written around it stays."""
    lines = page.read_text().split("\n")
    if lines.count(table[0]) != 1:
        raise ValueError(
            f"{page} has {lines.count(table[0])} tables headed {table[0]!r}; "
            "one is needed: change the heading there to this one"
        )
    first = lines.index(table[0])
    after = next(n for n in range(first, len(lines)) if not lines[n].startswith("|"))
    page.write_text("\n".join([*lines[:first], *table, *lines[after:]]))
