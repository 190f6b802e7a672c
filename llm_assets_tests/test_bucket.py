"""The store in a bucket, on a real S3 server: the same promises, and clear words when the bucket is in the way."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from llm_assets.errors import LedgerError, StoreError
from llm_assets.ledger import Ledger
from llm_assets.planning import plan_partition
from llm_assets.platform import Platform, Settings
from llm_assets.providers import Credentials
from llm_assets.records import Mode
from llm_assets.retention import sweep
from llm_assets.store import Store
from llm_assets_tests.emulator_process import Emulator
from llm_assets_tests.platforms import P, Time, enriched, failed, finish, labels, run, submit, write_documents
from llm_assets_tests.providers.http_server import Reply, serving
from llm_assets_tests.s3_server import BUCKET, OWNER, READER, STRANGER, S3Server, wire

TEXTS: list[str | None] = [f"I liked it very much, number {number}." for number in range(40)] + [None]
TABLE = pl.DataFrame({"n": range(1000)})


@pytest.fixture
def platform(s3: S3Server, ledger_url: str, emulator: Emulator, time: Time) -> Iterator[Platform]:
    opened = Platform(
        Store(f"{s3.root()}/a pre/fix"),
        Ledger(ledger_url, time),
        {"anthropic": Credentials("k", emulator.url), "openai": Credentials("k", emulator.openai_url)},
        clock=time,
    )
    yield opened
    opened.close()


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("provider", ["anthropic", "openai"])
def test_a_partition_goes_through_a_bucket(
    platform: Platform, emulator: Emulator, s3: S3Server, provider: str, mode: Mode
) -> None:
    enrichment = replace(labels(provider), mode=mode, reuse_days=0)
    run(platform, enrichment, TEXTS)
    assert enriched(platform, enrichment).height == 40
    assert failed(platform, enrichment)["reason"].to_list() == ["empty_document"]
    platform.store.check(enrichment.name, P)
    again = plan_partition(platform, enrichment, P)
    assert again.published_at is not None
    assert [content["billed"] for content in emulator.contents()] == [1] * 40


def test_answers_of_another_partition_are_taken_from_the_bucket(platform: Platform, emulator: Emulator) -> None:
    enrichment = labels("openai")
    run(platform, enrichment, TEXTS)
    write_documents(platform, TEXTS, "2026-11-02")
    submit(platform, enrichment, "2026-11-02")
    finish(platform, enrichment, "2026-11-02")
    assert enriched(platform, enrichment, "2026-11-02").height == 40
    assert emulator.accounting()["requests"] == 40


# -- whole or not at all


def test_a_table_comes_back_as_it_was_written(s3: S3Server) -> None:
    store = Store(f"{s3.root()}/x")
    store.write("some/where|else:a, %2E.parquet", TABLE)
    assert_frame_equal(store.scan("some/where|else:a, %2E.parquet").collect(), TABLE)


def test_a_file_of_many_parts_is_taken_and_read(s3: S3Server) -> None:
    store = Store(s3.root())
    with store.files.scratch() as folder:
        (folder / "big").write_bytes(content := bytes(range(256)) * 100_000)  # 25 MB
        store.files.take(folder / "big", "shards/big.jsonl")
    assert b"".join(store.files.chunks("shards/big.jsonl")) == content
    with store.files.reading("shards/big.jsonl") as copy:
        assert (copy.name, copy.read_bytes() == content) == ("big.jsonl", True)
    assert not copy.exists()


def test_a_write_that_fails_leaves_what_was_there(s3: S3Server) -> None:
    store = Store(s3.root())
    store.write("table.parquet", TABLE)

    def interrupted() -> None:
        with store.files.writing("table.parquet") as temporary:
            temporary.write_bytes(b"half a ta")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert_frame_equal(store.scan("table.parquet").collect(), TABLE)
    assert [entry.path for entry in store.files.listed("")] == ["table.parquet"]


def test_a_file_gets_another_name_and_goes(s3: S3Server) -> None:
    store = Store(f"{s3.root()}/x")
    store.write("a/old.parquet", TABLE)
    store.files.move("a/old.parquet", "b/new.parquet")
    assert [entry.path for entry in store.files.listed("")] == ["b/new.parquet"]
    for _ in range(2):  # what is not there needs no deleting
        store.files.delete("b/new.parquet")
    assert store.files.is_empty()


def test_of_two_ledgers_the_first_has_the_store(s3: S3Server, tmp_path: Path) -> None:
    bucket = s3.root()
    first = Settings(bucket, f"sqlite:///{tmp_path / 'a.db'}", {})
    assert not Settings(bucket, "", {}).in_use
    Platform.open(first).close()
    Platform.open(first).close()
    assert first.in_use
    with pytest.raises(LedgerError, match=r"the store at s3://tables/\w+ belongs to the ledger"):
        Platform.open(replace(first, ledger_url=f"sqlite:///{tmp_path / 'b.db'}"))


def test_a_damaged_table_is_named(s3: S3Server) -> None:
    store = Store(root := s3.root())
    path = store.shard("e", "p", 1, "key") + ".results.parquet"
    store.write(path, TABLE)
    store.check("e", "p")
    key = f"{root.removeprefix(f's3://{BUCKET}/')}/{path}"
    s3.objects().put(key, b"no table")
    with pytest.raises(StoreError, match=r"key.results.parquet in the store at s3://\S+ is damaged"):
        store.check("e", "p")


# -- what is in the way


def sign_with(keys: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in keys.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        pytest.param(STRANGER, r"does not let us \w+ .*InvalidAccessKeyId.*s3:PutObject", id="unknown-key"),
        pytest.param(READER, r"does not let us write .*AccessDenied.*policy", id="may-not-write"),
        pytest.param(
            OWNER | {"AWS_SECRET_ACCESS_KEY": "planted-secret"},
            r"does not let us \w+ .*SignatureDoesNotMatch.*credentials",
            id="wrong-secret",
        ),
    ],
)
def test_what_the_bucket_does_not_allow_is_said_before_anything_is_spent(
    s3: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    keys: dict[str, str],
    message: str,
) -> None:
    sign_with(keys, monkeypatch)
    settings = Settings(s3.root(), f"sqlite:///{tmp_path / 'ledger.db'}", {})
    with pytest.raises(StoreError, match=message) as raised:
        Platform.open(settings)
    assert "planted" not in str(raised.value)
    assert "<Error>" not in str(raised.value)


def test_a_bucket_that_is_not_there_is_named(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    # SeaweedFS would make it; this is how Amazon answers.
    gone = b"<Error><Code>NoSuchBucket</Code><Message>The specified bucket does not exist</Message></Error>"
    with serving() as server:
        server.answer = lambda asked: Reply(404, gone, content_type="application/xml")
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
        with pytest.raises(StoreError, match="there is no bucket 'nowhere': make it"):
            Store("s3://nowhere/prefix").ledger_id("a")


def test_without_credentials_the_variables_are_named(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OWNER:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with pytest.raises(StoreError, match=r"no AWS credentials .* set AWS_ACCESS_KEY_ID"):
        Store(s3.root())


@pytest.mark.parametrize("root", ["s3://", "s3:///prefix", "gs://bucket", "s3://bucket?x=1"])
def test_other_roots_are_refused(root: str) -> None:
    with pytest.raises(StoreError, match=r"expected the path of a folder, or s3://bucket/prefix"):
        Store(root)


def test_a_store_in_a_bucket_needs_a_ledger_elsewhere() -> None:
    with pytest.raises(LedgerError, match="set LLM_ASSETS_LEDGER_URL"):
        Settings.from_environment({"LLM_ASSETS_ROOT": "s3://bucket"})


def test_a_storm_of_503_is_ridden_out(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with wire(s3.url) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", between.url)
        store = Store(s3.root())
        between.busy = 5
        store.write("table.parquet", TABLE)
        assert between.seen > 5
        assert_frame_equal(store.scan("table.parquet").collect(), TABLE)


def test_an_upload_that_is_cut_is_sent_again(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with wire(s3.url) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", between.url)
        store = Store(s3.root())
        between.cut_up = 1_000_000
        with store.files.writing("big.bin") as file:
            file.write_bytes(content := bytes(range(256)) * 100_000)
        assert between.cuts == 1
        assert b"".join(store.files.chunks("big.bin")) == content


def test_a_download_that_is_cut_goes_on(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with wire(s3.url) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", between.url)
        store = Store(s3.root())
        with store.files.writing("big.bin") as file:
            file.write_bytes(content := bytes(range(256)) * 100_000)
        between.cut_down = 1_000_000
        assert b"".join(store.files.chunks("big.bin")) == content
        assert between.cuts == 1


def test_nothing_is_paid_twice_when_the_bucket_fails_while_results_come_in(
    platform: Platform, emulator: Emulator, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    enrichment = labels("openai")
    write_documents(platform, TEXTS)
    submit(platform, enrichment)
    sign_with(READER, monkeypatch)
    denied = replace(platform, store=Store(platform.store.files.where()))
    with pytest.raises(StoreError, match="does not let us write"):
        finish(denied, enrichment)
    finish(platform, enrichment)
    assert enriched(platform, enrichment).height == 40
    assert emulator.accounting()["requests"] == 40


def test_request_files_go_when_their_time_has_come(platform: Platform, time: Time) -> None:
    enrichment = replace(labels("openai"), request_files_days=2)
    run(platform, enrichment, TEXTS)
    assert list(platform.store.request_files(enrichment.name, P))
    time.passes(days=3)
    assert sweep(platform, enrichment, P) == []
    assert not list(platform.store.request_files(enrichment.name, P))


# -- journals


def test_a_journal_outlives_who_writes_it(s3: S3Server) -> None:
    journals = Store(s3.root()).files.journals
    assert journals.modified("a/x.answers.jsonl") is None

    def killed() -> None:
        with journals.begin("a/x.answers.jsonl") as add:
            add(b"one")
            add(b"two")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed()
    assert journals.modified("a/x.answers.jsonl") is not None
    assert b"".join(journals.chunks("a/x.answers.jsonl")) == b"one\ntwo\n"
    with journals.begin("a/x.answers.jsonl") as add:
        add(b"three")
    assert b"".join(journals.chunks("a/x.answers.jsonl")) == b"three\n"
