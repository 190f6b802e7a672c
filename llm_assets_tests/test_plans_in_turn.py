"""Plans that change while others work, or while their shards are on the way: only what is wanted is sent."""

import resource
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from llm_assets.enrichment import Enrichment
from llm_assets.errors import PlanConflict
from llm_assets.planning import plan_partition
from llm_assets.platform import Platform
from llm_assets.prompt import Prompt
from llm_assets.records import ShardLimits
from llm_assets.waves import Step
from llm_assets_tests.emulator_process import Emulator
from llm_assets_tests.platforms import P, Time, enriched, finish, go_on, labels, local, submit, write_documents

TEXTS: list[str | None] = [f"Review {number}: a good thing." for number in range(12)]


@pytest.fixture(params=["anthropic", "openai"])
def enrichment(request: pytest.FixtureRequest) -> Enrichment:
    return labels(str(request.param))


def with_prompt(enrichment: Enrichment, question: str) -> Enrichment:
    return replace(enrichment, prompt=Prompt.parse(f"user:\n{question} {{{{ text }}}}", "prompt.md"))


def test_a_shard_that_comes_back_after_the_plan_has_changed_is_not_sent(
    empty: Platform, emulator: Emulator, time: Time, enrichment: Enrichment
) -> None:
    former, current = with_prompt(enrichment, "Former?"), with_prompt(enrichment, "Current?")
    emulator.faults([{"fault": "dropped_before_store", "times": 1}])
    write_documents(empty, TEXTS)
    submit(empty, former)
    submit(empty, current)
    for _ in range(4):
        time.passes(minutes=30)
        submit(empty, current)
        finish(empty, current)
    assert enriched(empty, current).height == len(TEXTS)
    assert emulator.accounting()["requests"] == len(TEXTS)


def test_it_is_sent_when_its_plan_is_wanted_again(
    empty: Platform, emulator: Emulator, time: Time, enrichment: Enrichment
) -> None:
    former, current = with_prompt(enrichment, "Former?"), with_prompt(enrichment, "Current?")
    emulator.faults([{"fault": "dropped_before_store", "times": 1}])
    write_documents(empty, TEXTS)
    for wanted in (former, current, former):
        submit(empty, wanted)
    time.passes(minutes=30)
    submit(empty, former)
    finish(empty, former)
    assert enriched(empty, former).height == len(TEXTS)
    assert max(content["billed"] for content in emulator.contents()) == 1


@contextmanager
def others_plan(platform: Platform, plan: Callable[[], object], times: int) -> Iterator[None]:
    """While this platform plans, somebody else is faster, so many times."""
    left = times

    def new_key() -> str:
        nonlocal left
        if left:
            left -= 1
            plan()
        return secrets.token_hex(6)

    platform.new_key = new_key
    yield
    platform.new_key = lambda: secrets.token_hex(6)


def test_a_new_prompt_is_planned_although_another_run_was_faster(empty: Platform, enrichment: Enrichment) -> None:
    wanted, other = with_prompt(enrichment, "Wanted?"), with_prompt(enrichment, "Other?")
    write_documents(empty, TEXTS)
    rival = replace_platform(empty)
    with others_plan(empty, lambda: plan_partition(rival, other, P), times=1):
        plan = plan_partition(empty, wanted, P)
    assert plan == empty.ledger.plan(enrichment.name, P)
    assert plan.digest != plan_partition(rival, other, P).digest


def test_who_is_never_fast_enough_says_so(empty: Platform, enrichment: Enrichment) -> None:
    write_documents(empty, TEXTS)
    rival = replace_platform(empty)
    names = iter("abcdefgh")
    with (
        others_plan(empty, lambda: plan_partition(rival, with_prompt(enrichment, next(names)), P), times=8),
        pytest.raises(PlanConflict, match="nothing of this run's plan was sent"),
    ):
        plan_partition(empty, with_prompt(enrichment, "Wanted?"), P)


@pytest.mark.parametrize("moment", [1, 2, 3, 4])
def test_documents_that_are_replaced_while_they_are_planned_are_not_taken_for_those_before(
    empty: Platform, enrichment: Enrichment, moment: int
) -> None:
    first: list[str | None] = ["one: good", "another: good"]
    write_documents(empty, ["nobody sends this"])
    plan_partition(empty, enrichment, P)
    write_documents(empty, first)
    moments = iter(range(1, moment + 1))

    def replaced() -> None:
        if next(moments) == moment:
            write_documents(empty, ["three", "others", "are: bad"])

    with others_plan(empty, replaced, times=moment):
        submit(empty, enrichment)
    finish(empty, enrichment)
    write_documents(empty, first)
    submit(empty, enrichment)
    finish(empty, enrichment)
    assert enriched(empty, enrichment)["sentiment"].to_list() == ["positive", "positive"]


def test_a_plan_whose_table_is_lost_is_written_again(empty: Platform, enrichment: Enrichment, time: Time) -> None:
    write_documents(empty, ["good", "bad"])
    plan = submit(empty, enrichment)
    local(empty.store, plan.path).unlink()
    assert submit(empty, enrichment).path == plan.path
    finish(empty, enrichment)
    assert enriched(empty, enrichment).height == 2
    assert time.emulator.accounting()["requests"] == 2


def replace_platform(platform: Platform) -> Platform:
    return Platform(platform.store, platform.ledger, platform.credentials, clock=platform.clock)


def test_what_was_too_large_for_one_plan_does_not_make_the_next_ones_batches_small(
    empty: Platform, emulator: Emulator, time: Time, enrichment: Enrichment
) -> None:
    emulator.faults([{"fault": "html_413", "times": 3}])
    write_documents(empty, TEXTS)
    submit(empty, enrichment)
    while go_on(empty, enrichment) is not Step.NOTHING:
        time.passes(hours=1)
    assert enriched(empty, enrichment).height == len(TEXTS)
    before = len(emulator.batches())
    other = with_prompt(enrichment, "Anew?")
    submit(empty, other)
    finish(empty, other)
    assert len(emulator.batches()) == before + 1


def test_a_full_disk_leaves_nothing_behind(empty: Platform, enrichment: Enrichment) -> None:
    write_documents(empty, [f"{text} {'more ' * 200}" for text in TEXTS * 4])
    folder = local(empty.store) / "enrichments"
    small = replace(enrichment, limits=ShardLimits(requests=10, bytes=1_000_000))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            plan_partition(empty, small, P)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not [path for path in folder.rglob("*") if path.is_file()]
    submit(empty, small)
    finish(empty, small)
    assert enriched(empty, small).height == 4 * len(TEXTS)
