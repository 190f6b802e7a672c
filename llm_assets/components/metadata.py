"""What the UI shows: numbers that it can plot, tables, schemas. Never a document's text."""

from collections.abc import Mapping, Sequence

import dagster as dg
import polars as pl

from llm_assets.publication import Progress
from llm_assets.records import Plan, Shard
from llm_assets.retries import Standing
from llm_assets.submission import Sent

Metadata = dict[str, dg.MetadataValue | str | int | float | bool]

_SHARDS_SHOWN = 50
_NOTE_LENGTH = 80
# Ids that the emulator gives out carry its name.
_EMULATOR = "emulator"


def column_schema(schema: Mapping[str, pl.DataType], descriptions: Mapping[str, str]) -> dg.TableSchema:
    """A frame's schema as the UI shows it."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(name=name, type=str(dtype), description=descriptions.get(name))
            for name, dtype in schema.items()
        ]
    )


def column_lineage(columns: Mapping[str, Sequence[tuple[dg.AssetKey, str]]]) -> dg.TableColumnLineage:
    """Which columns of other tables each column is made of, as the UI shows it."""
    return dg.TableColumnLineage(
        {
            name: [dg.TableColumnDep(asset_key=table, column_name=column) for table, column in upstream]
            for name, upstream in columns.items()
        }
    )


def submission_metadata(plan: Plan, sent: Sent, shards: Sequence[Shard]) -> Metadata:
    """What the partition wants and what was sent for it."""
    return emulator_mark(shards) | {
        "shards_when_sent": shards_table(shards),
        "dagster/row_count": plan.requests,
        "documents": plan.documents,
        "wave": plan.wave,
        "requests_sent": sent.requests,
        "bytes_sent": sent.bytes,
        "batches_sent": len(sent.batch_ids),
        "shards_waiting": sent.later,
        "shards_unknown": sent.unknown,
        "shards_rejected": sent.rejected,
        "expected_usd": sum(shard.expected_usd for shard in shards if shard.wave == plan.wave),
        "at_most_usd": sum(shard.at_most_usd for shard in shards if shard.wave == plan.wave),
        "requests_reused": sum(shard.requests for shard in shards if shard.wave == 0),
    }


def shards_table(shards: Sequence[Shard]) -> dg.MetadataValue:
    """The latest shards of a partition: where each is, and under which batch id. Narrow, or the UI cuts it."""
    latest = sorted(shards, key=lambda shard: shard.wave, reverse=True)[:_SHARDS_SHOWN]
    rows = [
        dg.TableRecord(
            {
                "wave": shard.wave,
                "state": shard.state.value,
                "requests": shard.requests,
                "batch": shard.batch_id or shard.message[:_NOTE_LENGTH],
            }
        )
        for shard in latest
    ]
    batch = dg.TableColumn("batch", "string", description="The provider's batch id, or why there is none.")
    columns = [
        dg.TableColumn("wave", "int"),
        dg.TableColumn("state", "string"),
        dg.TableColumn("requests", "int"),
        batch,
    ]
    return dg.MetadataValue.table(records=rows, schema=dg.TableSchema(columns=columns))


def progress_metadata(progress: Progress, shards: Sequence[Shard]) -> Metadata:
    """How far a partition is."""
    requests = progress.requests
    found: Metadata = {
        "documents": progress.documents,
        "requests_answered": requests.get(Standing.ANSWERED, 0),
        "requests_waiting": requests.get(Standing.WAITING, 0),
        "requests_due": requests.get(Standing.DUE, 0) + requests.get(Standing.HELD, 0),
        "requests_failed": requests.get(Standing.FAILED, 0),
        "wave": progress.wave,
        "input_tokens": progress.input_tokens,
        "output_tokens": progress.output_tokens,
    }
    found |= money(progress)
    if progress.failures:
        found["failures"] = _reasons(progress.failures)
    if progress.held:
        found["held"] = progress.held
    return found | odd_results(progress) | emulator_mark(shards)


def enriched_metadata(progress: Progress, path: str, shards: Sequence[Shard]) -> Metadata:
    """What was published of answers."""
    found: Metadata = {
        "dagster/row_count": progress.enriched,
        "documents": progress.documents,
        "failed": progress.failed,
        "waves": progress.wave,
        "input_tokens": progress.input_tokens,
        "output_tokens": progress.output_tokens,
        "table": path,
    }
    return found | money(progress) | odd_results(progress) | emulator_mark(shards)


def money(progress: Progress) -> Metadata:
    """What a partition has cost so far, in US dollars, and what it would have cost otherwise."""
    spent = progress.spent
    return {
        "cost_usd": spent.cost_usd,
        "saved_by_batch_usd": spent.standard_usd - spent.cost_usd,
        "saved_by_cache_usd": spent.uncached_usd - spent.cost_usd,
        "saved_by_reuse_usd": progress.saved_usd,
        "cache_hit_share": spent.cache_read_tokens / spent.input_tokens if spent.input_tokens else 0.0,
    }


def failed_metadata(progress: Progress, path: str) -> Metadata:
    """What was published of failures."""
    found: Metadata = {
        "dagster/row_count": progress.failed,
        "documents": progress.documents,
        "failed_share": progress.failed / progress.documents if progress.documents else 0.0,
        "table": path,
    }
    if progress.failures:
        found["failures"] = _reasons(progress.failures)
    return found


def odd_results(progress: Progress) -> dict[str, int]:
    """Result lines that should not have come, by what is odd about them; empty when there are none."""
    found = {"stray_results": progress.strays, "conflicting_results": progress.conflicts}
    return {name: number for name, number in found.items() if number}


def is_emulated(batch_id: str | None) -> bool:
    """Whether a batch was the emulator's and not a vendor's."""
    return _EMULATOR in (batch_id or "")


def emulator_mark(shards: Sequence[Shard]) -> Metadata:
    """Says so when any of the batches was the emulator's."""
    if any(is_emulated(shard.batch_id) for shard in shards):
        return {"emulator": "These answers come from the local emulator, not from the provider."}
    return {}


def _reasons(failures: Mapping[str, int]) -> dg.MetadataValue:
    rows = "\n".join(f"| {reason} | {count:,} |" for reason, count in failures.items())
    return dg.MetadataValue.md(f"| reason | count |\n|---|---:|\n{rows}")
