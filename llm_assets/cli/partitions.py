"""Commands about partitions: doing one, where they are, what failed, what they cost and will cost."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from typing import Annotated

import typer
from msgspec import structs

from llm_assets import console
from llm_assets.cli.terminal import (
    FAILED,
    MISUSED,
    AsJson,
    check_known,
    check_store,
    complain,
    errors_exit,
    looking,
    new_console,
    opened_platform,
    print_json,
)
from llm_assets.other_accounts import other_accounts
from llm_assets.overview import overview
from llm_assets.preview import ask_some, count_some, outlook
from llm_assets.prices import in_dollars
from llm_assets.providers import caveat
from llm_assets.published import Outcome, failures, outcome, spending_table
from llm_assets.records import Mode
from llm_assets.status import PartitionStatus, asked_lately, overall, statuses, tokens_so_far

_RESUMABLE = "stopped; nothing is lost, the same command goes on where this one was"


def check(as_json: AsJson = False) -> None:
    """Load all declarations: show the enrichments that there are, or say in a line what is wrong."""
    err = new_console(stderr=True)
    with errors_exit(MISUSED), err.status("Loading definitions"):
        from llm_assets.foreground import checked_declarations, unasked_models  # loads Dagster: two seconds

        found, doubtful = checked_declarations(), unasked_models()
    for line in doubtful:
        err.print(f"llm-assets: {line}", style="yellow", soft_wrap=True, highlight=False, markup=False)
    if as_json:
        names = ("name", "documents", "provider", "model_name", "mode", "source")
        print_json({"enrichments": [{name: getattr(each, name) for name in names} for each in found]})
        return
    new_console().print(console.declared_table(found) if found else "No enrichment is declared.")


def run(
    name: Annotated[str, typer.Argument(help="The enrichment.", show_default=False)],
    partition: Annotated[str, typer.Option(help="The partition, such as 2026-11-01.", show_default=False)],
    as_json: AsJson = False,
    poll_seconds: Annotated[float, typer.Option(min=0.1, help="The pause between two looks at the provider.")] = 10,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Ask once more for what failed after all its attempts.")
    ] = False,
) -> None:
    """Do one partition to the end, in this process and without a daemon.

    It may be stopped and started again at any time: nothing is lost and nothing is sent twice.
    """
    started = time.monotonic()
    done, sent, reused = _run(name, partition, poll_seconds, retry_failed)
    seconds = time.monotonic() - started
    if as_json:
        facts = asdict(done) | {"sent": sent, "reused": reused, "seconds": round(seconds, 1)}
        print_json({"enrichment": name, "partition": partition} | facts)
        return
    out = new_console()
    out.print(console.titled(f"{name} {partition}", console.facts_table(_outcome_facts(done, sent, reused, seconds))))
    if done.failures:
        out.print(console.titled("Failures by reason", console.reasons_table(done.failures)))
    out.print()
    for path in done.tables:
        out.print(path, soft_wrap=True, highlight=False, markup=False)


def _run(name: str, partition: str, poll_seconds: float, retry_failed: bool) -> tuple[Outcome, int, int]:
    """A partition to its end, under a progress bar on standard error; how many requests were sent for that, and to how
    many of all the answer was another partition's.
    """
    err = new_console(stderr=True)
    with errors_exit(MISUSED), err.status("Loading definitions"):
        from llm_assets.foreground import Foreground, find_target, open_instance  # loads Dagster: two seconds

        target = find_target(name, partition)
    _warn(target.provider)
    check_store()
    with opened_platform() as platform:
        with errors_exit(MISUSED):
            platform.client(target.provider, None)  # raises when there is no key
        with errors_exit(FAILED, stopped=_RESUMABLE), open_instance() as instance, console.progress_bar(err) as bar:
            task = bar.add_task(f"{name} {partition}", **console.progress_fields())
            begun = platform.clock()
            work = Foreground(target, platform, instance, poll_seconds, complain, retry_failed)
            for each in work.complete():
                bar.update(task, **console.progress_fields(each, tokens_so_far(platform, name, partition)))
            shards = platform.ledger.shards(name, partition)
            sent = sum(shard.requests for shard in shards if shard.submitted_at and shard.submitted_at >= begun)
            reused = sum(shard.requests for shard in shards if shard.wave == 0)
            return outcome(platform.store, work.plan()), sent, reused


def _outcome_facts(done: Outcome, sent: int, reused: int, seconds: float) -> dict[str, str]:
    return {
        "requests sent now": console.number(sent),
        **({"answered by other partitions": console.number(reused)} if reused else {}),
        "documents": console.number(done.documents),
        "enriched": console.number(done.enriched),
        "failed": console.number(done.failed),
        "waves": console.number(done.waves),
        "tokens in": console.number(done.input_tokens),
        "tokens out": console.number(done.output_tokens),
        "cost": in_dollars(done.cost_usd),
        "wall time": console.duration(seconds),
    }


def status(
    name: Annotated[str | None, typer.Argument(help="Only this enrichment.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Show where every partition is, from the ledger; no provider is asked."""
    with errors_exit(FAILED), looking() as platform:
        found = statuses(platform) if platform else []
        known = sorted({each.enrichment for each in found})
        check_known(name, known)
        found = [each for each in found if name in (None, each.enrichment)]
        others = other_accounts(platform) if platform else []
        asked = asked_lately(platform.ledger.active_shards()) if platform else []
        now = platform.clock() if platform else datetime.now(UTC)
        progress = overall(platform, name, found) if platform and name and found else None
    if as_json:
        accounts = [{"provider": each.provider, "batches": len(each.shards)} for each in others]
        print_json(
            {
                "partitions": [asdict(each) for each in found],
                "totals": _totals(found),
                "other_accounts": accounts,
                "asked": [asdict(each) for each in asked],
                **({"progress": asdict(progress)} if progress else {}),
            }
        )
        return
    out = new_console()
    if not found:
        if platform:  # else it is said already
            out.print(f"Nothing was sent yet{f' for {name}' if name else ''}.", markup=False)
        return
    out.print(console.status_table(found, out.width))
    if progress:
        out.print(console.overall_line(str(name), progress))
    wrong = (*console.held_lines(found), *console.empty_lines(found), *console.other_account_lines(others))
    for line in (*wrong, *console.caveat_lines(found), *console.asked_lines(asked, now)):
        out.print(line)


