"""A table of figures; the first column names the row, and stays in sight while it scrolls."""

from collections.abc import Iterable, Sequence

from stress.page.chart import cut, scrolling
from stress.page.markup import Content, Markup, element

_LONGEST = 60


def table(label: str, heads: Sequence[Content], rows: Iterable[Markup], class_: str = "") -> Markup:
    head = element("tr", [element("th", said, scope="col") for said in heads])
    body = element("tbody", rows)
    whole = element("table", element("thead", head), body, class_=class_ or None)
    return scrolling(label, whole)


def row(name: Content, cells: Iterable[Markup], class_: str = "") -> Markup:
    name = cut(name, _LONGEST) if type(name) is str else name
    return element("tr", element("th", name, scope="row"), cells, class_=class_ or None)


def figure_cell(said: str, class_: str = "") -> Markup:
    return element("td", said, class_=f"number {class_}".strip())


def turned(name: str) -> Markup:
    """The head of a narrow column."""
    return element("span", cut(name, _LONGEST // 2), class_="turned")
