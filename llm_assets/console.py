"""Tables and progress as the command line shows them. Nothing here decides or reads anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson
from rich import box
from rich.console import Console, Group
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.table import Table
from rich.text import Text

from llm_assets.decisions import OpenClaim
from llm_assets.enrichment import Enrichment
from llm_assets.erasure import Erasure
from llm_assets.forecast import EVIDENCE_MIN
from llm_assets.other_accounts import OtherAccount
from llm_assets.overview import Overview, Part
from llm_assets.preview import Answered, Outlook
from llm_assets.prices import in_dollars
from llm_assets.published import Outcome
from llm_assets.status import Asked, Overall, PartitionStatus
from llm_assets.waves import Step

_WIDE = 112
_STEPS = {
    Step.SUBMIT: Text("to send", "yellow"),
    Step.WAIT: Text("waiting", "cyan"),
    Step.COLLECT: Text("to collect", "magenta"),
    Step.HELD: Text("held", "bold red"),
}


# When nobody has asked about a batch for so long, something is wrong with who should.
_UNASKED_SECONDS = 600


def table() -> Table:
    """An empty table in this project's looks."""
    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)


def titled(title: str, content: Table) -> Group:
    """A table under its title, after an empty line."""
    return Group("", Text(title, "bold"), content)


def number(value: int) -> str:
    """A count with thousands separators."""
    return f"{value:,}"


def _batches(count: int) -> str:
    return f"{count:,} {'batch' if count == 1 else 'batches'}"


def moment(value: datetime | None) -> str:
    """A time in UTC to the minute, empty for none."""
    return value.strftime("%Y-%m-%d %H:%M") if value else ""


