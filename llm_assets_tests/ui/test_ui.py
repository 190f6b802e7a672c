"""What a person sees in Dagster's UI after a day was enriched. Each test leaves its picture in `tmp_path`."""

import re
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

from llm_assets_tests.ui.conftest import ENRICHMENT, PARTITION, Shown


def look(page: Page, shown: Shown, path: str) -> None:
    page.goto(shown.url + path, wait_until="domcontentloaded")


def partition_page(table: str) -> str:
    return f"/assets/{ENRICHMENT}/{table}?view=partitions&partition={PARTITION}"


def metadata(page: Page, key: str) -> Locator:
    """The value beside a key in the table of metadata."""
    return page.locator("tr").filter(has=page.get_by_role("cell", name=key, exact=True)).first.locator("td").nth(1)


def node(page: Page, name: str) -> Locator:
    """A node of the asset graph."""
    return page.locator("foreignObject").filter(has=page.get_by_text(name, exact=True))


def test_lineage(page: Page, shown: Shown, tmp_path: Path) -> None:
    """documents/reviews → batches → enriched and failed, from left to right."""
    look(page, shown, f"/assets/{ENRICHMENT}/batches?view=lineage&lineageScope=neighbors")
    left: dict[str, float] = {}
    for name in ("reviews", "batches", "enriched", "failed"):
        expect(node(page, name)).to_have_count(1)
        box = node(page, name).bounding_box()
        assert box is not None
        left[name] = box["x"]
    page.screenshot(path=tmp_path / "lineage.png")
    assert left["reviews"] < left["batches"] < left["enriched"] == left["failed"]


def test_the_answers_of_a_day(page: Page, shown: Shown, tmp_path: Path) -> None:
    """How many there are, what they cost, where they are, and that no vendor gave them."""
    look(page, shown, partition_page("enriched"))
    expect(metadata(page, "dagster/row_count")).to_have_text(str(shown.status.documents))
    expect(metadata(page, "documents")).to_have_text(str(shown.status.documents))
    expect(metadata(page, "table")).to_contain_text(f"{ENRICHMENT}/enriched/{PARTITION}.parquet")
    expect(metadata(page, "input_tokens")).to_have_text(re.compile(r"^[1-9]\d*$"))
    expect(metadata(page, "emulator")).to_contain_text("local emulator")
    expect(metadata(page, "by_wave")).to_contain_text(str(shown.status.requests))
    expect(metadata(page, "share sentiment=positive")).to_have_text(re.compile(r"^0\.\d+$"))
    page.screenshot(path=tmp_path / "enriched.png")


def test_a_stranger_reads_what_the_table_is(page: Page, shown: Shown, tmp_path: Path) -> None:
    look(page, shown, f"/assets/{ENRICHMENT}/enriched")
    expect(page.get_by_text("A row for each document of")).to_be_visible()
    expect(page.get_by_text("How the reviewer feels about what is reviewed. Answered of")).to_be_visible()
    expect(page.get_by_text("llm_assets/provider: anthropic")).to_be_visible()
    page.get_by_text("Plots", exact=True).click()
    expect(page.get_by_text("usd_per_1000_documents")).to_be_attached()
    page.screenshot(path=tmp_path / "stranger.png")


def test_the_checks_passed(page: Page, shown: Shown, tmp_path: Path) -> None:
    for check in ("nothing_lost", "failure_rate", "schema"):
        look(page, shown, f"/assets/{ENRICHMENT}/enriched?view=checks&checkDetail={check}")
        expect(page.get_by_text("Evaluation result")).to_be_visible()
        expect(page.get_by_text("Passed", exact=True)).to_be_visible()
        page.screenshot(path=tmp_path / f"{check}.png")
    expect(page.get_by_text("Succeeded", exact=True)).to_have_count(3)


def test_the_batches_of_a_day(page: Page, shown: Shown, tmp_path: Path) -> None:
    """Where each shard is, under the provider's batch id."""
    look(page, shown, partition_page("batches"))
    expect(metadata(page, "requests_sent")).to_have_text(str(shown.status.requests))
    expect(metadata(page, "in_flight_since")).to_contain_text("UTC")
    expect(metadata(page, "budgets")).to_contain_text("of $20.00")
    for shard in shown.shards:
        row = page.locator("tr tr").filter(has_text=shard.batch_id or "no batch")
        expect(row).to_contain_text(str(shard.requests))
        row.scroll_into_view_if_needed()
    page.screenshot(path=tmp_path / "batches.png")
