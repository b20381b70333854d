"""Words: what is said into a doorbell to one ticket, and decides.

A word is more than a ring, which is a hint: whoever reads it out of the doorbell decides, and
nobody else can. The ticket's owner has what it says; or somebody has taken it back, as part of a
transaction. So it is sent once, after the commit of what it says, and sent again only by who took
it back and has undone that, before anybody else can write.
"""

Given = tuple[int, int]
"""The token and the slot of a grant."""


def word(ticket: int, token: int, slot: int) -> bytes:
    """That the grant of that token, in that slot, was handed over to that ticket."""
    return to_whom(token, slot) % ticket


def to_whom(token: int, slot: int) -> bytes:
    """The same before it is known to which ticket, which `%` puts in; it gets no shorter by it."""
    return b"=%%20a:%d:%d;" % (token, slot)


def handed_to(ticket: int, rings: bytes) -> Given | None:
    """What that ticket's word says, if it is among what was read out of a doorbell."""
    _, said, rest = rings.partition(b"=%20d:" % ticket)
    numbers, ended, _ = rest.partition(b";")
    token, _, slot = numbers.partition(b":")
    if said and ended and token.isdigit() and slot.isdigit():
        return int(token), int(slot)
    return None