def duration(seconds: float) -> str:
    """A wall time: 8.2 s, 3 min 20 s."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds // 60:,.0f} min {seconds % 60:.0f} s"


def status_table(statuses: Sequence[PartitionStatus], width: int = _WIDE) -> Table:
    """A row for each partition, and the totals; what is in flight reads: finished/requests in batches.

    In a narrow console it does without documents, what is due, what it cost, and the year.
    """
    wide = width >= _WIDE
    shown = range(9) if wide else (0, 1, 3, 4, 5, 8)
    counts = ("documents", "requests", "wave", "in flight", "due")
    names = ("enrichment", "partition", *counts, "cost", "published (UTC)" if wide else "published")
    found = table()
    for index in shown:
        name = names[index]
        found.add_column(name, justify="right" if 1 < index < 8 else "left", no_wrap=index > 1, overflow="fold")
    for status in statuses:
        cells = _status_cells(status, year=wide)
        found.add_row(*(cells[index] for index in shown))
    if len(statuses) > 1:
        found.add_section()
        totals = _total_cells(statuses)
        found.add_row(*(totals[index] for index in shown), style="bold")
    return found


def declared_table(declared: Sequence[Enrichment]) -> Table:
    """A row for each enrichment that is declared."""
    found = table()
    for name in ("enrichment", "documents", "provider", "model", "mode"):
        found.add_column(name, overflow="fold")
    for each in declared:
        found.add_row(each.name, each.documents, each.provider, each.model_name, each.mode)
    return found


def spending_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """What was spent: a row for each enrichment and model (published.SPENDING_SCHEMA), and the totals."""
    found = table()
    for name in ("enrichment", "model"):
        found.add_column(name, overflow="fold")
    for name in ("requests", "billed", "tokens in", "cached", "tokens out", "cost", "in real time"):
        found.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        found.add_row(row["enrichment"], row["model_name"], *_spending_cells([row]))
    if len(rows) > 1:
        found.add_section()
        found.add_row("total", "", *_spending_cells(rows), style="bold")
    return found


def _spending_cells(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    total = {name: sum(row[name] for row in rows) for name in rows[0] if isinstance(rows[0][name], int | float)}
    cached = f"{total['cache_read_tokens'] / total['input_tokens']:.0%}" if total["input_tokens"] else ""
    return [
        number(total["requests"]),
        number(total["billed"]),
        number(total["input_tokens"]),
        cached,
        number(total["output_tokens"]),
        in_dollars(total["cost_usd"]),
        in_dollars(total["standard_usd"]),
    ]


def preview_table(answers: Sequence[Answered]) -> Table:
    """A row for each document that was asked about: the answer, or why there is none."""
    found = table()
    found.expand = True
    found.add_column("document", no_wrap=True)
    found.add_column("text", no_wrap=True, overflow="ellipsis", ratio=1)
    found.add_column("answer", overflow="fold", ratio=1)
    found.add_column("tokens", justify="right", no_wrap=True)
    found.add_column("cost", justify="right", no_wrap=True)
    for each in answers:
        said = ", ".join(f"{name}: {_value(value)}" for name, value in (each.answer or {}).items())
        answer = Text(said, "green") if not each.reason else Text(f"{each.reason}: {each.message}", "red")
        tokens = f"{each.usage.input_tokens:,} + {each.usage.output_tokens:,}"
        found.add_row(
            each.document_id, Text(" ".join(each.text.split())), answer, tokens, in_dollars(each.standard_usd)
        )
    return found


def _value(value: object) -> str:
    """A value of an answer: texts as they are, all else as JSON."""
    return value if isinstance(value, str) else orjson.dumps(value, default=str).decode()


def outlook_facts(ahead: Outlook) -> dict[str, str]:
    """What a partition would take, line by line."""
    expected = ahead.forecast
    facts = {
        "documents": number(ahead.documents),
        "requests to send": number(expected.requests),
        "answered or waiting already": number(ahead.left_out),
        "answered in other partitions": number(ahead.reused),
        "tokens in, about": number(expected.input_tokens),
        "tokens out, about": number(expected.output_tokens),
        "cost, about": in_dollars(expected.usd),
        "with retries, about": in_dollars(expected.usd * ahead.retries),
        "at most, without retries": in_dollars(expected.at_most_usd),
        "in real time, about": in_dollars(expected.standard_usd),
        "judged by": _judged_by(ahead),
    }
    if ahead.failed_before:
        facts["cannot be asked"] = number(ahead.failed_before)
    if ahead.hours is not None:
        facts["batches took lately"] = duration(ahead.hours * 3600)
    return facts


def _learned_from(evidence: int) -> str:
    return f"{evidence:,} earlier requests" if evidence else f"a guess: fewer than {EVIDENCE_MIN} earlier requests"


def _judged_by(ahead: Outlook) -> str:
    learned = _learned_from(ahead.evidence)
    if ahead.asked and not ahead.evidence:
        learned = f"the {ahead.asked:,} above; there are fewer than {EVIDENCE_MIN} earlier requests"
    return f"{learned}; tokens in by the provider's count of {ahead.counted:,}" if ahead.counted else learned


def overview_table(ahead: Overview) -> Table:
    """A row for the partitions that are not planned, one for those that are, and the totals."""
    found = table()
    found.add_column("", style="dim", no_wrap=True)
    names = ("partitions", "documents", "to send", "in flight", "about", "at most", "in real time")
    for name in names:
        found.add_column(name, justify="right", no_wrap=True)
    parts = [ahead.unplanned, ahead.planned]
    found.add_row("not planned", *_part_cells(parts[:1]))
    found.add_row("planned", *_part_cells(parts[1:]))
    found.add_section()
    found.add_row("total", *_part_cells(parts), style="bold")
    return found


def _part_cells(parts: Sequence[Part]) -> list[str]:
    counts = ("partitions", "documents", "to_send", "in_flight")
    money = ("usd", "at_most_usd", "standard_usd")
    return [
        *(number(sum(getattr(part, name) for part in parts)) for name in counts),
        *(in_dollars(sum(getattr(part, name) for part in parts)) for name in money),
    ]


def overview_facts(ahead: Overview) -> dict[str, str]:
    """What else there is to say about all partitions, line by line."""
    total = ahead.unplanned.usd + ahead.planned.usd
    facts = {"partitions finished": number(ahead.finished)}
    if ahead.without_documents:
        facts["partitions without documents, not counted"] = number(ahead.without_documents)
    if ahead.held:
        facts["partitions held"] = number(ahead.held)
    if ahead.reused:
        facts["answered in other partitions"] = number(ahead.reused)
    facts |= {
        "spent so far": in_dollars(ahead.spent_usd),
        "with retries, about": in_dollars(total * ahead.retries),
        "judged by": _learned_from(ahead.evidence),
    }
    if ahead.hours is not None:
        facts["batches took lately"] = duration(ahead.hours * 3600)
    return facts


def overall_line(name: str, done: Overall) -> Text:
    """How far an enrichment is, in a line."""
    share = f"{done.done / done.requests:.0%}" if done.requests else "all"
    parts = [
        f"{done.done:,} of {done.requests:,} requests done ({share})",
        f"{done.in_flight:,} in flight",
        f"{done.waiting:,} waiting",
        f"{in_dollars(done.cost_usd)} so far",
        f"{done.published:,} of {done.partitions:,} planned partitions published",
    ]
    if done.held:
        parts.append(f"{done.held:,} held")
    if done.about is not None and done.hours is not None:
        parts.append(f"about {moment(done.about)} UTC, as batches took {duration(done.hours * 3600)} lately")
    return Text.assemble((f"{name}: ", "bold"), "; ".join(parts))


def caveat_lines(statuses: Iterable[PartitionStatus]) -> list[Text]:
    """What is to be known of the providers that are at work, a line each."""
    return [Text(said, "yellow") for said in sorted({said for status in statuses for said in status.caveats})]


def claims_table(claims: Sequence[OpenClaim]) -> Table:
    """A row for each batch that an open claim may be in, or one that says why there is none."""
    found = table()
    for name in ("shard", "enrichment", "partition"):
        found.add_column(name, no_wrap=True)
    found.add_column("requests", justify="right", no_wrap=True)
    found.add_column("claimed (UTC)", no_wrap=True)
    found.add_column("candidate", no_wrap=True)
    found.add_column("evidence", overflow="fold")
    for claim in claims:
        shard = claim.shard
        facts = [shard.key, shard.enrichment, shard.partition, number(shard.requests), moment(shard.claimed_at)]
        for candidate in claim.candidates:
            found.add_row(*facts, candidate.batch.batch_id, candidate.evidence)
            facts = [""] * len(facts)
        if not claim.candidates:
            found.add_row(*facts, Text("none", "yellow"), claim.problem or shard.message)
    return found


def erasure_table(found: Erasure) -> Table:
    """A row for each enrichment or table of documents and what holds something of them there."""
    shown = table()
    shown.add_column("of", no_wrap=True)
    shown.add_column("held as", no_wrap=True)
    shown.add_column("rows", justify="right")
    shown.add_column("files", justify="right")
    counts = {(name, holds): (number(rows), "") for (holds, name), rows in found.rows.items()}
    counts |= {(name, holds): ("", number(files)) for (holds, name), files in found.files.items()}
    for (name, holds), count in sorted(counts.items()):
        shown.add_row(name, holds, *count)
    return shown


def erasure_lines(found: Erasure, *, done: bool) -> list[Text]:
    """What is in the way, what is elsewhere, and what to do next."""
    lines = [
        Text(f"In the way: batch {each.batch_id or each.key} of {each.enrichment} {each.partition} is in flight", "red")
        for each in found.in_flight
    ]
    lines += [
        Text(f"{provider} may still keep {_batches(count)} that asked about them, for 30 days at most", "yellow")
        for provider, count in sorted(found.at_providers.items())
    ]
    lines.append(Text("The files that documents were read from are yours: take them out there too", "yellow"))
    return lines if done else [*lines, Text("Nothing was changed; --yes erases")]


def empty_lines(statuses: Iterable[PartitionStatus]) -> list[Text]:
    """Which published partitions have no documents, a line an enrichment: that may be meant, or a wrong path."""
    empty: dict[str, list[str]] = {}
    for status in statuses:
        if status.published_at and not status.documents:
            empty.setdefault(status.enrichment, []).append(status.partition)
    return [
        Text.assemble((f"{name} has no documents in ", "yellow"), _some(partitions), ": is the `path` right?")
        for name, partitions in empty.items()
    ]


def _some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def held_lines(statuses: Iterable[PartitionStatus]) -> list[Text]:
    """Why partitions are held, a line each."""
    return [
        Text.assemble((f"{status.enrichment} {status.partition} is held: ", "bold red"), status.held)
        for status in statuses
        if status.held
    ]


def asked_lines(found: Iterable[Asked], now: datetime) -> list[Text]:
    """Whether the batches in flight are asked about, a line a provider; red where nobody has for long."""
    return [_asked_line(each, now) for each in found]


def _asked_line(each: Asked, now: datetime) -> Text:
    lag = (now - each.unasked_since).total_seconds()
    last = f"{duration((now - each.asked_at).total_seconds())} ago" if each.asked_at else "never"
    said = f"{each.provider}: {each.batches:,} in flight, last asked about {last}, one of them not for {duration(lag)}"
    if lag < _UNASKED_SECONDS:
        return Text(said, "dim")
    return Text(f"{said}: is the daemon running, the sensor batch_completion on, the provider up?", "bold red")


def other_account_lines(others: Iterable[OtherAccount]) -> list[Text]:
    """What is in flight and cannot be asked about with the keys that are set, or was just taken over, a line each."""
    return [_other_account_line(other) for other in others]


def _other_account_line(other: OtherAccount) -> Text:
    count = len(other.shards)
    what = f"{_batches(count)} in flight at {other.provider}"
    if other.proof:
        return Text(f"{what} taken over: the key that is set sees {other.proof}", "green")
    return Text.assemble(
        (f"{what} cannot be asked about: ", "bold red"),
        "sent with another key or base URL than is set. Set the former one, or, if the new key is of the same account, "
        "run `llm-assets reconcile --take-over`",
    )


def _status_cells(status: PartitionStatus, *, year: bool) -> list[str | Text]:
    published = status.step is Step.NOTHING
    when = moment(status.published_at)
    return [
        status.enrichment,
        status.partition,
        number(status.documents),
        number(status.requests),
        number(status.wave),
        _in_flight([status]),
        number(status.requests_due),
        in_dollars(status.cost_usd) if status.cost_usd else "",
        Text(when if year else when[5:], "green") if published else _STEPS[status.step],
    ]


def _total_cells(statuses: Sequence[PartitionStatus]) -> list[str]:
    return [
        "total",
        number(len(statuses)),
        number(sum(status.documents for status in statuses)),
        number(sum(status.requests for status in statuses)),
        "",
        _in_flight(statuses),
        number(sum(status.requests_due for status in statuses)),
        in_dollars(sum(status.cost_usd for status in statuses)),
        f"{sum(status.step is Step.NOTHING for status in statuses):,} of {len(statuses):,}",
    ]


def _in_flight(statuses: Sequence[PartitionStatus]) -> str:
    batches = sum(status.batches_in_flight for status in statuses)
    requests = sum(status.requests_in_flight for status in statuses)
    finished = sum(status.requests_finished for status in statuses)
    return f"{finished:,}/{requests:,} in {batches:,}" if batches else ""


def facts_table(facts: Mapping[str, str]) -> Table:
    """Names and values, a line each; values that are numbers are aligned with one another."""
    found = table()
    found.show_header = False
    found.add_column("name", style="dim", no_wrap=True)
    found.add_column("value", justify="right", overflow="fold")
    for name, value in facts.items():
        found.add_row(name, Text(value))
    return found


def outcomes_table(outcomes: Mapping[str, Outcome], accuracies: Mapping[str, float | None]) -> Table:
    """A column for each enrichment: what came of its documents, and how often the answer was the label."""
    found = table()
    found.add_column("", style="dim", no_wrap=True)
    for name in outcomes:
        found.add_column(name, justify="right", overflow="fold")
    for name in ("documents", "enriched", "failed", "waves", "input_tokens", "output_tokens"):
        found.add_row(name.replace("_", " "), *(number(getattr(done, name)) for done in outcomes.values()))
    found.add_row("cost", *(in_dollars(done.cost_usd) for done in outcomes.values()))
    rates = [accuracies.get(name) for name in outcomes]
    if any(rate is not None for rate in rates):
        found.add_row("accuracy", *("" if rate is None else f"{rate:.1%}" for rate in rates))
    return found


def examples_table(examples: Sequence[Mapping[str, str | None]]) -> Table:
    """Some documents, shortened to a line, with label, where there is one, and answers; agreement is green."""
    found = table()
    found.expand = True  # the text takes what is left of the line
    found.add_column("text", no_wrap=True, overflow="ellipsis", ratio=1)
    labelled = any(example["label"] for example in examples)
    if labelled:
        found.add_column("label", no_wrap=True)
    enrichments = [name for name in (examples[0] if examples else {}) if name not in ("document_id", "text", "label")]
    for name in enrichments:
        found.add_column(name, no_wrap=labelled, overflow="fold", ratio=None if labelled else 1)
    for example in examples:
        label = example["label"]
        answers = [_answer(example[name], label) for name in enrichments]
        found.add_row(Text(" ".join((example["text"] or "").split())), *([label] if labelled else []), *answers)
    return found


def _answer(answer: str | None, label: str | None) -> Text:
    if answer is None:
        return Text("failed", "red")
    return Text(answer, "green" if label in (None, answer) else "yellow")


def reasons_table(failures: Mapping[str, int]) -> Table:
    """How many documents failed for which reason."""
    found = table()
    found.add_column("reason", no_wrap=True)
    found.add_column("documents", justify="right")
    for reason, count in failures.items():
        found.add_row(reason, number(count))
    return found


def failures_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A row for each failed document: what happened, in our words and the provider's, and how often it was tried."""
    found = table()
    for name in ("partition", "document", "reason"):
        found.add_column(name, no_wrap=True)
    found.add_column("tried", justify="right", no_wrap=True)
    found.add_column("message", overflow="fold")
    for row in rows:
        message = row["message"] or row["provider_type"]
        found.add_row(row["partition"], row["document_id"], row["reason"], number(row["attempts"]), Text(message))
    return found


class _Elapsed(ProgressColumn):
    """The time since the start. Rich's own stops when a wave is complete, although another may follow."""

    def render(self, task: Task) -> Text:
        return Text(duration(task.elapsed or 0), "dim")


def progress_bar(console: Console) -> Progress:
    """Requests finished of all, wave and tokens; a task begins with `progress_fields()`."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[requests]}"),
        TextColumn("[dim]wave[/] {task.fields[wave]}"),
        TextColumn("[dim]tokens[/] {task.fields[tokens]:,}"),
        _Elapsed(),
        console=console,
        disable=not console.is_terminal,
    )


def progress_fields(status: PartitionStatus | None = None, tokens: int = 0) -> dict[str, Any]:
    """What the progress bar shows of a status; without one, that nothing is known yet."""
    if status is None:
        return {"total": None, "requests": "preparing", "wave": 0, "tokens": 0}
    done = f"{status.requests_done:,}/{status.requests:,} requests"
    return {
        "total": status.requests,
        "completed": status.requests_done,
        "requests": done,
        "wave": status.wave,
        "tokens": tokens,
    }
