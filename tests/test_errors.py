"""Errors: each is also what people already catch, reads as a sentence, and pickles."""

import inspect
import pickle

import pytest

import kvsync
from kvsync import errors

EVERY = [each for _, each in inspect.getmembers(errors, inspect.isclass)]


@pytest.mark.parametrize("kind", EVERY)
def test_an_error_says_its_sentence_and_pickles(kind: type[Exception]) -> None:
    """Whatever built-in it derives from."""
    error = kind("the sentence")
    assert str(error) == "the sentence"
    assert str(pickle.loads(pickle.dumps(error))) == "the sentence"


@pytest.mark.parametrize("kind", [each for each in EVERY if issubclass(each, OSError)])
def test_an_error_of_the_system_keeps_its_number_out_of_the_sentence(
    kind: type[OSError],
) -> None:
    """`errno` has it."""
    error = pickle.loads(pickle.dumps(kind(28, "no space left")))
    assert str(error) == "no space left"
    assert error.errno == 28


@pytest.mark.parametrize("kind", EVERY)
def test_every_error_is_public_and_more_than_a_kvsync_error(kind: type[Exception]) -> None:
    """All but the root are also a built-in."""
    assert getattr(kvsync, kind.__name__) is kind
    assert issubclass(kind, kvsync.KvsyncError)
    builtin = {base.__name__ for base in kind.__mro__ if base.__module__ == "builtins"}
    assert kind is kvsync.KvsyncError or builtin - {"object", "Exception", "BaseException"}
