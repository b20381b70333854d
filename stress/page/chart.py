"""What all pictures share."""

from collections.abc import Iterable, Sequence

from stress.page.figures import since
from stress.page.markup import Content, Markup, element
from stress.page.scale import Linear

WIDTH = 960


def picture(
    name: str, height: float, title: str, description: str, *content: Content, width: float = WIDTH
) -> Markup:
    """One SVG; `name` is its own on the page."""
    return element(
        "svg",
        element("title", title, id=f"{name}-title"),
        element("desc", description, id=f"{name}-desc"),
        *content,
        viewBox=f"0 0 {width:g} {height:g}",
        width=width,
        height=height,
        role="img",
        aria_labelledby=f"{name}-title",
        aria_describedby=f"{name}-desc",
    )


def section(name: str, title: str, said: Content, *content: Content) -> Markup:
    heading = element("h2", title, id=f"{name}-heading")
    lead = element("p", said, class_="lead") if said else None
    labelled = f"{name}-heading"
    return element("section", heading, lead, *content, id=name, aria_labelledby=labelled)


def scrolling(label: str, *content: Content, class_: str = "") -> Markup:
    """What is wider than a small screen scrolls in its own box, by keyboard too."""
    classes = f"scrolls {class_}".strip()
    return element("div", *content, class_=classes, role="region", aria_label=label, tabindex=0)


def figure(title: str, said: str, *content: Content) -> Markup:
    caption = element("figcaption", element("h3", title), element("p", said) if said else None)
    return element("figure", caption, *content)


def empty(reason: str) -> Markup:
    return element("p", reason, class_="empty")


def legend(entries: Iterable[tuple[Markup, Content]]) -> Markup:
    """A sample of each mark with its meaning."""
    return element(
        "ul", [element("li", _sample(mark), said) for mark, said in entries], class_="legend"
    )


def words(said: str, x: float, y: float, *classes: str, title: str = "") -> Markup:
    whole = element("title", title) if title else None
    return element("text", whole, said, x=x, y=y, class_=" ".join(classes) or None)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def time_axis(across: Linear, top: float, bottom: float, wanted: int = 8) -> list[Markup]:
    """Rules from top to bottom, and below them the moments; `across` is in seconds from 0."""
    return [
        mark
        for tick in across.ticks(wanted)
        for mark in (
            line(across(tick), top, across(tick), bottom, "rule"),
            words(since(tick, across.high), across(tick), bottom + 18, "tick", "middle"),
        )
    ]


def cut(said: str, most: int) -> str:
    """Its beginning and end, if it is longer than `most` characters."""
    if len(said) <= most:
        return said
    tail = most // 3
    return f"{said[: most - tail - 1]}…{said[-tail:]}"


def listed(names: Sequence[str], most: int = 4) -> str:
    more = [f"{len(names) - most:,} more"] if len(names) > most else []
    return ", ".join([*names[:most], *more])


def _sample(mark: Markup) -> Markup:
    return element("svg", mark, viewBox="0 0 22 14", width=22, height=14, aria_hidden="true")
