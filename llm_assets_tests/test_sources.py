"""Documents whose files are in a bucket, on a real S3 server: read as those of a folder, and clear words when not."""

import gzip
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import polars as pl
import pytest
from dagster_aws.s3 import S3Resource
from polars.testing import assert_frame_equal

from llm_assets.documents import DocumentSource
from llm_assets.errors import DeclarationError, DocumentsError
from llm_assets_tests.providers.http_server import Reply, serving
from llm_assets_tests.s3_server import BUCKET, OWNER, STRANGER, S3Server, wire

ROWS = pl.DataFrame({"id": ["007", "b"], "body": ["Grüße, nice", "a\nb"], "stars": [1, 5]})
CORPUS = DocumentSource("texts", "{partition}.csv", "id", "body", columns={"stars": "integer"})


class Objects:
    """A prefix of the bucket, and a source in it."""

    def __init__(self, server: S3Server) -> None:
        self._server, self._prefix = server, uuid4().hex

    def put(self, name: str, content: bytes) -> None:
        self._server.objects().put(f"{self._prefix}/{name}", content)

    def source(self, path: str = "{partition}.csv") -> DocumentSource:
        return replace(CORPUS, path=f"s3://{BUCKET}/{self._prefix}/{path}", s3=S3Resource().get_client())


@pytest.fixture
def objects(s3: S3Server) -> Objects:
    return Objects(s3)


def encoded(name: str) -> bytes:
    """The rows in the format of a name."""
    plain = name.removesuffix(".gz")
    write: dict[str, Callable[[], bytes]] = {
        "csv": lambda: ROWS.write_csv().encode(),
        "jsonl": lambda: ROWS.write_ndjson().encode(),
    }
    content = write[plain.rpartition(".")[2]]()
    return gzip.compress(content) if name != plain else content


@pytest.mark.parametrize("name", ["{partition}.csv", "{partition}.jsonl", "{partition}.csv.gz", "{partition}.jsonl.gz"])
def test_objects_are_read_as_files_are(objects: Objects, tmp_path: Path, name: str) -> None:
    objects.put(name.format(partition="p"), encoded(name))
    (tmp_path / name.format(partition="p")).write_bytes(encoded(name))
    for source, target in (
        (objects.source(name), tmp_path / "a.parquet"),
        (replace(CORPUS, path=name, base=tmp_path), tmp_path / "b.parquet"),
    ):
        source.check()
        assert source.write("p", target).rows == 2
    assert_frame_equal(pl.read_parquet(tmp_path / "a.parquet"), pl.read_parquet(tmp_path / "b.parquet"))
    assert pl.read_parquet(tmp_path / "a.parquet")["document_id"].to_list() == ["007", "b"]


def test_parquet_of_several_parts_comes_whole(objects: Objects, tmp_path: Path) -> None:
    rows = pl.DataFrame(
        {"id": range(300_000), "body": [f"{n * 7919 % 1_000_003:x} is the text of a document" for n in range(300_000)]}
    )
    rows.with_columns(stars=1).write_parquet(tmp_path / "big", compression="uncompressed")
    assert (tmp_path / "big").stat().st_size > 8 << 20
    objects.put("p.parquet", (tmp_path / "big").read_bytes())
    assert objects.source("{partition}.parquet").write("p", tmp_path / "out.parquet").rows == 300_000
    assert pl.read_parquet(tmp_path / "out.parquet")["text"].equals(rows["body"].alias("text"))


@pytest.mark.parametrize("key", ["2026-01-01", "a b", "a[1]", "x*", "?", "de|2026", "ü", "{partition}", "+"])
def test_a_partition_key_is_taken_literally(objects: Objects, key: str) -> None:
    for name in (key, f"other{key}", "a1", "xyz", f"{key}/deeper"):
        objects.put(f"{name}.csv", encoded("csv"))
    assert [file.name.rpartition("/")[2] for file in objects.source().files(key)] == [f"{key}.csv"]
    assert sum(slice_.height for slice_ in objects.source().slices(key)) == 2


@pytest.mark.parametrize(
    ("path", "files", "keys"),
    [
        pytest.param("{partition}.csv", ["b.csv", "a.csv", "c.txt", "a/d.csv"], ["a", "b"], id="a file each"),
        pytest.param("{partition}-*.csv", ["a-1.csv", "a-2.csv", "b-1.csv"], ["a", "b"], id="several files each"),
        pytest.param("{partition}/*.csv", ["a/1.csv", "b/1.csv", "b/2.csv"], ["a", "b"], id="a prefix each"),
        pytest.param("{partition}/{partition}.csv", ["a/a.csv", "b/c.csv"], ["a"], id="named twice"),
        pytest.param("{partition}.csv", ["a.csv", ".a.csv", "..csv"], ["a"], id="hidden files are none"),
        pytest.param("{partition}.csv", [], [], id="nothing yet"),
    ],
)
def test_the_partitions_are_what_stands_in_the_keys(
    objects: Objects, path: str, files: list[str], keys: list[str]
) -> None:
    for name in files:
        objects.put(name, encoded("csv"))
    source = objects.source(path)
    assert list(source.arrived()) == keys
    assert [len(source.files(key)) for key in keys] == [
        sum(file.startswith(key) and file.endswith(".csv") and "d.csv" not in file for file in files) for key in keys
    ]


