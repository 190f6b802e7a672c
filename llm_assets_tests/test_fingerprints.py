"""Sets of fingerprints hold what was added, and nothing else; parts of a partition are cut by them."""

from hashlib import blake2b

import polars as pl
import pytest

from llm_assets.fingerprints import FingerprintSet
from llm_assets.history import parts_of


def _fingerprints(*names: int) -> pl.Series:
    return pl.Series([blake2b(str(name).encode(), digest_size=16).hexdigest() for name in names], dtype=pl.String)


def test_a_set_says_which_are_new_as_pythons_own_does() -> None:
    ours, pythons = FingerprintSet(), set[str]()
    for start in range(0, 3000, 70):  # each slice shares 30 with the one before
        fingerprints = _fingerprints(*range(start, start + 100))
        assert ours.add(fingerprints).to_list() == [one not in pythons for one in fingerprints]
        pythons.update(fingerprints)
        assert len(ours) == len(pythons)
    asked = _fingerprints(*range(-500, 4000, 3))
    assert ours.holds(asked).to_list() == [one in pythons for one in asked]


def test_no_fingerprint_is_in_no_set() -> None:
    some = FingerprintSet()
    assert some.holds(pl.Series([None, "00" * 16], dtype=pl.String)).to_list() == [False, False]
    some.add(pl.Series(["00" * 16, "ff" * 16]))
    asked = pl.Series([None, "00" * 16, "ff" * 16, "0f" * 16], dtype=pl.String)
    assert some.holds(asked).to_list() == [False, True, True, False]


def test_nothing_can_be_added_to_a_set() -> None:
    some = FingerprintSet()
    assert some.add(pl.Series([], dtype=pl.String)).is_empty()
    assert len(some) == 0


@pytest.mark.parametrize(
    ("requests", "count"),
    [
        pytest.param(0, 1, id="none"),
        pytest.param(1_000, 1, id="just one part"),
        pytest.param(1_001, 2, id="one more"),
        pytest.param(7_777, 8, id="several"),
    ],
)
def test_each_request_is_in_one_part(requests: int, count: int) -> None:
    table = pl.DataFrame({"fingerprint": [None, "0" * 32, "f" * 32, *_fingerprints(*range(1000))]})
    parts = [table.filter(part)["fingerprint"] for part in parts_of(requests, 1_000)]
    assert len(parts) == count
    assert sorted(pl.concat(parts).drop_nulls()) == sorted(table["fingerprint"].drop_nulls())
    assert [part.null_count() for part in parts] == [1] + [0] * (count - 1)


def test_parts_are_about_as_large_as_was_asked_for() -> None:
    table = pl.DataFrame({"fingerprint": _fingerprints(*range(20_000))})
    sizes = [table.filter(part).height for part in parts_of(20_000, 2_000)]
    assert len(sizes) == 10
    assert max(sizes) < 2_300
