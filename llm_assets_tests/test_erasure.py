"""Documents erased by their ids: nothing of them is left in any file, nothing of others is touched or asked again."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from llm_assets.collection import collect_partition
from llm_assets.enrichment import Enrichment
from llm_assets.erasure import DocumentsInFlight, Erasure, Lineage, Made, erase, find
from llm_assets.errors import LLMAssetsError
from llm_assets.planning import plan_partition
from llm_assets.platform import Platform
from llm_assets.polling import poll
from llm_assets.records import Mode, ShardState
from llm_assets.store import Store
from llm_assets.store.contents import Holds
from llm_assets.store.folder import Folder
from llm_assets_tests.emulator_process import Emulator
from llm_assets_tests.platforms import (
    P,
    Time,
    enriched,
    failed,
    finish,
    labels,
    local,
    open_platform,
    run,
    submit,
    write_documents,
)
from llm_assets_tests.s3_server import S3Server

DAY2 = "2026-11-02"
SECRET = "Ottilie Wendelstein never got her parcel."
TEXTS: list[str | None] = ["I liked it.", SECRET, "It is good.", None]
ASKED = Lineage({"labels": "texts"}, {"quality": {"texts"}}, {})
OPERATOR = "ann@host"


@pytest.fixture
def platform(request: pytest.FixtureRequest, empty: Platform, place: str) -> Platform:
    """With its store in a folder, or in a bucket."""
    if place == "s3":
        server: S3Server = request.getfixturevalue("s3")
        empty.store = Store(server.root())
    return empty


def everything(store: Store, *, of_the_ledger: bool = True) -> str:
    """All that the store's files say, tables read as text; a ledger in a file beside them too."""
    told = []
    for entry in store.files.listed(""):
        if entry.path.startswith("ledger.db") and not of_the_ledger:
            continue
        told.append(entry.path)
        if entry.path.endswith(".parquet"):
            told.append(store.scan(entry.path).collect().write_ndjson())
        else:
            told.append(b"".join(store.files.chunks(entry.path)).decode(errors="replace"))
    return "\n".join(told)


def compared(platform: Platform) -> None:
    """Tables as an evaluation leaves them."""
    rows = pl.DataFrame({"partition": [P] * 2, "document_id": ["d0", "d1"], "cell": ["a"] * 2, "answer": ["x"] * 2})
    for file in ("answers.parquet", "accepted.parquet"):
        platform.store.write(platform.store.evaluation("quality", file), rows)


def lived_in(platform: Platform, enrichment: Enrichment) -> None:
    """Two days, of which the second takes answers of the first; a text that changed once; a comparison."""
    run(platform, enrichment, ["I liked it.", f"Once: {SECRET}", "It is good.", None])
    run(platform, enrichment, TEXTS)
    write_documents(platform, TEXTS, DAY2)
    submit(platform, enrichment, DAY2)
    finish(platform, enrichment, DAY2)
    compared(platform)


@pytest.mark.parametrize(
    ("place", "provider", "mode"),
    [
        ("folder", "openai", Mode.BATCH),
        ("folder", "anthropic", Mode.REALTIME),
        ("s3", "anthropic", Mode.BATCH),
        ("s3", "openai", Mode.REALTIME),
    ],
)
def test_nothing_is_left_of_a_document_and_nothing_of_others_is_asked_again(
    platform: Platform, emulator: Emulator, provider: str, mode: Mode
) -> None:
    enrichment = replace(labels(provider), mode=mode)
    lived_in(platform, enrichment)
    asked, before = emulator.accounting(), enriched(platform, enrichment, DAY2)
    assert "Wendelstein" in everything(platform.store)

    found = erase(platform, ["d1"], ASKED, operator=OPERATOR)

    left = everything(platform.store)
    assert "Wendelstein" not in left
    assert '"d1"' not in left
    assert found.rows == {
        (Holds.DOCUMENTS, "texts"): 2,
        (Holds.PLAN, "labels"): 3,
        (Holds.REQUESTS, "labels"): 2,
        (Holds.RESULTS, "labels"): 3,
        (Holds.ENRICHED, "labels"): 2,
        (Holds.COMPARED, "quality"): 2,
    }
    assert enriched(platform, enrichment, DAY2).equals(before.filter(pl.col("document_id") != "d1"))
    assert failed(platform, enrichment)["document_id"].to_list() == ["d3"]
    assert find(platform, ["d1"], ASKED).is_empty
    for day in (P, DAY2):
        collect_partition(platform, enrichment, day)  # as it stands
        submit(platform, enrichment, day)
        finish(platform, enrichment, day)
        assert enriched(platform, enrichment, day)["document_id"].to_list() == ["d0", "d2"]
    assert emulator.accounting() == asked
    platform.store.check("labels", P)


