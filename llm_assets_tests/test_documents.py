"""Sources become documents: what is read, what it is typed as, and how each fault of a source is told."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_assets.documents import DocumentSource, DocumentsSummary, read_documents
from llm_assets.errors import DeclarationError, DocumentsError, StoreError

AT = pl.Datetime("us", "UTC")
CSV = DocumentSource("tickets", "{partition}.csv", "id", "body", source="tickets.yaml")
JSONL = replace(CSV, path="{partition}.jsonl")
PARQUET = replace(CSV, path="{partition}.parquet")


def written(source: DocumentSource, folder: Path, partition: str = "p") -> pl.DataFrame:
    source = replace(source, base=folder)
    target = folder / "out" / "documents.parquet"
    summary = source.write(partition, target)
    frame = pl.read_parquet(target)
    empty = frame.filter(pl.col("text").fill_null("").str.strip_chars() == "").height
    assert summary == DocumentsSummary(frame.height, target.stat().st_size, empty, summary.files)
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    assert frame.equals(pl.concat([pl.DataFrame(schema=frame.schema), *read_documents(target, 2)]))
    assert frame.equals(pl.concat([pl.DataFrame(schema=frame.schema), *source.slices(partition, 2)]))
    return frame


def csv(folder: Path, text: str | bytes, name: str = "p.csv") -> None:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())


# -- declarations ------------------------------------------------------------------------------------------

KNOWN = "known types are string, integer, number, boolean, date, datetime"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"path": "data/all.csv"},
            "the path 'data/all.csv' does not say where the partition goes; write {partition} in it",
        ),
        ({"format": "xlsx"}, "the format 'xlsx' is unknown; there are csv, jsonl, parquet"),
        (
            {"path": "{partition}.txt"},
            "the path '{partition}.txt' does not tell its format; add `format:` (csv, jsonl, parquet)",
        ),
        (
            {"path": "{partition}.parquet.gz"},
            "the path '{partition}.parquet.gz' does not tell its format; add `format:` (csv, jsonl, parquet)",
        ),
        ({"text_column": "id"}, "text_column and id_column are both 'id'; they must be two columns"),
        ({"columns": {"n": "int"}}, f"columns.n has the type 'int'; {KNOWN}"),
        ({"columns": {"n": {"type": "integer"}}}, f"columns.n has the type {{'type': 'integer'}}; {KNOWN}"),
        (
            {"columns": {"text": "string"}},
            "the column 'text' is declared, but every document has it anyway; remove it",
        ),
        (
            {"columns": {"document_id": "string"}},
            "the column 'document_id' is declared, but every document has it anyway; remove it",
        ),
        (
            {"name": "my docs"},
            "the name 'my docs' must begin with a lower-case letter and have at most 60 lower-case letters, digits "
            "and underscores",
        ),
        (
            {"format": "x", "text_column": "id"},
            "2 problems\n  - the format 'x' is unknown; there are csv, jsonl, parquet\n"
            "  - text_column and id_column are both 'id'; they must be two columns",
        ),
    ],
)
def test_bad_declaration(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        replace(CSV, **changes).check()
    assert str(caught.value) == f"tickets.yaml: {problem}"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"path": "{partition}/*.csv.gz"},
        {"path": "{partition}.ndjson"},
        {"path": "{partition}/*.jsonl.gz"},
        {"path": "{partition}/part-*", "format": "parquet"},
        {"columns": {"n": "integer", "body": "string"}},
    ],
)
def test_good_declaration(changes: dict[str, Any]) -> None:
    replace(CSV, **changes).check()


def test_schema_is_what_prompts_may_use() -> None:
    source = replace(CSV, columns={"n": "integer", "at": "datetime"})
    assert source.schema == {"document_id": pl.String(), "text": pl.String(), "n": pl.Int64(), "at": AT}


# -- files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["..", ".", "", "a/b", "/etc/passwd", "a\\b", "../x", "a\0", ". "])
def test_a_partition_key_cannot_leave_the_folder(tmp_path: Path, key: str) -> None:
    with pytest.raises(DocumentsError, match="cannot be part of a path"):
        replace(CSV, base=tmp_path).files(key)


@pytest.mark.parametrize("key", ["2026-01-01", "a b", "x..y", "a[1]", "x*", "?", "de|2026", "ü", "{partition}"])
@pytest.mark.parametrize("source", [CSV, JSONL, PARQUET], ids=["csv", "jsonl", "parquet"])
def test_a_partition_key_is_taken_literally(tmp_path: Path, source: DocumentSource, key: str) -> None:
    frame = pl.DataFrame({"id": ["1"], "body": ["b"]})
    write: dict[str, Callable[[pl.DataFrame, Path], None]] = {
        ".csv": lambda frame, path: frame.write_csv(path),
        ".jsonl": lambda frame, path: frame.write_ndjson(path),
        ".parquet": lambda frame, path: frame.write_parquet(path),
    }
    suffix = Path(source.path).suffix
    for name in (key, f"other{key}", "a1", "xyz", "z"):
        write[suffix](frame, tmp_path / f"{name}{suffix}")
    source = replace(source, base=tmp_path)
    assert [file.name for file in source.files(key)] == [str(tmp_path / f"{key}{suffix}")]
    assert [slice_.rows() for slice_ in source.slices(key)] == [[("1", "b")]]


def test_a_name_that_is_no_text_keeps_no_other_file_from_being_found(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in (b"good.csv", b"caf\xe9.csv"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_text("id,body\n1,x\n")
    assert list(DocumentSource("texts", "{partition}.csv", "id", "body", base=tmp_path).arrived()) == ["good"]
    assert "its name is no UTF-8" in caplog.text


def test_a_file_whose_name_gives_no_key_is_left_out_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a..b", "a\\b"):
        (tmp_path / f"{name}.csv").write_text("id,body\n1,x\n")
    assert list(DocumentSource("texts", "{partition}.csv", "id", "body", base=tmp_path).arrived()) == ["a..b"]
    assert "cannot be a partition's key; rename it" in caplog.text


def test_several_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    folder = tmp_path / "b[a]se" / "p"
    folder.mkdir(parents=True)
    csv(folder, "id,body,x\n2,b,y\n", "part-2.csv")
    csv(folder, "body,x,id\na,z,1\n", "part-1.csv")
    csv(folder, "half-written", ".part-3.csv")
    (folder / "folder.csv").mkdir()
    source = replace(CSV, path="{partition}/*.csv", base=tmp_path / "b[a]se")
    target = tmp_path / "documents.parquet"
    assert source.write("p", target).files == 2
    assert pl.read_parquet(target).to_dicts() == [
        {"document_id": "1", "text": "a", "x": "z"},
        {"document_id": "2", "text": "b", "x": "y"},
    ]


EMPTY = {"document_id": pl.String(), "text": pl.String(), "n": pl.Int64()}


@pytest.mark.parametrize("content", [None, b"", b"\n\n"], ids=["no file", "nothing", "blank lines"])
@pytest.mark.parametrize("source", [CSV, JSONL, replace(JSONL, path="{partition}.jsonl.gz")])
def test_a_partition_without_documents(tmp_path: Path, source: DocumentSource, content: bytes | None) -> None:
    source = replace(source, base=tmp_path, columns={"n": "integer"})
    if content is not None:
        packed = gzip.compress(content) if source.path.endswith(".gz") else content
        (tmp_path / source.path.replace("{partition}", "p")).write_bytes(packed)
    target = tmp_path / "documents.parquet"
    summary = source.write("p", target)
    assert (summary.rows, summary.files, summary.empty_texts) == (0, 0, 0)
    assert dict(pl.read_parquet(target).schema) == EMPTY


def test_a_header_alone_has_no_documents_but_its_columns_are_checked(tmp_path: Path) -> None:
    csv(tmp_path, "id,body,n,x\n")
    frame = written(replace(CSV, columns={"n": "integer"}), tmp_path)
    assert dict(frame.schema) == EMPTY | {"x": pl.String()}
    with pytest.raises(DocumentsError, match="there is no column 'z'"):
        written(replace(CSV, columns={"z": "integer"}), tmp_path)


# -- reading -----------------------------------------------------------------------------------------------


def test_csv_as_it_is_written_in_the_wild(tmp_path: Path) -> None:
    csv(tmp_path, b"\xef\xbb\xbf" + 'id,body\r\n007,"a ""b"",\r\nc"\r\n7,\u2028x\x85\r\n1e3,\r\n\r\n'.encode())
    assert written(CSV, tmp_path).rows() == [("007", 'a "b",\r\nc'), ("7", "\u2028x\x85"), ("1e3", None)]


def test_jsonl_as_it_is_written_in_the_wild(tmp_path: Path) -> None:
    lines = [
        {"id": 7, "body": "a", "meta": {"x": 1}},
        {"id": "007", "body": "\u2028😀", "tags": ["t"]},
        {"body": None, "id": 2**63, "meta": {"y": "z"}},
    ]
    text = json.dumps(lines[0]) + "\r\n\n" + "\n".join(json.dumps(line) for line in lines[1:])
    (tmp_path / "p.jsonl").write_text(text)
    assert written(JSONL, tmp_path).to_dicts() == [
        {"document_id": "7", "text": "a", "meta": {"x": 1, "y": None}, "tags": None},
        {"document_id": "007", "text": "\u2028😀", "meta": None, "tags": ["t"]},
        {"document_id": str(2**63), "text": None, "meta": {"x": None, "y": "z"}, "tags": None},
    ]


def test_jsonl_files_may_leave_out_what_they_do_not_know(tmp_path: Path) -> None:
    (tmp_path / "p-1.jsonl").write_text('{"id":1,"body":"a","n":1,"x":1,"z":null}\n')
    (tmp_path / "p-2.jsonl").write_text('{"id":"b","body":"b","x":1.5,"y":true}\n')
    source = replace(JSONL, path="{partition}-*.jsonl", columns={"n": "integer"})
    assert written(source, tmp_path).to_dicts() == [
        {"document_id": "1", "text": "a", "n": 1, "x": 1.0, "z": None, "y": None},
        {"document_id": "b", "text": "b", "n": None, "x": 1.5, "z": None, "y": True},
    ]


def test_jsonl_ids_keep_their_digits(tmp_path: Path) -> None:
    ids = [7, 1.5, 2**53 + 1, 2**64 + 1]
    (tmp_path / "p.jsonl").write_text("".join(f'{{"id":{name},"body":"x"}}\n' for name in ids))
    assert written(JSONL, tmp_path)["document_id"].to_list() == [str(name) for name in ids]


def test_jsonl_objects_without_keys_stay_json(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"id":1,"body":"a","x":{},"y":[{"z":{}}],"w":[],"\\u0000":3}\n')
    assert written(JSONL, tmp_path).rows() == [("1", "a", "{}", '[{"z": {}}]', [], 3)]


@pytest.mark.parametrize("suffix", ["csv.gz", "jsonl.gz"])
def test_compressed(tmp_path: Path, suffix: str) -> None:
    content = b"id,body\n1,a\n" if suffix == "csv.gz" else b'{"id":1,"body":"a"}\n'
    (tmp_path / f"p.{suffix}").write_bytes(gzip.compress(content))
    assert written(replace(CSV, path=f"{{partition}}.{suffix}"), tmp_path).rows() == [("1", "a")]


def test_parquet_ids_become_strings(tmp_path: Path) -> None:
    pl.DataFrame({"body": ["a"], "id": [7], "x": [[1]]}).write_parquet(tmp_path / "p.parquet")
    assert written(PARQUET, tmp_path).to_dicts() == [{"document_id": "7", "text": "a", "x": [1]}]


TYPED = {"s": "string", "i": "integer", "f": "number", "b": "boolean", "d": "date", "t": "datetime"}
VALUES = {
    "s": "007",
    "i": -7,
    "f": 1.5,
    "b": True,
    "d": date(2026, 1, 2),
    "t": datetime(2026, 1, 2, 1, 4, 5, tzinfo=UTC),
}


def test_declared_columns_are_typed(tmp_path: Path) -> None:
    csv(tmp_path, "id,s,body,i,f,b,d,t\n1,007,x,-7,1.5,TRUE,2026-01-02,2026-01-02T03:04:05+02:00\n2,,,,,,,\n")
    full, empty = written(replace(CSV, columns=TYPED), tmp_path).to_dicts()
    assert full == {"document_id": "1", "text": "x"} | VALUES
    assert empty == {"document_id": "2", "text": None} | dict.fromkeys(VALUES)
    line = {
        "id": 1,
        "body": "x",
        "s": "007",
        "i": -7,
        "f": 1.5,
        "b": True,
        "d": "2026-01-02",
        "t": "2026-01-02 01:04:05",
    }
    (tmp_path / "p.jsonl").write_text(json.dumps(line) + '\n{"id": 2, "body": null}\n')
    assert written(replace(JSONL, columns=TYPED), tmp_path).to_dicts() == [full, empty]
    pl.DataFrame([full, empty]).rename({"document_id": "id", "text": "body"}).write_parquet(tmp_path / "p.parquet")
    assert written(replace(PARQUET, columns=TYPED), tmp_path).to_dicts() == [full, empty]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("integer", "SECRET"),
        ("integer", "1.5"),
        ("integer", str(2**63)),
        ("number", "1,5"),
        ("boolean", "yes"),
        ("date", "02.01.2026"),
        ("date", "2026-02-30"),
        ("datetime", "2026-01-02"),
        ("datetime", "1767312000"),
    ],
)
def test_a_value_of_another_type_is_named_by_its_row(tmp_path: Path, kind: str, text: str) -> None:
    csv(tmp_path, f'id,body,c\n1,x,\n\n2,y,"{text}"\n')
    with pytest.raises(DocumentsError) as caught:
        written(replace(CSV, columns={"c": kind}), tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/p.csv: row 3 holds no {kind} in the column 'c', which is declared as such"
    )


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("integer", 1.5),
        ("integer", 2**64),
        ("integer", True),
        ("boolean", 1),
        ("date", 5),
        ("string", {"a": 1}),
        ("number", [1]),
    ],
)
def test_a_json_value_of_another_type(tmp_path: Path, kind: str, value: object) -> None:
    (tmp_path / "p.jsonl").write_text(json.dumps({"id": 1, "body": "x", "c": value}))
    with pytest.raises(DocumentsError, match=f"row 1 holds no {kind} in the column 'c'"):
        written(replace(JSONL, columns={"c": kind}), tmp_path)


# -- faults ------------------------------------------------------------------------------------------------

CSV_EXPECTED = "UTF-8, as many fields in a row as in the header, quotes doubled inside quotes"
NO_OBJECT = (
    "cannot be read as jsonl from line {} on; expected UTF-8, one JSON object a line, one type for each key "
    "(ComputeError)"
)
HALF_A_PAIR = (
    "line 1 is no JSON object, perhaps for half of a surrogate pair (\\ud800 to \\udfff); write the character itself "
    "or leave it out"
)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(
            "id,body\n1,a\n,SECRET\n", "1 rows have no id in the column 'id', the first is row 2; .*", id="null id"
        ),
        pytest.param(
            'id,body\n" ",a\n"",b\n', "2 rows have no id in the column 'id', the first is row 1; .*", id="blank ids"
        ),
        pytest.param(
            f"{'SECRET ' * 9},{'SECRET ' * 8}\n",
            r"there is no column 'id', 'body'; the file has 2 columns, not all with plain names: .*",
            id="no header",
        ),
        pytest.param(
            "d1,the SECRET one\n",
            r"there is no column 'id', 'body'; the file has 2 columns, not all with plain names: .*",
            id="no header and short texts",
        ),
        pytest.param(
            f"id,body\n1,a\n{'x' * 513},b\n",
            r"the id in row 2 has more than 512 characters; is 'id' the column of ids\?",
            id="long id",
        ),
        pytest.param("key,body,z\n1,a,b\n", "there is no column 'id'; the file has 'key', 'body', 'z'", id="no id"),
        pytest.param("a,b\n1,a\n", "there is no column 'id', 'body'; the file has 'a', 'b'", id="neither"),
        pytest.param(
            "id,body,text\n1,a,b\n",
            "the file has a column 'text', but 'body' is declared to be it; rename one of them in the source",
            id="another text",
        ),
        pytest.param(
            "id,body,document_id\n1,a,b\n",
            "the file has a column 'document_id', but 'id' is declared to be it; rename one of them in the source",
            id="another document_id",
        ),
        pytest.param(
            "id,body\n1,a\n2,b,SECRET\n",
            rf"cannot be read as csv from line 3 on; expected {CSV_EXPECTED} \(ComputeError\)",
            id="a field too many",
        ),
        pytest.param(
            'id,body\n1,a\n2,"SECRET\n3,b\n',
            rf"cannot be read as csv from line \d on; expected {CSV_EXPECTED} \(ComputeError\)",
            id="an open quote",
        ),
        pytest.param(
            "id,body\n1,SECRÉT\n".encode("latin-1"),
            rf"cannot be read as csv from line \d on; expected {CSV_EXPECTED} \(ComputeError\)",
            id="Latin-1",
        ),
    ],
)
def test_bad_csv(tmp_path: Path, content: str | bytes, problem: str) -> None:
    csv(tmp_path, content)
    with pytest.raises(DocumentsError) as caught:
        written(CSV, tmp_path)
    assert re.fullmatch(re.escape(f"{tmp_path}/p.csv: ") + problem, str(caught.value))
    assert "SECR" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param('{"id":1,"body":"x"}\n{"id":2,"bo', NO_OBJECT.format(2), id="cut off"),
        pytest.param('{"id":1,"body":"x"}\n\nSECRET\n', NO_OBJECT.format(3), id="no JSON"),
        pytest.param('[{"id":1,"body":"x"}]', NO_OBJECT.format(1), id="an array"),
        pytest.param('{"id":1,"body":"x"} {"id":2,"body":"y"}', NO_OBJECT.format(1), id="two a line"),
        pytest.param('{\n"id":1}', NO_OBJECT.format(1), id="pretty"),
        pytest.param('\ufeff{"id":1,"body":"x"}', NO_OBJECT.format(1), id="byte order mark"),
        pytest.param('{"id":1,"body":"SECRET \\ud83d"}', HALF_A_PAIR, id="half an emoji"),
        pytest.param(
            '{"id":1,"body":{"SECRET":1}}', "the column 'body' holds structs; expected strings", id="text is an object"
        ),
        pytest.param(
            '{"id":[1],"body":"SECRET"}', "the column 'id' holds lists; expected strings", id="id is an array"
        ),
        pytest.param("{}", "there is no column 'id', 'body'; the file has no columns", id="no keys"),
        pytest.param('{"body":"SECRET"}', "there is no column 'id'; the file has 'body'", id="no id at all"),
        pytest.param(
            '{"id":1,"body":"x"}\n{"body":"SECRET"}',
            "1 rows have no id in the column 'id', the first is row 2; every document needs one",
            id="no id in one",
        ),
    ],
)
def test_bad_jsonl(tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / "p.jsonl").write_text(content)
    with pytest.raises(DocumentsError) as caught:
        written(JSONL, tmp_path)
    assert str(caught.value) == f"{tmp_path}/p.jsonl: {problem}"
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet at all" * 10], ids=["empty", "cut", "other"])
def test_bad_parquet(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p.parquet").write_bytes(content)
    with pytest.raises(DocumentsError, match="cannot be read as parquet; expected a complete Parquet file"):
        written(PARQUET, tmp_path)


@pytest.mark.parametrize("suffix", ["csv.gz", "jsonl.gz"])
def test_bad_gzip(tmp_path: Path, suffix: str) -> None:
    line = b'{"id":1,"body":"a"}\n' if suffix == "jsonl.gz" else b"id,body\n"
    whole = gzip.compress(line * 100_000)
    (tmp_path / f"p.{suffix}").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DocumentsError, match=rf"p\.{suffix}: cannot be read"):
        written(replace(CSV, path=f"{{partition}}.{suffix}"), tmp_path)


def test_a_source_that_is_cut_while_it_is_read_does_not_end_the_process(tmp_path: Path) -> None:
    line = json.dumps({"id": "0", "body": "x" * 10_000}) + "\n"
    (tmp_path / "p.jsonl").write_text(line * 10_000)
    read = f"""
