"""The store: whole files or none, names that cannot leave the root."""

from pathlib import Path

import polars as pl
import pytest

from llm_assets.errors import StoreError
from llm_assets.store import Store


def test_a_table_comes_back_as_it_was_written(tmp_path: Path) -> None:
    store, frame = Store(tmp_path), pl.DataFrame({"document_id": ["a"], "n": [1]})
    store.write("some/where.parquet", frame)
    assert store.scan("some/where.parquet").collect().equals(frame)


def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("table.parquet", pl.DataFrame({"n": [1]}))

    def interrupted() -> None:
        with store.writing("table.parquet") as temporary:
            temporary.write_bytes(b"half a ta")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert store.scan("table.parquet").collect()["n"].to_list() == [1]
    assert [path.name for path in tmp_path.iterdir()] == ["table.parquet"]


def test_scratch_is_gone_afterwards(tmp_path: Path) -> None:
    with Store(tmp_path).scratch() as folder:
        (folder / "results.jsonl").touch()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("partition", ["..", ".", "../../etc", "a/b", "/etc/passwd", "a\\b", "x\0y"])
def test_a_partition_key_cannot_leave_its_folder(tmp_path: Path, partition: str) -> None:
    store = Store(tmp_path)
    for name in (store.documents("d", partition), store.enriched("e", partition), store.plan("e", partition, "1")):
        assert store.local(name).resolve().is_relative_to(tmp_path)
        assert "/../" not in name
    assert len({store.enriched("e", key) for key in ("..", ".", "a/b", "a%2Fb")}) == 4


def test_what_is_not_there_is_said_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"missing.parquet is not in the store .* materialize what is upstream"):
        Store(tmp_path).scan("missing.parquet")


def test_only_folders_are_supported(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="only a folder is supported"):
        Store("s3://bucket/prefix")
