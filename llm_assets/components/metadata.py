"""What the UI shows: numbers that it can plot, tables, schemas. Never a document's text."""

from collections.abc import Mapping, Sequence

import dagster as dg
import polars as pl

from llm_assets.enrichment import Enrichment
from llm_assets.platform import Platform
from llm_assets.progress import Progress
from llm_assets.records import Plan, Shard
from llm_assets.retries import Standing
from llm_assets.status import InFlight
from llm_assets.submission import Sent

Metadata = dict[str, dg.MetadataValue | str | int | float | bool]
Row = dict[str, str | int]

_SHARDS_SHOWN = 50
_REASONS_SHOWN = 10
_ID_LENGTH = 60
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
    found: Metadata = {
        "shards_when_sent": shards_table(shards),
        "documents": plan.documents,
        "dagster/row_count": plan.requests,
        "wave": plan.wave,
        "requests_retried": retried(shards),
        "requests_reused": sum(shard.requests for shard in shards if shard.wave == 0),
        "requests_sent": sent.requests,
        "bytes_sent": sent.bytes,
        "batches_sent": len(sent.batch_ids),
        "shards_waiting": sent.later,
        "shards_unknown": sent.unknown,
        "shards_rejected": sent.rejected,
        "expected_usd": _usd(sum(shard.expected_usd for shard in shards if shard.wave == plan.wave)),
        "at_most_usd": _usd(sum(shard.at_most_usd for shard in shards if shard.wave == plan.wave)),
    }
    return found | emulator_mark(shards)


def shards_table(shards: Sequence[Shard]) -> dg.MetadataValue:
    """The latest shards of a partition: where each is, and under which batch id. Narrow, or the UI cuts it."""
    latest = sorted(shards, key=lambda shard: shard.wave, reverse=True)[:_SHARDS_SHOWN]
    rows: list[Row] = [
        {
            "requests": f"{shard.requests:,} {shard.state.value}",
            "batch": shard.batch_id or shard.message[:_NOTE_LENGTH],
        }
        for shard in latest
    ]
    return table(rows, requests="string", batch="string")


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
        "cost_usd": _usd(progress.spent.cost_usd),
        "by_wave": waves_table(shards, progress.by_wave),
    }
    return reasons(progress) | found | odd_results(progress) | emulator_mark(shards)


def enriched_metadata(progress: Progress, path: str, shards: Sequence[Shard], shares: Mapping[str, float]) -> Metadata:
    """What was published of answers; `shares` are those that say something (quality.py)."""
    found: Metadata = {
        "dagster/row_count": progress.enriched,
        "documents": progress.documents,
        "failed": progress.failed,
        "failed_share": _share(progress.failed, progress.documents),
        "answered_in_first_wave_share": _share(
            sum(answers for wave, answers in progress.by_wave.items() if wave < 2), progress.documents
        ),
        "requests_retried": retried(shards),
        "waves": progress.wave,
        "by_wave": waves_table(shards, progress.by_wave),
        "usd_per_1000_documents": _usd(1000 * progress.spent.cost_usd / max(progress.documents, 1)),
        "input_tokens": progress.input_tokens,
        "output_tokens": progress.output_tokens,
        "table": path,
    }
    plotted = {f"share {name}": round(share, 4) for name, share in shares.items()}
    return found | money(progress) | plotted | odd_results(progress) | emulator_mark(shards)


def money(progress: Progress) -> Metadata:
    """What a partition has cost so far, in US dollars, and what it would have cost otherwise."""
    spent = progress.spent
    return {
        "cost_usd": _usd(spent.cost_usd),
        "saved_by_batch_usd": _usd(spent.standard_usd - spent.cost_usd),
        "saved_by_cache_usd": _usd(spent.uncached_usd - spent.cost_usd),
        "saved_by_reuse_usd": _usd(progress.saved_usd),
        "cache_hit_share": _share(spent.cache_read_tokens, spent.input_tokens),
    }


