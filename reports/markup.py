"""HTML as nested elements. Whatever is not `Markup` is text, and is escaped on its way in."""

import base64
import html
from collections.abc import Iterable, Sequence

EMPTY_ELEMENTS = frozenset({"img", "meta", "link", "br", "rect", "line", "path", "circle"})


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def element(name: str, /, *children: str, **attributes: str) -> Markup:
    """`<name attribute="...">children</name>`; `class_` is class, `data_label` data-label."""
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(value)}"'
        for key, value in attributes.items()
    )
    if name in EMPTY_ELEMENTS:
        assert not children, f"<{name}> holds nothing"
        return Markup(f"<{name}{said}>" if name in ("img", "meta", "link", "br")
                      else f"<{name}{said}/>")  # fmt: skip
    return Markup(f"<{name}{said}>{joined(children)}</{name}>")


def joined(parts: Iterable[str]) -> Markup:
    """One after the other, text escaped."""
    return Markup("".join(p if isinstance(p, Markup) else html.escape(p) for p in parts))


def spaced(parts: Sequence[str], between: str) -> list[str]:
    """The parts with something between each two."""
    return [text for part in parts for text in (between, part)][1:]


def paragraph(*children: str, **attributes: str) -> Markup:
    """A paragraph."""
    return element("p", *children, **attributes)


def items(texts: Iterable[str]) -> Markup:
    """A list; nothing where there is nothing to list."""
    entries = [element("li", text) for text in texts]
    return element("ul", *entries) if entries else Markup()


def table(
    caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], *, words: int = 1
) -> Markup:
    """A table whose first `words` columns are text; on a phone long rows become cards."""
    titles = element(
        "tr", *(element("th", t, scope="col", class_=_kind(n, words)) for n, t in enumerate(head))
    )
    body = [
        element("tr", *(_cell(n, title, value, words) for n, (title, value) in named))
        for named in (enumerate(zip(head, row, strict=True)) for row in rows)
    ]
    parts = (element("caption", caption), element("thead", titles), element("tbody", *body))
    kind = "cards" if len(head) > 2 else "pairs"
    return element("div", element("table", *parts, class_=kind), class_="scroll")


def folded(title: str, *children: str) -> Markup:
    """What only some readers want: closed until it is asked for."""
    return element("details", element("summary", title), *children)


def _cell(place: int, title: str, value: str, words: int) -> Markup:
    kind = _kind(place, words)
    if place == 0:
        return element("th", value, scope="row", class_=kind)
    return element("td", value, data_label=title, class_=kind)


def _kind(place: int, words: int) -> str:
    return "words" if place < words else "number"


def picture(png: bytes, description: str) -> Markup:
    """A PNG inside the page."""
    data = base64.b64encode(png).decode()
    return element("img", src=f"data:image/png;base64,{data}", alt=description)
