"""A question, before what cannot be undone."""

import sys

import click


def ask(question: str, *, otherwise: str) -> None:
    """Returns if the answer is yes.

    Raises: ClickException, which says what is so `otherwise`; UsageError if nobody answers.
    """
    click.echo(f"{question} [y/N] ", nl=False, err=True)
    answer = sys.stdin.readline() if sys.stdin is not None else ""
    if not answer.endswith("\n"):
        click.echo(err=True)
    if not answer:
        raise click.UsageError("nobody is there to answer: say --yes")
    if answer.strip().lower() not in ("y", "yes"):
        raise click.ClickException(otherwise)
