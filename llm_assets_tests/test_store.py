"""The store: whole files or none, names that cannot leave the root."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from llm_assets.errors import StoreError
from llm_assets.store import Store
from llm_assets_tests.platforms import local
from llm_assets_tests.samples import SHARD


def test_a_table_comes_back_as_it_was_written(tmp_path: Path) -> None:
    store, frame = Store(tmp_path), pl.DataFrame({"document_id": ["a"], "n": [1]})
    store.write("some/where.parquet", frame)
    assert store.scan("some/where.parquet").collect().equals(frame)


def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("table.parquet", pl.DataFrame({"n": [1]}))

    def interrupted() -> None:
        with store.files.writing("table.parquet") as temporary:
            temporary.write_bytes(b"half a ta")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert store.scan("table.parquet").collect()["n"].to_list() == [1]
    assert [path.name for path in tmp_path.iterdir()] == ["table.parquet"]


def test_scratch_is_gone_afterwards(tmp_path: Path) -> None:
    with Store(tmp_path).files.scratch() as folder:
        (folder / "results.jsonl").touch()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("partition", ["..", ".", ".a", "../../etc", "a/b", "/etc/passwd", "a\\b", "x\0y"])
def test_a_partition_key_cannot_leave_its_folder(tmp_path: Path, partition: str) -> None:
    store = Store(tmp_path)
    for name in (store.documents("d", partition), store.enriched("e", partition), store.plan("e", partition, "1")):
        assert local(store, name).resolve().is_relative_to(tmp_path)
        assert "/." not in name
    assert len({store.enriched("e", key) for key in ("..", ".", "a/b", "a%2Fb")}) == 4


def test_what_is_not_there_is_said_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"missing.parquet is not in the store .* materialize what is upstream"):
        Store(tmp_path).scan("missing.parquet")


TABLE = pl.DataFrame({"n": range(1000), "text": [f"secret {number * 7919 % 1009}" for number in range(1000)]})


def halfway(table: bytes) -> bytes:
    """Columns overwritten, beginning and end in order."""
    middle = len(table) // 2
    return table[: middle - 500] + bytes(1000) + table[middle + 500 :]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda table: b"", id="empty"),
        pytest.param(lambda table: table[:-100], id="cut"),
        pytest.param(lambda table: bytes(1000), id="zeros"),
    ],
)
def test_a_table_that_is_none_is_named_before_it_is_read(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    store = Store(tmp_path)
    store.write("good.parquet", TABLE)
    store.write("some/where.parquet", TABLE)
    table = local(store, "some/where.parquet")
    table.write_bytes(damage(table.read_bytes()))
    with pytest.raises(StoreError, match=r"some/where.parquet in the store .* is damaged .* put back a copy"):
        store.scan_all(["good.parquet", "some/where.parquet"], dict(TABLE.schema))


def test_damage_within_a_table_is_found(tmp_path: Path) -> None:
    store = Store(tmp_path)
    stem = store.shard("e", "p", 1, "key")
    for name in ("a", "b"):
        store.write(f"{stem}{name}.results.parquet", TABLE)
    store.check("e", "p")
    table = local(store, f"{stem}b.results.parquet")
    table.write_bytes(halfway(table.read_bytes()))
    store.scan(f"{stem}b.results.parquet")
    with pytest.raises(StoreError, match=r"wave-01/keyb.results.parquet in the store .* is damaged") as raised:
        store.check("e", "p")
    assert "secret" not in str(raised.value)


def test_a_column_that_an_older_table_lacks_is_null(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("old.parquet", TABLE.select("n"))
    found = store.scan_all(["old.parquet"], dict(TABLE.schema))
    assert found.collect_schema() == TABLE.schema
    assert found.collect()["text"].null_count() == TABLE.height


def test_other_roots_are_refused() -> None:
    with pytest.raises(StoreError, match=r"expected the path of a folder, or s3://bucket/prefix"):
        Store("gs://bucket/prefix")


@pytest.mark.parametrize("longest", ["x" * 237, "ü" * 39, "☃" * 26], ids=["ascii", "umlauts", "snowmen"])
def test_a_partition_key_that_no_file_can_be_called_by_is_refused_at_once(tmp_path: Path, longest: str) -> None:
    store = Store(tmp_path)
    for path in (store.documents("d", longest), store.plan("e", longest, "p"), store.failed("e", longest)):
        store.write(path, TABLE)
    for name in (store.documents, store.enriched, store.failed):
        with pytest.raises(StoreError, match="bytes in a file's name, where 237 are possible"):
            name("d", longest + longest[:1])
    with pytest.raises(StoreError, match="use a shorter one"):
        store.plan("e", longest * 2, "p")


def test_results_are_sorted_so_that_some_requests_are_a_part_of_the_file(tmp_path: Path) -> None:
    store = Store(tmp_path)
    fingerprints = [f"{number:04}" for number in range(12_000)]
    table = pl.DataFrame({"fingerprint": fingerprints}, schema={"fingerprint": pl.String}).sample(
        fraction=1, shuffle=True, seed=1
    )
    path = store.write_results(SHARD, table, collector="c")
    assert store.scan(path).collect()["fingerprint"].is_sorted()
    assert path != store.write_results(SHARD, table, collector="d")
