"""JSON for programs, and text for people."""

import base64
import json
import sys
from contextlib import suppress
from typing import Any

import click

from kvsync.codec import JSON, Stored


def say(text: str) -> None:
    """One line for people."""
    click.echo(text)


def remark(text: str) -> None:
    """One line on stderr. It changes nothing that nobody can read it."""
    with suppress(OSError):
        click.echo(text, err=True)


def emit(value: Any) -> None:
    """One line of JSON."""
    click.echo(dump(value))


def dump(value: Any) -> str:
    """`value` as JSON that stdout can carry, whatever its encoding."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        return json.dumps(value)
    return text


def shortened(text: str, length: int) -> str:
    """So many characters of it at most."""
    return text if len(text) <= length else text[: length - 1] + "…"


def loaded(stored: Stored) -> Any:
    """What a dict holds, whatever codec wrote it: JSON's value, else the text or bytes itself."""
    try:
        return JSON.loads(stored)
    except (ValueError, RecursionError):
        return stored


def jsonable(value: Any) -> Any:
    """What `loaded` returned, with bytes as {"base64": "..."}."""
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    return value


def reason(error: Exception) -> str:
    """What went wrong, in one line and without error numbers."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(text.split())
