"""Text that is safe to show: on a terminal, in a log, in the one line of a message."""

import unicodedata

_JOINERS = "\u200c\u200d"  # invisible, and part of words and emoji
_UNSAFE = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def printable(text: str, keep: str = "") -> str:
    """`text` with control characters as escapes: what others wrote must not drive a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c in keep or not _is_unsafe(c) else _escaped(c) for c in text)


def _is_unsafe(character: str) -> bool:
    return unicodedata.category(character) in _UNSAFE and character not in _JOINERS


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
