"""CPython's own test of the mapping protocol, on `store.dict()`.

`NOT_APPLICABLE` is the one list of its methods that a dict on a disk cannot pass, with reasons.
It is empty.
"""

import itertools
from typing import Any

import pytest

import kvsync
from tests.cpython import own_tests

mapping_tests = own_tests("test.mapping_tests")

NOT_APPLICABLE: dict[str, str] = {}


class Conformance(mapping_tests.BasicTestMappingProtocol):  # type: ignore[misc, name-defined]
    """The reference values of CPython's tests, in a dict of a fresh name for each mapping."""

    codec: str

    @pytest.fixture(autouse=True)
    def fresh_dicts(self, store: kvsync.Store) -> None:
        names = (f"dict {i}" for i in itertools.count())
        self.type2test = lambda: store.dict(next(names), codec=self.codec)
        if reason := NOT_APPLICABLE.get(self._testMethodName):
            pytest.skip(reason)


class TestWithPickle(Conformance):
    codec = "pickle"


class TestWithJson(Conformance):
    """JSON turns a tuple into a list: the reference has a list in its place."""

    codec = "json"

    def _reference(self) -> dict[str, Any]:
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in super()._reference().items()
        }


# pytest collects the classes whose names begin with Test, and every TestCase.
del Conformance


def test_the_list_of_what_cannot_apply_names_real_methods() -> None:
    known = {name for name in dir(TestWithJson) if name.startswith("test_")}
    assert set(NOT_APPLICABLE) <= known
    assert len(known) >= 13