from os import truncate
from pathlib import Path
from llm_assets.documents import DocumentSource
source = DocumentSource("tickets", "{{partition}}.jsonl", "id", "body", base=Path({str(tmp_path)!r}))
slices = source.slices("p", 100)
rows = next(slices).height
truncate({str(tmp_path / "p.jsonl")!r}, 1_000)
print(rows + sum(one.height for one in slices))
"""
    done = subprocess.run([sys.executable, "-c", read], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "10000\n")


def test_documents_are_of_one_table_when_another_takes_its_place_meanwhile(tmp_path: Path) -> None:
    table, other = tmp_path / "documents.parquet", tmp_path / "other.parquet"
    frame = pl.DataFrame({"document_id": [str(number) for number in range(50_000)], "text": "good"})
    frame.write_parquet(table, row_group_size=10_000)
    frame.reverse().with_columns(text=pl.lit("SECRET")).write_parquet(other, row_group_size=3_000)
    slices = read_documents(table)
    first = next(slices)
    other.replace(table)
    assert pl.concat([first, *slices]).equals(frame)


def test_a_damaged_table_of_documents_is_named(tmp_path: Path) -> None:
    table = tmp_path / "documents.parquet"
    frame = pl.DataFrame({"document_id": [str(number) for number in range(500)], "text": "SECRET"})
    frame.write_parquet(table)
    whole = table.read_bytes()
    told = []
    for at in range(0, len(whole), 40):
        table.write_bytes(whole[:at] + bytes(40) + whole[at + 40 :])
        with suppress(StoreError):
            pl.concat(read_documents(table))
            continue
        with pytest.raises(StoreError, match=r"documents\.parquet cannot be read .*; materialize") as raised:
            pl.concat(read_documents(table))
        told.append(str(raised.value))
    assert len(told) > 3
    assert "SECRET" not in "".join(told)


def test_files_of_a_partition_must_have_the_same_columns(tmp_path: Path) -> None:
    csv(tmp_path, "id,body,x\n1,a,b\n", "p-1.csv")
    csv(tmp_path, "id,body,y\n2,a,b\n", "p-2.csv")
    with pytest.raises(DocumentsError) as caught:
        written(replace(CSV, path="{partition}-*.csv"), tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/p-1.csv and {tmp_path}/p-2.csv belong to one partition but differ: only one of them has 'x', "
        "'y'; give them the same columns"
    )


def test_files_that_differ_are_told_without_what_may_be_values(tmp_path: Path) -> None:
    csv(tmp_path, "id,body,the SECRET one\n1,a,b\n", "p-1.csv")
    csv(tmp_path, "id,body\n2,a\n", "p-2.csv")
    with pytest.raises(DocumentsError, match="only one of them has 1 columns, not all with plain names") as caught:
        written(replace(CSV, path="{partition}-*.csv"), tmp_path)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("other", "told"),
    [([1], "different types in 'x';"), ([{"the SECRET one": 1}], "different types in 'x';")],
    ids=["number", "object"],
)
def test_files_that_differ_in_types_are_told_without_keys(tmp_path: Path, other: list[Any], told: str) -> None:
    for number, values in enumerate((["a"], other)):
        frame = pl.DataFrame({"id": [str(number)], "body": ["SECRET"], "x": values})
        frame.write_parquet(tmp_path / f"p-{number}.parquet")
    with pytest.raises(DocumentsError, match=told) as caught:
        written(replace(CSV, path="{partition}-*.parquet"), tmp_path)
    assert "SECRET" not in str(caught.value)


def test_duplicate_ids_are_counted_and_named_with_their_files(tmp_path: Path) -> None:
    csv(tmp_path, "id,body\n" + "".join(f"{n},SECRET\n" for n in range(20)), "p-1.csv")
    csv(tmp_path, "id,body\n" + "".join(f"{n},SECRET\n" for n in range(12, 40)), "p-2.csv")
    csv(tmp_path, "id,body\n99,SECRET\n", "p-3.csv")
    target = tmp_path / "out" / "documents.parquet"
    target.parent.mkdir()
    target.write_bytes(b"what was there before")
    with pytest.raises(DocumentsError) as caught:
        replace(CSV, path="{partition}-*.csv", base=tmp_path).write("p", target)
    assert str(caught.value) == (
        "tickets: 8 ids stand for more than one document, such as '12', '13', '14', '15', '16', in "
        f"{tmp_path}/p-1.csv, {tmp_path}/p-2.csv; ids must be unique in a partition"
    )
    assert target.read_bytes() == b"what was there before"
    assert list(target.parent.iterdir()) == [target]


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_ROWS = st.lists(st.tuples(_TEXT.filter(str.strip), st.none() | _TEXT), unique_by=lambda row: row[0], max_size=8)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows=_ROWS)
def test_jsonl_comes_through_unchanged(tmp_path: Path, rows: list[tuple[str, str | None]]) -> None:
    lines = (json.dumps({"id": name, "body": body}, ensure_ascii=len(name) % 2 == 0) for name, body in rows)
    (tmp_path / "p.jsonl").write_bytes("\n".join(lines).encode())
    assert written(JSONL, tmp_path).rows() == rows


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows=_ROWS)
def test_csv_comes_through_unchanged(tmp_path: Path, rows: list[tuple[str, str | None]]) -> None:
    frame = pl.DataFrame(rows, schema={"id": pl.String, "body": pl.String}, orient="row")
    frame.write_csv(tmp_path / "p.csv")
    assert written(CSV, tmp_path).rows() == rows
