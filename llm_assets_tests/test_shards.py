"""Requests → shard files within limits; property-based, over both providers' formats."""

import itertools
import tempfile
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_assets.providers import Dialect, get_provider
from llm_assets.records import Fingerprint, ShardLimits
from llm_assets.shards import PackedShard, Packer, custom_id, fingerprint_of, limits_for

PROVIDERS = ["anthropic", "openai"]


def fingerprint(number: int) -> Fingerprint:
    return Fingerprint(f"{number:032x}")


def pack(folder: Path, dialect: Dialect, bodies: list[bytes], limits: ShardLimits) -> list[PackedShard]:
    keys = (f"{number:012x}" for number in itertools.count())

    def new_shard() -> tuple[str, Path]:
        key = next(keys)
        return key, folder / key

    packer = Packer(dialect, limits, new_shard)
    for number, body in enumerate(bodies):
        packer.add(fingerprint(number), body)
    packer.close()
    return packer.take_finished()


def requests_of(shard: PackedShard, provider: str) -> list[tuple[str, object]]:
    content = shard.path.read_bytes()
    if provider == "anthropic":
        return [(r["custom_id"], r["params"]) for r in orjson.loads(content)["requests"]]
    return [(r["custom_id"], r["body"]) for r in map(orjson.loads, content.strip().split(b"\n"))]


@pytest.mark.parametrize("provider", PROVIDERS)
@given(sizes=st.lists(st.integers(0, 2_000), max_size=40), count=st.integers(1, 10), room=st.integers(2_700, 9_000))
def test_every_request_is_in_one_shard_and_every_shard_within_limits(
    provider: str, sizes: list[int], count: int, room: int
) -> None:
    dialect = get_provider(provider).dialect
    bodies = [orjson.dumps({"x": "y" * size}) for size in sizes]
    with tempfile.TemporaryDirectory() as folder:
        shards = pack(Path(folder), dialect, bodies, ShardLimits(requests=count, bytes=room))
        found = [request for shard in shards for request in requests_of(shard, provider)]
        for shard in shards:
            assert 1 <= len(shard.fingerprints) <= count
            assert shard.path.stat().st_size == shard.bytes <= room
    expected = [
        (custom_id(shard.key, name), orjson.loads(bodies[int(name, 16)]))
        for shard in shards
        for name in shard.fingerprints
    ]
    assert found == expected
    assert sorted(int(name, 16) for shard in shards for name in shard.fingerprints) == list(range(len(bodies)))


@pytest.mark.parametrize(("provider", "sizes"), [("anthropic", [300, 299, 298, 297]), ("openai", [300] * 4)])
def test_sizes_differ_where_a_lost_batch_is_told_by_its_size(tmp_path: Path, provider: str, sizes: list[int]) -> None:
    shards = pack(tmp_path, get_provider(provider).dialect, [b"{}"] * 1_250, ShardLimits(300, 1_000_000))
    assert [len(shard.fingerprints) for shard in shards[:4]] == sizes


def test_nothing_to_pack_writes_nothing(tmp_path: Path) -> None:
    assert pack(tmp_path, get_provider("openai").dialect, [], ShardLimits(10, 1000)) == []
    assert list(tmp_path.iterdir()) == []


def test_a_custom_id_names_its_shard_and_its_request() -> None:
    name = custom_id("00aa", fingerprint(7))
    assert fingerprint_of(name, "00aa") == fingerprint(7)
    assert fingerprint_of(name, "00ab") is None
    assert fingerprint_of("somebody-elses", "00aa") is None
    assert fingerprint_of("", "00aa") is None


def test_a_custom_id_is_one_that_both_providers_take() -> None:
    assert len(custom_id("0" * 12, fingerprint(1))) <= 64


def test_limits_can_be_lowered_and_not_raised() -> None:
    dialect = get_provider("openai").dialect
    assert limits_for(dialect, None) == dialect.limits
    assert limits_for(dialect, ShardLimits(10, 1 << 60)) == ShardLimits(10, dialect.limits.bytes)