def test_a_line_that_is_wrong_is_told_with_the_objects_url(objects: Objects, tmp_path: Path) -> None:
    objects.put("p.csv", b"id,body,stars\n1,a,2\n2,secret text,b,c,d\n")
    with pytest.raises(DocumentsError, match=r"s3://tables/\w+/p.csv: cannot be read as csv from line 3 on") as raised:
        objects.source().write("p", tmp_path / "out.parquet")
    assert "secret" not in str(raised.value)


def test_a_storm_and_a_cut_are_ridden_out(objects: Objects, s3: S3Server, tmp_path: Path) -> None:
    objects.put("p.csv", b"id,body,stars\n" + b"".join(b"%d,%s,1\n" % (n, b"x" * 100) for n in range(30_000)))
    with wire(s3.url) as between:
        source = replace(objects.source(), s3=S3Resource(endpoint_url=between.url).get_client())
        between.busy, between.cut_down = 2, 1_000_000
        assert source.write("p", tmp_path / "out.parquet").rows == 30_000
        assert (between.busy, between.cuts) == (0, 1)


# -- what is in the way


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        pytest.param(
            STRANGER, r"s3://tables does not let us list .*\(InvalidAccessKeyId\).*s3:ListBucket", id="unknown"
        ),
        pytest.param(
            OWNER | {"AWS_SECRET_ACCESS_KEY": "planted-secret"},
            r"does not let us list .*\(SignatureDoesNotMatch\).*credentials",
            id="wrong-secret",
        ),
    ],
)
def test_what_the_bucket_does_not_allow_is_said(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, keys: dict[str, str], message: str
) -> None:
    for name, value in keys.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DocumentsError, match=message) as raised:
        Objects(s3).source().files("p")
    assert not any(secret in str(raised.value) for secret in ("planted", *keys.values()))


@pytest.fixture
def answers(s3: S3Server) -> Iterator[Callable[[int, str], DocumentSource]]:
    """A source in a bucket whose server answers as Amazon does."""
    with serving() as server:

        def source(status: int, code: str) -> DocumentSource:
            reply = f"<Error><Code>{code}</Code><Message>planted words</Message></Error>".encode()
            server.answer = lambda asked: Reply(status, reply, content_type="application/xml")
            client = S3Resource(endpoint_url=server.url).get_client()
            return replace(CORPUS, path="s3://nowhere/{partition}.csv", s3=client)

        yield source


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        pytest.param(404, "NoSuchBucket", "there is no bucket 'nowhere': make it, or name another", id="no-bucket"),
        pytest.param(403, "AccessDenied", r"s3://nowhere does not let us list p.csv \(AccessDenied\)", id="denied"),
        pytest.param(403, "ExpiredToken", r"\(ExpiredToken\): check the AWS credentials", id="expired"),
        pytest.param(400, "Strange", r"s3://nowhere/p.csv could not be listed \(Strange\)", id="strange"),
    ],
)
def test_how_amazon_refuses_is_said_in_our_words(
    answers: Callable[[int, str], DocumentSource], status: int, code: str, message: str
) -> None:
    with pytest.raises(DocumentsError, match=message) as raised:
        answers(status, code).files("p")
    assert "planted" not in str(raised.value)


def test_without_credentials_the_variables_are_named(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OWNER:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with pytest.raises(DocumentsError, match=r"no AWS credentials .* set AWS_ACCESS_KEY_ID"):
        Objects(s3).source().files("p")


def test_a_server_that_is_not_there_is_said(s3: S3Server) -> None:
    client = S3Resource(endpoint_url="http://127.0.0.1:9", max_attempts=1).get_client()
    with pytest.raises(DocumentsError, match=r"could not be listed \(EndpointConnectionError\).*AWS_ENDPOINT_URL_S3"):
        replace(CORPUS, path="s3://tables/{partition}.csv", s3=client).files("p")


@pytest.mark.parametrize(
    "path",
    ["gs://bucket/{partition}.csv", "s3://{partition}/a.csv", "s3:///{partition}.csv", "s3://B*/{partition}.csv"],
)
def test_other_urls_are_refused(path: str) -> None:
    with pytest.raises(DeclarationError, match=r"is no URL of a bucket; write s3://bucket/…"):
        replace(CORPUS, path=path).check()


@pytest.mark.parametrize("key", ["..", "a/b", "", "a\0"])
def test_a_partition_key_cannot_leave_the_prefix(objects: Objects, key: str) -> None:
    with pytest.raises(DocumentsError, match="cannot be part of a path"):
        objects.source().files(key)