def test_the_ledger_says_who_erased_how_much_and_keeps_its_counts(empty: Platform) -> None:
    lived_in(empty, labels("openai"))
    spent = empty.ledger.money.spent("labels")
    erase(empty, ["d1", "d3"], ASKED, operator=OPERATOR)
    (_, words, _, operator), *_ = empty.ledger.decisions("forget")
    assert (words, operator) == ("erased 2 documents: 21 rows, 2 files", OPERATOR)
    assert empty.ledger.money.spent("labels") == spent
    plan = empty.ledger.plan("labels", P)
    assert plan is not None
    assert (plan.documents, plan.requests, plan.published_at is None) == (2, 2, False)


def test_looking_changes_nothing(empty: Platform) -> None:
    lived_in(empty, labels("openai"))
    before = everything(empty.store, of_the_ledger=False)
    assert not find(empty, ["d1"], ASKED).is_empty
    assert everything(empty.store, of_the_ledger=False) == before


def test_a_request_that_another_document_shares_stays(empty: Platform, emulator: Emulator) -> None:
    enrichment = labels("openai")
    run(empty, enrichment, ["The same.", "The same.", "Another."])
    erase(empty, ["d0"], ASKED, operator=OPERATOR)
    asked = emulator.accounting()
    submit(empty, enrichment)
    finish(empty, enrichment)
    assert enriched(empty, enrichment)["document_id"].to_list() == ["d1", "d2"]
    assert emulator.accounting() == asked


def test_what_is_with_the_provider_is_in_the_way_until_it_is_home(empty: Platform, emulator: Emulator) -> None:
    enrichment = labels("anthropic")
    emulator.settings(latency_s=3600)
    write_documents(empty, TEXTS)
    submit(empty, enrichment)
    before = everything(empty.store, of_the_ledger=False)
    (shard,) = empty.ledger.shards("labels", P)
    assert [each.key for each in find(empty, ["d1"], ASKED).in_flight] == [shard.key]
    with pytest.raises(DocumentsInFlight, match=f"nothing was erased: batch {shard.batch_id} of labels {P} asks"):
        erase(empty, ["d1"], ASKED, operator=OPERATOR)
    assert everything(empty.store, of_the_ledger=False) == before
    emulator.advance_clock(3700)
    poll(empty, empty.ledger.active_shards(), calls_max=9)
    finish(empty, enrichment)
    erase(empty, ["d1"], ASKED, operator=OPERATOR)
    assert "Wendelstein" not in everything(empty.store)


def test_what_is_not_sent_yet_is_taken_back_and_planned_without_it(empty: Platform, emulator: Emulator) -> None:
    enrichment = labels("openai")
    write_documents(empty, TEXTS)
    plan_partition(empty, enrichment, P)
    erase(empty, ["d1"], ASKED, operator=OPERATOR)
    assert "Wendelstein" not in everything(empty.store)
    assert empty.ledger.shards("labels", P) == []
    finish(empty, enrichment)
    assert enriched(empty, enrichment)["document_id"].to_list() == ["d0", "d2"]
    assert emulator.accounting()["requests"] == 2


def test_only_the_table_that_is_named_and_what_is_made_of_it(empty: Platform) -> None:
    rows = pl.DataFrame({"document_id": ["d1", "d1#1", "d1#2#1#7", "d10"], "text": ["a"] * 4})
    for name in ("texts", "parts", "tickets"):
        empty.store.write(empty.store.documents(name, P), rows)
    lineage = Lineage({}, {}, {"parts": Made("texts", None, "", None)})
    assert dict(find(empty, ["d1"], lineage, "texts").rows) == {
        (Holds.DOCUMENTS, "texts"): 1,  # what is read from files may be called d1#1, and be another's
        (Holds.DOCUMENTS, "parts"): 3,
    }
    assert find(empty, ["d1"], lineage).rows.total() == 7  # with all of `tickets`, which nobody declares
    assert find(empty, ["d1#2"], lineage).rows.total() == 2  # of `texts` it is none
    assert find(empty, ["d1#2#1#7"], lineage).rows.total() == 3