def _totals(found: list[PartitionStatus]) -> dict[str, int]:
    counted = ("documents", "requests", "requests_done", "batches_in_flight", "requests_in_flight", "requests_finished")
    return {
        "partitions": len(found),
        "published": sum(each.published_at is not None for each in found),
        "held": sum(bool(each.held) for each in found),
        **{name: sum(getattr(each, name) for each in found) for name in (*counted, "requests_due")},
    }


def failed(
    name: Annotated[str, typer.Argument(help="The enrichment.", show_default=False)],
    partition: Annotated[str | None, typer.Option(help="Only this partition.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many documents to list.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Show which documents failed and why, in the partitions that are published."""
    with errors_exit(FAILED), looking() as platform:
        known = sorted({each.enrichment for each in statuses(platform)}) if platform else []
        check_known(name, known)
        found = failures(platform, name, partition).to_dicts() if platform else []
    if as_json:
        print_json({"failed": found})
        return
    out = new_console()
    if not found:
        out.print(f"No document of {name}{f' {partition}' if partition else ''} failed.", markup=False)
        return
    reasons = Counter(row["reason"] for row in found)
    out.print(console.titled("Failures by reason", console.reasons_table(dict(reasons.most_common()))))
    out.print(console.titled("Documents", console.failures_table(found[:limit])))
    if len(found) > limit:
        out.print(f"… and {len(found) - limit:,} more (--limit, --json)", style="dim")


def preview(
    name: Annotated[str, typer.Argument(help="The enrichment.", show_default=False)],
    partition: Annotated[
        str | None, typer.Option(help="The partition, such as 2026-11-01; all, if not said.", show_default=False)
    ] = None,
    count: Annotated[int, typer.Option("-n", "--count", min=0, help="Of a partition: how many to ask about.")] = 5,
    count_tokens: Annotated[
        bool, typer.Option("--count-tokens", help="Let the provider count the tokens of some requests, for free.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Ask about a few documents in real time, and show what all of them would cost. Nothing is sent as a batch.

    What is asked here is paid at the standard price, its answers are shown and not kept, and `cost` does not count it.
    Without a partition nothing is asked: what all partitions would cost that are not finished is added up.
    """
    if partition is None:
        _preview_all(name, as_json)
        return
    err = new_console(stderr=True)
    with errors_exit(MISUSED), err.status("Loading definitions"):
        from llm_assets.foreground import Foreground, find_target, open_instance  # loads Dagster: two seconds

        target = find_target(name, partition)
    _warn(target.provider)
    check_store()
    with opened_platform() as platform, errors_exit(FAILED):
        with open_instance() as instance:
            Foreground(target, platform, instance, poll_seconds=1, on_problem=complain).read_documents()
        answers = ask_some(platform, target.declared, partition, count) if count else []
        counted = count_some(platform, target.declared, partition) if count_tokens else []
        ahead = outlook(platform, target.declared, partition, answers, counted)
    if as_json:
        print_json(
            {
                "outlook": asdict(ahead),
                "answers": [asdict(each) | {"usage": structs.asdict(each.usage)} for each in answers],
            }
        )
        return
    out = new_console()
    if answers:
        out.print(console.titled(f"{name} {partition}: asked now", console.preview_table(answers)))
    how = _how(target.declared.mode)
    out.print(console.titled(f"All of it, {how}", console.facts_table(console.outlook_facts(ahead))))


def _preview_all(name: str, as_json: bool) -> None:
    err = new_console(stderr=True)
    with errors_exit(MISUSED), err.status("Loading definitions"):
        from llm_assets.foreground import find_target, open_instance  # loads Dagster: two seconds

        target = find_target(name)
    _warn(target.provider)
    with opened_platform() as platform, errors_exit(FAILED), open_instance() as instance, err.status("Reading") as busy:
        partitions = target.all_partitions(platform, instance)
        ahead = overview(
            platform, target.declared, partitions, target.source, lambda each: busy.update(f"Reading {each}")
        )
    if as_json:
        print_json({"overview": asdict(ahead)})
        return
    out = new_console()
    title = f"{name}: what is left of all partitions, {_how(target.declared.mode)}"
    left = ahead.unplanned.partitions + ahead.planned.partitions
    out.print(console.titled(title, console.overview_table(ahead)) if left else f"{name}: nothing is left to send")
    out.print()
    out.print(console.facts_table(console.overview_facts(ahead)))


def _how(mode: Mode) -> str:
    return "in real time" if mode is Mode.REALTIME else "as batches"


def _warn(provider: str) -> None:
    """Say what is to be known of a provider."""
    if known := caveat(provider):
        err = new_console(stderr=True)
        err.print(f"llm-assets: {provider} is {known}", style="yellow", soft_wrap=True, highlight=False, markup=False)


def cost(
    since: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="From this day on (UTC).")] = None,
    until: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Up to and with this day.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what was spent, by enrichment and model, from the ledger: on results that came in within the days.

    Without what `preview` asks.
    """
    start = since and since.replace(tzinfo=UTC)
    # After the last day that there is comes none.
    end = None if until is None or until.date() == date.max else until.replace(tzinfo=UTC) + timedelta(days=1)
    with errors_exit(FAILED), looking() as platform:
        rows = spending_table(platform, since=start, until=end).to_dicts() if platform else []
    if as_json:
        print_json({"spending": rows})
    elif rows:
        new_console().print(console.spending_table(rows))
    else:
        new_console().print("Nothing was spent.", markup=False)
