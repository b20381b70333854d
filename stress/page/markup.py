"""Elements of HTML and SVG. What is not `Markup` is text, and is escaped."""

import html
import re
from collections.abc import Iterable

_VOID = {"br", "meta", "wbr"}

_UNWRITABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
"""No XML may hold it, no UTF-8 can, or it changes the order in which other text is read."""

_PICTURES = 0x2400
"""Where Unicode has a visible picture for each control character."""


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


Content = str | None | Iterable["Content"]
Value = str | float | None


def element(tag: str, *content: Content, **attributes: Value) -> Markup:
    """`class_` stands for class, `aria_label` for aria-label; what is None is left out."""
    opened = tag + "".join(_attribute(name, value) for name, value in attributes.items())
    if tag in _VOID:
        return Markup(f"<{opened}>")
    return Markup(f"<{opened}>{together(content)}</{tag}>")


def together(content: Iterable[Content]) -> Markup:
    return Markup("".join(map(_escaped, content)))


def text(raw: str) -> Markup:
    """Escaped, with a visible mark for each character that no page can hold."""
    return Markup(html.escape(_UNWRITABLE.sub(_visible, raw)))


def _escaped(content: Content) -> str:
    if content is None or isinstance(content, Markup):
        return content or ""
    return text(content) if isinstance(content, str) else together(content)


def _attribute(name: str, value: Value) -> str:
    if value is None:
        return ""
    return f' {name.rstrip("_").replace("_", "-")}="{text(_written(value))}"'


def _written(value: str | float) -> str:
    return (
        value if isinstance(value, str) else f"{round(value, 2):g}" if value % 1 else f"{value:.0f}"
    )


def _visible(found: re.Match[str]) -> str:
    code = ord(found.group())
    return chr(_PICTURES + code) if code < 0x20 else "\N{REPLACEMENT CHARACTER}"
