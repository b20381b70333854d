"""What can be said before or after the verb, and how a verb reads its arguments."""

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, TypeVar

import click

from kvsync.cli.output import remark

F = TypeVar("F", bound=Callable[..., Any])

_NEGATIVE_NUMBER = re.compile(r"-\.?\d")


@dataclass
class Asked:
    """The common options of one command line."""

    store: str | None = None
    json: bool = False


pass_asked = click.make_pass_decorator(Asked, ensure=True)


def _remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    asked = ctx.ensure_object(Asked)
    if value is not None:
        setattr(asked, str(param.name), value)


def with_store(function: F) -> F:
    """Adds --store, remembered in `Asked`."""
    return click.option(
        "--store",
        metavar="PATH",
        expose_value=False,
        callback=_remember,
        help="The store: a path or a URL sqlite:///path.",
    )(function)


def with_json(function: F) -> F:
    """Adds --json, remembered in `Asked`."""
    return click.option(
        "--json",
        is_flag=True,
        default=None,
        expose_value=False,
        callback=_remember,
        help="Print JSON, for programs.",
    )(function)


class Verbs(click.Group):
    """Lists its verbs in the order of their definition."""

    def list_commands(self, _: click.Context) -> list[str]:
        return list(self.commands)


def explained(ctx: click.Context) -> int:
    """What a group itself returns: without a verb, it explains itself."""
    if ctx.invoked_subcommand is not None:
        return 0
    remark(ctx.get_help())
    return 2


class Verb(click.Command):
    """A command that takes a negative number for an argument, and refuses unknown options."""

    ignore_unknown_options = True

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        known = [name for param in self.get_params(ctx) for name in param.opts]
        for word in takewhile(lambda word: word != "--", args):
            name = word.partition("=")[0]
            if _looks_like_option(name) and not {name, name[:2]} & {*known}:
                close = difflib.get_close_matches(name, known)
                raise click.NoSuchOption(name, possibilities=close, ctx=ctx)
        return super().parse_args(ctx, args)


def _looks_like_option(word: str) -> bool:
    return len(word) > 1 and word.startswith("-") and not _NEGATIVE_NUMBER.match(word)


at_most = click.IntRange(1, 2**31 - 1)
"""The type of an option that takes a number of things."""

at_most_or_none = click.IntRange(0, 2**31 - 1)
"""The same where it may be none of them."""


_LONGEST = 10 * 365 * 86_400
"""Seconds that anybody can mean: ten years, as of rate limiters. Clocks and sleeps have an end."""


def positive(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """The callback of an option that takes a positive number of seconds, of ten years at most."""
    if value is not None and not 0 < value <= _LONGEST:
        what = f"{value} is not a positive number of seconds, of ten years at most"
        raise click.BadParameter(what, ctx, param)
    return value


def not_negative(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """The callback of an option that takes a number of seconds, of ten years at most, or none."""
    if value is not None and not 0 <= value <= _LONGEST:
        what = f"{value} is not a number of seconds, of ten years at most"
        raise click.BadParameter(what, ctx, param)
    return value


def finite(ctx: click.Context, param: click.Parameter, value: float) -> float:
    """The callback of an option that takes a number of any sign."""
    if not abs(value) <= 2**53:
        raise click.BadParameter(f"{value} is not within 2**53 either way", ctx, param)
    return value
