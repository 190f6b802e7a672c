"""A corpus: one file cut into slices, and which partitions the files of a folder make."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from llm_assets.corpus import slice_file
from llm_assets.documents import DocumentSource
from llm_assets.errors import DocumentsError

ROWS = pl.DataFrame({"id": [f"{number:03}" for number in range(250)], "text": [f"text {n}" for n in range(250)]})
WRITERS: dict[str, Callable[[Path], object]] = {
    "csv": ROWS.write_csv,
    "jsonl": ROWS.write_ndjson,
    "parquet": ROWS.write_parquet,
}


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize(("rows", "heights"), [(100, [100, 100, 50]), (250, [250]), (125, [125, 125]), (999, [250])])
def test_slices_hold_all_rows_in_their_order(tmp_path: Path, suffix: str, rows: int, heights: list[int]) -> None:
    source = tmp_path / f"all.{suffix}"
    WRITERS[suffix](source)
    paths = list(slice_file(source, tmp_path / "data", rows))
    assert [path.name for path in paths] == [f"{number:05}.parquet" for number in range(1, len(heights) + 1)]
    slices = [pl.read_parquet(path) for path in paths]
    assert [found.height for found in slices] == heights
    assert pl.concat(slices).equals(ROWS)
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [path.name for path in paths]


def test_what_cannot_be_sliced_is_told(tmp_path: Path) -> None:
    sheet, broken, folder = tmp_path / "a.xlsx", tmp_path / "a.parquet", tmp_path / "data"
    broken.write_text("no table")
    with pytest.raises(DocumentsError, match=r"the format is unknown; there are \.csv"):
        list(slice_file(sheet, folder, 10))
    with pytest.raises(DocumentsError, match=r"cannot be read as parquet; expected a complete Parquet file"):
        list(slice_file(broken, folder, 10))
    folder.mkdir()
    ROWS.write_parquet(folder / "00001.parquet")
    with pytest.raises(DocumentsError, match="holds Parquet files already; slice into an empty folder"):
        list(slice_file(folder / "00001.parquet", folder, 10))


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        pytest.param("a.csv", "id,body\n1,x\n2,y,z\n", "as csv from line 3 on", id="a row that is too long"),
        pytest.param("a.csv", "id,body\r1,x\r2,y\r", "holds no rows", id="lines that end otherwise"),
        pytest.param("a.jsonl", '{"id": 1, "body": "\\ud83d"}\n', "line 1 is no JSON object", id="half a character"),
        pytest.param("a.jsonl", "\n", "holds no rows", id="nothing"),
    ],
)
def test_a_file_that_is_wrong_anywhere_leaves_no_slices(tmp_path: Path, name: str, content: str, told: str) -> None:
    source, folder = tmp_path / name, tmp_path / "data"
    source.write_bytes(content.encode())
    with pytest.raises(DocumentsError, match=told):
        list(slice_file(source, folder, 1))
    assert not folder.exists() or not list(folder.iterdir())


def test_a_blank_line_is_no_row(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,body\n1,x\n\n2,\n")
    (path,) = slice_file(tmp_path / "a.csv", tmp_path / "data", 9)
    assert pl.read_parquet(path).rows() == [("1", "x"), ("2", None)]


@pytest.mark.parametrize(
    ("path", "files", "keys"),
    [
        pytest.param("{partition}.csv", ["b.csv", "a.csv", "c.txt"], ["a", "b"], id="a file each"),
        pytest.param(
            "d/{partition}-*.csv", ["d/a-1.csv", "d/a-2.csv", "d/b-1.csv"], ["a", "b"], id="several files each"
        ),
        pytest.param("{partition}/*.csv", ["a/1.csv", "b/1.csv", "b/2.csv"], ["a", "b"], id="a folder each"),
        pytest.param("{partition}/{partition}.csv", ["a/a.csv", "b/c.csv"], ["a"], id="named twice"),
        pytest.param("x-{partition}.csv", ["x-a[1].csv", ".x-b.csv"], ["a[1]"], id="odd names"),
        pytest.param("{partition}.csv", [], [], id="nothing yet"),
    ],
)
def test_the_partitions_are_what_stands_in_the_names_of_files(
    tmp_path: Path, path: str, files: list[str], keys: list[str]
) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("id,text\n1,x\n")
    source = DocumentSource("corpus", path, "id", "text", base=tmp_path)
    assert list(source.arrived()) == keys
    assert all(source.files(key) for key in keys)
