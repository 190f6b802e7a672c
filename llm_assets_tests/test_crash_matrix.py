"""Killed at every boundary, started again: every document once, every request billed once."""

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from queue import SimpleQueue

import pytest

from llm_assets.ledger import Ledger
from llm_assets.platform import Platform, utc_now
from llm_assets.store import Store
from llm_assets_tests.crashes import Life, ended, kill, live
from llm_assets_tests.emulator_process import Emulator
from llm_assets_tests.platforms import enriched, failed, labels, write_documents
from llm_assets_tests.postgres import Postgres

# Two shards in the first wave, one in the second.
TEXTS: list[str | None] = [f"Review {number}: this is a good thing." for number in range(9)]
ONE_ROW_OVERLOADED = {"fault": "overloaded", "match": "Review 3", "times": 1}
LATER = timedelta(minutes=10)
SECONDS_MAX = 60


@dataclass(slots=True)
class Bench:
    """An emulator, and a fresh store and ledger for each crash."""

    emulator: Emulator
    folder: Path
    provider: str
    database: Callable[[Path], str]
    crashes: int = 0

    def life(self, *faults: dict[str, object]) -> Life:
        """A partition that was not touched yet."""
        self.emulator.reset()
        self.emulator.faults([ONE_ROW_OVERLOADED, *faults])
        self.crashes += 1
        root = self.folder / str(self.crashes)
        root.mkdir()
        life = Life(root, self.emulator.url, self.database(root), self.provider, root / "passed")
        platform = self._platform(life)
        write_documents(platform, TEXTS)
        platform.close()
        return life

    def dies_of(self, life: Life) -> int | None:
        """Live it to its end; what it ended with."""
        process = live(life)
        found = ended(process, SECONDS_MAX)
        if found is None:
            kill(process)
        return found

    def verdict(self, life: Life) -> str:
        """Start again later and judge by tables and the emulator's accounting; empty when all is well."""
        self.emulator.advance_clock(LATER.total_seconds())
        if code := self.dies_of(replace(life, die_at=None, later=LATER)):
            return f"the second life ended with {code}"
        platform = self._platform(life)
        enrichment = labels(self.provider)
        answered, lost = enriched(platform, enrichment)["document_id"].to_list(), failed(platform, enrichment).height
        platform.close()
        if sorted(answered) != sorted(f"d{number}" for number in range(len(TEXTS))) or lost:
            return f"{len(answered)} answered, {lost} failed"
        billed = [content["billed"] for content in self.emulator.contents()]
        accepted = self.emulator.accounting()["requests"]
        if billed != [1] * len(TEXTS) or accepted != len(TEXTS) + 1:
            return f"{accepted} requests accepted, billed {billed}"
        return ""

    def _platform(self, life: Life) -> Platform:
        return Platform(Store(life.root), Ledger(life.ledger_url, utc_now), {})


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> Callable[[Path], str]:
    if request.param == "sqlite":
        return lambda root: f"sqlite:///{root / 'ledger.db'}"
    server: Postgres = request.getfixturevalue("postgres")
    return lambda _: server.url()


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with Emulator(tmp_path_factory.mktemp("second")) as emulator:
        yield emulator


@pytest.fixture(params=["anthropic", "openai"])
def benches(
    request: pytest.FixtureRequest,
    emulator: Emulator,
    second: Emulator,
    tmp_path: Path,
    database: Callable[[Path], str],
) -> list[Bench]:
    """Two, so that two crashes can be had at once."""
    found = []
    for number, each in enumerate((emulator, second)):
        (tmp_path / str(number)).mkdir()
        found.append(Bench(each, tmp_path / str(number), request.param, database))
    return found


# What the boundaries of a whole life must include, by the words of those who worry about them.
NAMED = {
    "plan written": "store.plan: in place",
    "plan recorded": "ledger.record_plan: not committed",
    "about to claim": "ledger.claim: not committed",
    "claimed": "client.create: not called",
    "answered but not recorded": "client.create: answered",
    "polling": "ledger.ended: not committed",
    "downloaded": "client.download: answered",
    "results written but not recorded": "ledger.collected: not committed",
    "recorded but not published": "store.enriched: written and not in place",
    "mid-publish": "store.enriched: in place",
    "published but not recorded": "ledger.publishing: not committed",
}


# To the ledger all providers are alike, so of Postgres the one with more boundaries will do.
@pytest.mark.parametrize(
    ("database", "benches"),
    [("sqlite", "anthropic"), ("sqlite", "openai"), ("postgres", "openai")],
    indirect=True,
)
def test_killed_at_every_boundary_nothing_is_lost_and_nothing_is_billed_twice(benches: list[Bench]) -> None:
    whole = benches[0].life()
    assert benches[0].dies_of(whole) == 0
    boundaries = whole.passed.read_text().splitlines()
    assert set(NAMED.values()) <= set(boundaries)
    free: SimpleQueue[Bench] = SimpleQueue()
    for bench in benches:
        free.put(bench)

    def crash(number: int) -> str:
        bench = free.get()
        try:
            life = replace(bench.life(), die_at=number)
            code = bench.dies_of(life)
            return bench.verdict(life) if code == -signal.SIGKILL else f"it ended with {code}"
        finally:
            free.put(bench)

    with ThreadPoolExecutor(len(benches)) as pool:
        verdicts = list(pool.map(crash, range(len(boundaries))))
    broken = {f"{number} {boundaries[number]}": verdict for number, verdict in enumerate(verdicts) if verdict}
    assert broken == {}


@pytest.mark.parametrize("route", ["upload", "create", "results"])
def test_killed_in_the_middle_of_a_call_nothing_is_billed_twice(benches: list[Bench], route: str) -> None:
    bench = benches[0]
    if route == "upload" and bench.provider == "anthropic":
        route = "retrieve"  # nothing is uploaded there
    life = bench.life({"fault": "slow", "route": route, "delay_s": 30, "times": 1})
    process = live(life)
    while bench.emulator.calls().get(f"{bench.provider}.{route}", 0) == 0:
        assert ended(process, 0.02) is None
    kill(process)
    assert bench.verdict(life) == ""
