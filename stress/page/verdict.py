"""What a result counts as. Only a plain ok without violations counts as held."""

from stress.page.markup import Markup, element
from stress.record import ScenarioResult

HELD, VIOLATED, SKIPPED = "ok", "VIOLATED", "SKIPPED"
SIGNS = {HELD: "✓", VIOLATED: "✗", SKIPPED: "\N{EN DASH}"}
CLASSES = {HELD: "held", VIOLATED: "violated", SKIPPED: "skipped"}


def verdict(result: ScenarioResult) -> str:
    if result.violations:
        return VIOLATED
    return result.verdict if result.verdict in (HELD, SKIPPED) else VIOLATED


def badge(found: str) -> Markup:
    """A sign and a word, beside its colour."""
    sign = element("span", SIGNS[found], aria_hidden="true")
    return element("span", sign, f" {found}", class_=f"badge {CLASSES[found]}")
