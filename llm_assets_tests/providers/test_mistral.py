"""The worked third provider, end to end against a server that behaves as Mistral's documentation says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from llm_assets.errors import DeclarationError, SystemicError
from llm_assets.ledger import Ledger
from llm_assets.platform import Platform, Settings
from llm_assets.prices import declared_price
from llm_assets.providers import NAMES, Credentials, caveat
from llm_assets.providers import mistral as mistral_dialect
from llm_assets.records import Mode, Reason, ShardLimits, ShardState
from llm_assets.store import Store
from llm_assets.submission import send_planned
from llm_assets.waves import Step
from llm_assets_tests.mistral_server import Mistral, mistral
from llm_assets_tests.platforms import LABELS, P, enriched, failed, finish, go_on, reasons, submit, write_documents

PRICE = declared_price({"batch": {"input": 1.0, "output": 2.0}, "standard": {"input": 2.0, "output": 4.0}})
ENRICHMENT = replace(LABELS, provider="mistral", model_name="mistral-small-latest", price=PRICE, attempts=2)
TEXTS: list[str | None] = ["a good thing", "a bad thing", "a thing"]


@dataclass(slots=True)
class Clock:
    """A clock that tests move."""

    offset: timedelta = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.offset


@pytest.fixture
def vendor() -> Iterator[Mistral]:
    with mistral() as running:
        yield running


@pytest.fixture
def clock(vendor: Mistral) -> Clock:
    found = Clock()
    vendor.clock = lambda: found().timestamp()
    return found


@pytest.fixture
def platform(tmp_path: Path, vendor: Mistral, clock: Clock) -> Iterator[Platform]:
    credentials = {"mistral": Credentials("k", f"{vendor.server.url}/v1")}
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}", clock)
    opened = Platform(Store(tmp_path), ledger, credentials, clock=clock)
    write_documents(opened, TEXTS)
    yield opened
    opened.close()


def states(platform: Platform) -> list[ShardState]:
    return [shard.state for shard in platform.ledger.shards(ENRICHMENT.name, P)]


def assert_all_answered_and_billed_once(platform: Platform, vendor: Mistral) -> None:
    answers = enriched(platform, ENRICHMENT)
    assert answers.sort("document_id")["sentiment"].to_list() == ["positive", "negative", "neutral"]
    assert failed(platform, ENRICHMENT).is_empty()
    assert list(vendor.billed.values()) == [1] * len(TEXTS)


def test_a_partition_goes_from_documents_to_tables(platform: Platform, vendor: Mistral) -> None:
    submit(platform, ENRICHMENT)
    finish(platform, ENRICHMENT)
    assert_all_answered_and_billed_once(platform, vendor)
    (job,) = vendor.jobs
    (shard,) = platform.ledger.shards(ENRICHMENT.name, P)
    assert (job["metadata"], job["model"]) == ({"llm_assets_submission": shard.key}, "mistral-small-latest")
    answers = enriched(platform, ENRICHMENT)
    assert set(answers["model"]) == {"mistral-small-latest"}
    assert answers["cost_usd"].to_list() == pytest.approx([(100 * 1.0 + 10 * 2.0) / 1e6] * 3)  # as it was declared


def test_many_jobs_are_found_page_by_page(platform: Platform, vendor: Mistral) -> None:
    many = replace(ENRICHMENT, limits=ShardLimits(requests=1, bytes=1 << 20))
    write_documents(platform, [f"{number} is good" for number in range(11)])
    submit(platform, many)
    finish(platform, many)
    assert enriched(platform, many).height == len(vendor.jobs) == 11
    assert vendor.calls("GET", "/batch/jobs") > 1
    assert set(vendor.billed.values()) == {1}


def test_rows_that_failed_are_outcomes_with_their_reasons(platform: Platform, vendor: Mistral) -> None:
    write_documents(platform, ["good", "tired", "broken", "endless"])
    submit(platform, ENRICHMENT)
    finish(platform, ENRICHMENT)
    assert reasons(platform, ENRICHMENT) == {
        "d1": Reason.API_ERROR,
        "d2": Reason.INVALID_REQUEST,
        "d3": Reason.TRUNCATED,
    }
    rows = failed(platform, ENRICHMENT).sort("document_id")
    assert rows["attempts"].to_list() == [2, 1, 2]
    assert not any("broken" in str(row["message"]) for row in rows.iter_rows(named=True))  # which the server quotes
    assert enriched(platform, ENRICHMENT)["document_id"].to_list() == ["d0"]


@pytest.mark.parametrize("gives_metadata", [True, False], ids=["by its stamp", "by its file"])
def test_a_job_whose_reply_never_came_is_found_and_not_created_again(
    platform: Platform, vendor: Mistral, gives_metadata: bool
) -> None:
    vendor.gives_metadata, vendor.lost_replies = gives_metadata, 1
    submit(platform, ENRICHMENT)
    assert states(platform) == [ShardState.SUBMITTING]
    finish(platform, ENRICHMENT)
    assert vendor.calls("POST", "/batch/jobs") == 1
    assert_all_answered_and_billed_once(platform, vendor)


def test_a_job_that_was_never_created_is_sent_again_with_the_same_file(
    platform: Platform, vendor: Mistral, clock: Clock
) -> None:
    vendor.unreachable = 1
    for _ in range(2):
        submit(platform, ENRICHMENT)
    assert states(platform) == [ShardState.SUBMITTING]
    clock.offset += timedelta(minutes=3)
    finish(platform, ENRICHMENT)
    assert (vendor.calls("POST", "/files"), vendor.calls("POST", "/batch/jobs")) == (1, 2)
    assert_all_answered_and_billed_once(platform, vendor)


def test_what_a_dead_run_uploaded_is_used(platform: Platform, vendor: Mistral) -> None:
    client = platform.client("mistral", None)
    assert client.find_staged("k1.jsonl") is None
    for name in ("k0", "k1", "k2", "k3", "k4"):
        (path := Path(platform.store.files.where(f"{name}.jsonl"))).write_text("{}\n")
        client.stage(path)
    assert client.find_staged("k4.jsonl") == next(
        name for name, (filename, _) in vendor.files.items() if filename == "k4.jsonl"
    )


def test_a_file_that_is_gone_is_uploaded_again(platform: Platform, vendor: Mistral, clock: Clock) -> None:
    vendor.unreachable = 1
    submit(platform, ENRICHMENT)
    vendor.files.clear()
    for _ in range(4):
        clock.offset += timedelta(minutes=3)
        submit(platform, ENRICHMENT)
    finish(platform, ENRICHMENT)
    assert_all_answered_and_billed_once(platform, vendor)


@pytest.mark.parametrize(
    ("ends_as", "reason"),
    [
        pytest.param("TIMEOUT_EXCEEDED", Reason.EXPIRED, id="too late"),
        pytest.param("CANCELLED", Reason.CANCELED, id="cancelled"),
        pytest.param("FAILED", Reason.API_ERROR, id="broken down on the way"),
    ],
)
def test_what_was_done_before_the_end_is_kept_and_only_the_rest_is_sent_again(
    platform: Platform, vendor: Mistral, ends_as: str, reason: Reason
) -> None:
    vendor.ends_as, vendor.done_before_stop = ends_as, 1
    submit(platform, ENRICHMENT)
    while not platform.store.files.exists(collected := results_of_the_first(platform)):
        go_on(platform, ENRICHMENT)
    first = platform.store.scan(collected).collect()
    assert sorted(first["reason"].to_list(), key=str) == sorted([None, reason, reason], key=str)
    vendor.ends_as = "SUCCESS"
    finish(platform, ENRICHMENT)
    assert_all_answered_and_billed_once(platform, vendor)
    (shard, _) = platform.ledger.shards(ENRICHMENT.name, P)
    assert shard.charge_usd == pytest.approx(120 / 1e6)  # what was not done takes nothing of a budget


def results_of_the_first(platform: Platform) -> str:
    return platform.ledger.shards(ENRICHMENT.name, P)[0].results or "nowhere"


def test_a_job_that_failed_as_a_whole_is_tried_again_within_bounds(platform: Platform, vendor: Mistral) -> None:
    vendor.ends_as = "FAILED"
    submit(platform, ENRICHMENT)
    finish(platform, ENRICHMENT)
    assert len(vendor.jobs) == ENRICHMENT.attempts
    rows = failed(platform, ENRICHMENT)
    assert (set(rows["reason"]), set(rows["message"])) == ({"unknown"}, {"The job broke down"})
    assert not vendor.billed


def test_a_job_that_has_vanished_is_sent_again(platform: Platform, vendor: Mistral, clock: Clock) -> None:
    submit(platform, ENRICHMENT)
    vendor.jobs.clear()
    for _ in range(8):
        clock.offset += timedelta(minutes=20)
        go_on(platform, ENRICHMENT)
    finish(platform, ENRICHMENT)
    assert_all_answered_and_billed_once(platform, vendor)


def test_a_late_job_is_cancelled_and_its_rest_sent_again(platform: Platform, vendor: Mistral, clock: Clock) -> None:
    vendor.stays, vendor.done_before_stop = "RUNNING", 2
    submit(platform, ENRICHMENT)
    clock.offset += timedelta(hours=27)
    assert go_on(platform, ENRICHMENT) is Step.WAIT
    assert vendor.jobs[0]["status"] == "CANCELLATION_REQUESTED"
    vendor.stays = ""
    finish(platform, ENRICHMENT)
    assert_all_answered_and_billed_once(platform, vendor)


def test_a_refused_job_stops_everything_and_fails_no_document(platform: Platform, vendor: Mistral) -> None:
    vendor.refuses_jobs = {"object": "error", "type": "invalid_request_error", "message": "Too big for a free trial."}
    with pytest.raises(SystemicError, match=r"mistral \(experimental\) create: HTTP 400 .*: Too big for a free trial"):
        submit(platform, ENRICHMENT)
    plan = platform.ledger.plan(ENRICHMENT.name, P)
    assert plan is not None
    assert "mistral (experimental) create" in plan.held
    vendor.refuses_jobs = None
    submit(platform, ENRICHMENT)
    finish(platform, ENRICHMENT)
    assert_all_answered_and_billed_once(platform, vendor)


def test_a_list_in_another_order_proves_nothing(platform: Platform, vendor: Mistral) -> None:
    vendor.lost_replies = 1
    submit(platform, ENRICHMENT)
    now = vendor.jobs[0]["created_at"]
    vendor.jobs.append(vendor.jobs[0] | {"id": "older", "created_at": now - 9_000, "metadata": None})
    plan = platform.ledger.plan(ENRICHMENT.name, P)
    assert plan is not None
    with pytest.raises(Exception, match="not what mistral"):
        submit(platform, ENRICHMENT)
    send_planned(platform, plan)
    assert vendor.calls("POST", "/batch/jobs") == 1


def test_in_real_time_each_is_asked_by_itself(platform: Platform, vendor: Mistral) -> None:
    now = replace(ENRICHMENT, mode=Mode.REALTIME)
    submit(platform, now)
    finish(platform, now)
    assert_all_answered_and_billed_once(platform, vendor)
    assert (vendor.calls("POST", "/chat/completions"), len(vendor.jobs)) == (3, 0)
    assert enriched(platform, now)["cost_usd"].sum() == pytest.approx(3 * 240 / 1e6)


def test_all_that_mistral_keeps_is_deleted_where_that_is_declared(platform: Platform, vendor: Mistral) -> None:
    client = platform.client("mistral", None)
    submit(platform, ENRICHMENT)
    finish(platform, ENRICHMENT)
    (shard,) = platform.ledger.shards(ENRICHMENT.name, P)
    assert len(vendor.files) == 2
    for _ in range(2):
        client.forget(client.batch(str(shard.batch_id)), staged=shard.staged_id)
    assert not vendor.files


def test_only_with_a_price_and_only_at_its_endpoint() -> None:
    for changes, problem in (
        ({"price": None, "model_name": "ministral-of-ours"}, "of mistral; declare what it costs under `prices`"),
        ({"endpoint": "/v1/embeddings"}, "mistral: /v1/embeddings is not supported"),
    ):
        with pytest.raises(DeclarationError, match=problem):
            replace(ENRICHMENT, **changes).check(("document_id", "text"))
    ENRICHMENT.check(("document_id", "text"))


def test_what_is_experimental_says_so() -> None:
    assert "never run against Mistral" in caveat("mistral")
    assert {name for name in NAMES if caveat(name)} == {"mistral"}
    assert "EXPERIMENTAL" in (mistral_dialect.__doc__ or "")


def test_the_environment_names_its_account() -> None:
    settings = Settings.from_environment({"MISTRAL_API_KEY": "k", "MISTRAL_BASE_URL": "http://127.0.0.1:9/v1"})
    assert settings.credentials == {"mistral": Credentials("k", "http://127.0.0.1:9/v1")}
