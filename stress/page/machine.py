"""Where it ran: the machine, the versions, the file system."""

from stress.page.chart import empty, section
from stress.page.markup import Markup, element
from stress.record import Run


def machine(run: Run) -> Markup:
    if not run.facts:
        return section("machine", "Machine", "", empty("Nothing is known of the machine."))
    facts = [
        element("div", element("dt", name), element("dd", fact)) for name, fact in run.facts.items()
    ]
    return section("machine", "Machine", "", element("dl", facts, class_="facts"))