def test_what_is_made_of_it_is_found_however_often_it_was_made_again(empty: Platform) -> None:
    for number in range(6):
        row = pl.DataFrame({"document_id": ["d1" + "#1" * number], "text": ["a"]})
        empty.store.write(empty.store.documents(f"made{number}", P), row)
    made = {f"made{number + 1}": Made(f"made{number}", None, "", None) for number in range(5)}
    assert find(empty, ["d1"], Lineage({}, {}, made), "made0").rows.total() == 6


def test_of_a_comparison_of_several_tables_each_is_found(empty: Platform) -> None:
    compared(empty)
    lineage = Lineage({}, {"quality": {"texts", "letters"}}, {})
    assert find(empty, ["d1"], lineage, "letters").rows == {(Holds.COMPARED, "quality"): 2}


def test_what_texts_were_put_together_in_goes_as_a_whole(empty: Platform, emulator: Emulator) -> None:
    """The texts of d0 and d1 make the document `mail`, about which something was asked too."""
    rows = {"document_id": ["d0", "d1", "d2"], "text": ["Fine.", SECRET, "Good."], "channel": ["mail", "mail", "chat"]}
    empty.store.write(empty.store.documents("texts", P), pl.DataFrame(rows))
    for day, text in ((P, f"Fine.\n\n{SECRET}"), (DAY2, "Of another day.")):
        together = pl.DataFrame({"document_id": ["mail", "chat"], "text": [text, "Good."]})
        empty.store.write(empty.store.documents("channels", day), together)
    about = replace(labels("openai"), name="about", documents="channels")
    for day in (P, DAY2):
        submit(empty, about, day)
        finish(empty, about, day)
    lineage = Lineage({"about": "channels"}, {}, {"channels": Made("texts", None, "", "channel")})
    erase(empty, ["d1"], lineage, "texts", operator=OPERATOR)
    assert "Wendelstein" not in everything(empty.store)
    assert enriched(empty, about)["document_id"].to_list() == ["chat"]
    assert enriched(empty, about, DAY2)["document_id"].to_list() == ["mail", "chat"]
    assert empty.store.scan(empty.store.documents("texts", P)).collect()["document_id"].to_list() == ["d0", "d2"]


# -- interrupted, and beside others


