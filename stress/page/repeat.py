"""The command that shows the same again."""

from stress.page.markup import Markup, element


def repeat(command: str) -> Markup | None:
    """None if there is none."""
    if not command:
        return None
    code = element("pre", element("code", command), tabindex=0, aria_label="command")
    return element("div", element("span", "Repeat it with", class_="kicker"), code, class_="repeat")