def failed_metadata(progress: Progress, path: str) -> Metadata:
    """What was published of failures."""
    return {
        **reasons(progress),
        "dagster/row_count": progress.failed,
        "documents": progress.documents,
        "failed_share": _share(progress.failed, progress.documents),
        "table": path,
    }


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
        return {"emulator": "From the local emulator, not from the provider."}
    return {}


def reasons(progress: Progress) -> Metadata:
    """Why documents have no answer, the most frequent reason first, with the ids of a few: as a table, and as numbers
    that can be plotted. Empty when all have one.
    """
    rows: list[Row] = [
        {"reason": reason, "count": count, "such as": ", ".join(map(_id, progress.examples.get(reason, ())))}
        for reason, count in list(progress.failures.items())[:_REASONS_SHOWN]
    ]
    plotted = {f"failed_{reason}": count for reason, count in progress.failures.items()}
    return {"reasons": table(rows, reason="string", count="int", **{"such as": "string"}), **plotted} if rows else {}


def waves_table(shards: Sequence[Shard], answers: Mapping[int, int]) -> dg.MetadataValue:
    """A row a wave: how much was sent (again), when, and how many `answers` it brought.

    Wave 0 is what other partitions had already. Narrow, or the UI cuts it.
    """
    rows: list[Row] = []
    for wave in sorted({shard.wave for shard in shards}):
        own = [shard for shard in shards if shard.wave == wave]
        sent = min((shard.submitted_at for shard in own if shard.submitted_at), default=None)
        rows.append(
            {
                "wave": wave,
                "requests": sum(shard.requests for shard in own),
                "answers": answers.get(wave, 0),
                "sent (UTC)": "" if sent is None else f"{sent:%b %d %H:%M}",
            }
        )
    return table(rows, wave="int", requests="int", answers="int", **{"sent (UTC)": "string"})


def in_flight_metadata(found: InFlight) -> Metadata:
    """What a provider has of a partition: since when, until about when, and when it is given up."""
    moments = {
        "in_flight_since": found.since,
        "expected_about": found.expected_at,
        "deadline": found.deadline_at,
    }
    return {
        **{name: dg.MetadataValue.timestamp(moment) for name, moment in moments.items() if moment is not None},
        "requests_in_flight": found.requests,
        "requests_finished": found.finished,
        "batches_in_flight": found.batches - found.ended,
        "batches_ended": found.ended,
    }


def budget_metadata(platform: Platform, enrichment: Enrichment, partition: str) -> Metadata:
    """What is spent or reserved so far, of the partition, of today (UTC) and of all enrichments today, and of what."""
    accounts = enrichment.accounts(partition, platform.clock())
    rows: list[Row] = []
    for account, counted in zip(accounts, ("partition", "today (UTC)", "all, today"), strict=True):
        charged, is_limited = platform.ledger.money.charged(account), account.usd < float("inf")
        of = f"of ${account.usd:,.2f} ({charged / account.usd:.1%})" if is_limited else "(no limit)"
        rows.append({"counted": counted, "spent or reserved": f"${charged:,.4f} {of}"})
    return {"budgets": table(rows, counted="string", **{"spent or reserved": "string"})}


def table(rows: Sequence[Row], **columns: str) -> dg.MetadataValue:
    """Rows as the UI shows them, under columns with these types."""
    schema = dg.TableSchema(columns=[dg.TableColumn(name, kind) for name, kind in columns.items()])
    return dg.MetadataValue.table(records=[dg.TableRecord(row) for row in rows], schema=schema)


def retried(shards: Sequence[Shard]) -> int:
    """How many requests were sent again, in all waves after the first."""
    return sum(shard.requests for shard in shards if shard.wave > 1)


def _share(part: float, whole: float) -> float:
    return round(part / whole, 4) if whole else 0.0


def _usd(amount: float) -> float:
    return round(amount, 6)


def _id(document_id: str) -> str:
    return document_id if len(document_id) <= _ID_LENGTH else f"{document_id[:_ID_LENGTH]}…"