class Interrupted(Folder):
    """A folder in which the `number`th file that is written or deleted is the last: before it, or after."""

    def __init__(self, root: Path, number: int, *, after: bool) -> None:
        super().__init__(root)
        self.left, self._after = number, after

    def _count(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt

    def take(self, file: Path, path: str) -> None:
        if not self._after:
            self._count()
        super().take(file, path)
        if self._after:
            self._count()

    def delete(self, path: str) -> None:
        if not self._after:
            self._count()
        super().delete(path)
        if self._after:
            self._count()


@contextmanager
def copied(platform: Platform, folder: Path, emulator: Emulator) -> Iterator[Platform]:
    """The same platform in another folder."""
    shutil.copytree(platform.store.files.where(), folder)
    with closing(open_platform(folder, emulator.url, platform.clock)) as copy:
        yield copy


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_who_is_interrupted_at_any_file_runs_it_again(
    empty: Platform, emulator: Emulator, tmp_path: Path, *, after: bool
) -> None:
    enrichment = replace(labels("openai"), mode=Mode.REALTIME)
    lived_in(empty, enrichment)
    number, ended = 0, False
    while not ended:
        number += 1
        with copied(empty, tmp_path / f"{number}", emulator) as platform:
            whole, platform.store.files = platform.store.files, Interrupted(tmp_path / f"{number}", number, after=after)
            try:
                erase(platform, ["d1"], ASKED, operator=OPERATOR)
                ended = True
            except KeyboardInterrupt:
                platform.store.files = whole
                erase(platform, ["d1"], ASKED, operator=OPERATOR)
            platform.store.files = whole
            left = everything(Store(tmp_path / f"{number}"))
            assert "Wendelstein" not in left
            assert '"d1"' not in left
            for day in (P, DAY2):
                collect_partition(platform, enrichment, day)
                assert enriched(platform, enrichment, day)["document_id"].to_list() == ["d0", "d2"]
    assert number > 12


class Meanwhile(Folder):
    """A folder in which somebody else acts when the first request file is about to be deleted."""

    def __init__(self, root: Path, acts: Callable[[], object]) -> None:
        super().__init__(root)
        self._acts = [acts]

    def delete(self, path: str) -> None:
        if path.endswith(".jsonl") and self._acts:
            self._acts.pop()()
        super().delete(path)


def test_a_run_that_plans_meanwhile_is_not_overwritten(empty: Platform, emulator: Emulator) -> None:
    enrichment = labels("openai")
    lived_in(empty, enrichment)
    root = Path(empty.store.files.where())
    with closing(open_platform(root, emulator.url, empty.clock)) as other:

        def acts() -> None:
            write_documents(other, [*TEXTS, "One that has come meanwhile."])
            submit(other, enrichment)
            finish(other, enrichment)

        empty.store.files = Meanwhile(root, acts)
        with pytest.raises(LLMAssetsError, match="wrote them again: see that nothing materializes them"):
            erase(empty, ["d1"], ASKED, operator=OPERATOR)
    erase(empty, ["d1"], ASKED, operator=OPERATOR)
    assert "Wendelstein" not in everything(empty.store)
    assert enriched(empty, enrichment)["document_id"].to_list() == ["d0", "d2", "d4"]


def test_what_killed_processes_left_half_written_goes_too(empty: Platform, time: Time) -> None:
    run(empty, labels("openai"), TEXTS)
    folders = ("documents/texts", "enrichments/labels/batches/2026-10-01/wave-01", ".scratch-1")
    left = [local(empty.store, f"{folder}/.of.jsonl.a1b2c3d4") for folder in folders]
    for file in left:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(SECRET)
    time.passes(days=2)
    erase(empty, ["d1"], ASKED, operator=OPERATOR)
    assert [file for file in left if file.exists()] == []


def test_what_a_provider_may_still_keep_is_told_until_it_cannot(empty: Platform, time: Time) -> None:
    enrichment = labels("anthropic")
    run(empty, enrichment, TEXTS)
    assert find(empty, ["d1"], ASKED).at_providers == {"anthropic": 1}
    time.passes(days=32)
    assert find(empty, ["d1"], ASKED).at_providers == {}


def test_a_document_that_nobody_knows_is_no_error(empty: Platform) -> None:
    lived_in(empty, labels("openai"))
    assert erase(empty, ["nobody"], ASKED, operator=OPERATOR) == Erasure()
    assert empty.ledger.decisions("forget") == []
    assert all(shard.state is ShardState.COLLECTED for shard in empty.ledger.shards("labels", P))


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
def test_a_request_file_of_which_nobody_wrote_down_what_it_asks_goes_too(empty: Platform, provider: str) -> None:
    enrichment = labels(provider)
    run(empty, enrichment, TEXTS)
    suffix = empty.dialect(provider, None).shard_format.suffix
    killed = empty.store.shard("labels", P, 2, "000000000000") + suffix
    local(empty.store, killed).parent.mkdir(parents=True, exist_ok=True)
    local(empty.store, killed).write_text(f'{{"custom_id":"x","text":"{SECRET}"}}')
    erase(empty, ["d1"], ASKED, operator=OPERATOR)
    assert not local(empty.store, killed).exists()


@pytest.mark.parametrize("forgotten", [False, True], ids=["kept", "deleted-at-the-provider"])
def test_a_batch_that_the_provider_has_deleted_is_not_told(empty: Platform, forgotten: bool) -> None:
    run(empty, labels("anthropic"), TEXTS)
    (shard,) = empty.ledger.shards("labels", P)
    if forgotten:
        empty.ledger.forgotten(shard.key)
    assert bool(find(empty, ["d1"], ASKED).at_providers) is not forgotten
