"""The files by which the stress suite sees for itself who holds what."""

from pathlib import Path

import pytest

from stress.witness import BY_MANY, BY_ONE, alone, among, had, is_first

pytestmark = pytest.mark.suite


def test_who_is_alone_is_so_and_tokens_rise(tmp_path: Path) -> None:
    path = str(tmp_path / "witness")
    with alone(path, 3), pytest.raises(AssertionError, match="two processes"), alone(path, 4):
        pass
    with pytest.raises(AssertionError, match="token 3 came after 3"), alone(path, 3):
        pass
    with alone(path, 4):
        pass


def test_many_are_beside_each_other_and_nobody_beside_one(tmp_path: Path) -> None:
    path = str(tmp_path / "witness")
    refused = pytest.raises(AssertionError, match="two processes")
    with had(path, BY_MANY), had(path, BY_MANY), refused, had(path, BY_ONE):
        pass
    with had(path, BY_ONE) as writer:
        with pytest.raises(AssertionError, match="two processes"), had(path, BY_MANY):
            pass
        writer.share()
        with had(path, BY_MANY):
            pass


def test_who_comes_second_is_not_the_first(tmp_path: Path) -> None:
    path = str(tmp_path / "witness")
    with is_first(path) as one, is_first(path) as other:
        assert one
        assert not other


def test_no_more_are_among_than_the_limit(tmp_path: Path) -> None:
    """Several at once count as many, and who is refused leaves nothing taken."""
    path = str(tmp_path / "witness")
    with among(path, 3, 2) as nobody:
        assert nobody == 0
        with pytest.raises(AssertionError, match="2 of 3 are had, and 2 more"), among(path, 3, 2):
            pass
        with among(path, 3, 1) as others:
            assert others == 2
    with among(path, 3, 3) as nobody:
        assert nobody == 0
