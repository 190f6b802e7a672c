"""A season as numbers and as tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import fields

from rich.box import SIMPLE_HEAD
from rich.table import Table

from chaos.referee import Verdict
from chaos.stage import Played
from llm_assets.emulator.faults import MENU, Scope


def numbers(season: Sequence[Played], seed: int, seconds: float) -> dict[str, float]:
    """One flat object: what was done to the platform, and what the referee counted."""
    verdict = together(season)
    injected = sum((one.injected for one in season), Counter[str]())
    counted = {one.name: getattr(verdict, one.name) for one in fields(verdict) if one.name != "details"}
    return {
        "schedules": len(season),
        "faults_injected": injected.total(),
        "faults_of_the_menu": len(injected),
        "faults_in_the_menu": len(MENU),
        "kills": sum(one.kills for one in season),
        "kill_places": len(frozenset().union(*(one.kill_places for one in season))),
        "double_runs": sum(one.double_runs for one in season),
        "processes": sum(one.runs for one in season),
        "schedules_unfinished": sum(one.unfinished for one in season),
        "processes_crashed": sum(one.crashes for one in season),
        **{f"schedules_{name}": found for name, found in sorted(_shares(season).items())},
        **counted,
        "seconds": round(seconds, 1),
        "seed": seed,
    }


def together(season: Iterable[Played]) -> Verdict:
    """The verdicts as one."""
    verdict = Verdict()
    for one in season:
        verdict += one.verdict
    return verdict


def broken(season: Iterable[Played]) -> list[Played]:
    """The schedules that broke a promise, in their order."""
    return sorted((one for one in season if one.verdict.faulty), key=lambda one: one.schedule.number)


def table(season: Sequence[Played], seed: int, seconds: float) -> Table:
    """A column for each provider and ledger, and one for all."""
    groups: dict[str, list[Played]] = {}
    for one in sorted(season, key=lambda one: (one.schedule.provider, one.schedule.ledger)):
        groups.setdefault(f"{one.schedule.provider}\n{one.schedule.ledger}", []).append(one)
    drawn = Table(
        title=f"{len(season)} schedules of seed {seed} in {seconds:.0f} s",
        caption="Counted by the emulator and in the tables, not by what is tested.",
        box=SIMPLE_HEAD,
    )
    drawn.add_column("")
    for name in (*groups, "all"):
        drawn.add_column(name, justify="right", style="bold" if name == "all" else "")
    columns = [_cells(group) for group in (*groups.values(), season)]
    for name in columns[-1]:
        drawn.add_row(name, *(column[name] for column in columns), end_section=name in _SECTION_ENDS)
    return drawn


_SECTION_ENDS = frozenset({"double runs", "documents failed", "requests billed", "useless, asked again"})


def _cells(season: Sequence[Played]) -> dict[str, str]:
    verdict = together(season)
    wrong = verdict.documents_twice_or_unasked + verdict.answers_of_other_documents
    counts = {
        "schedules": len(season),
        "partitions": verdict.partitions,
        "processes": sum(one.runs for one in season),
        "faults injected": sum(one.injected.total() for one in season),
        "processes killed": sum(one.kills for one in season),
        "… at different places": len(frozenset().union(*(one.kill_places for one in season))),
        "processes crashed": sum(one.crashes for one in season),
        "double runs": sum(one.double_runs for one in season),
        "documents": verdict.documents,
        "documents answered": verdict.documents_enriched,
        "documents failed": verdict.documents_failed,
        "batches": verdict.batches,
        "requests accepted": verdict.requests_accepted,
        "requests billed": verdict.requests_billed,
        "lost by provider, paid again": verdict.requests_lost_by_provider_and_paid_again,
        "useless, asked again": verdict.requests_paid_again_after_useless_answer,
    }
    judged = {
        "documents lost": verdict.documents_lost,
        "documents mixed up": wrong,
        "answers not delivered": verdict.answers_paid_and_not_delivered,
        "in two batches at once": verdict.requests_in_two_batches_at_once,
        "requests billed twice": verdict.requests_billed_twice,
    }
    return {name: f"{count:,}" for name, count in counts.items()} | {name: _judged(n) for name, n in judged.items()}


def _judged(count: int) -> str:
    return f"[bold red]{count:,}[/]" if count else "[bold green]0[/]"


def faults_table(season: Iterable[Played]) -> Table:
    """How often each fault of the menu was injected."""
    injected = sum((one.injected for one in season), Counter[str]())
    drawn = Table(title="Faults injected", box=SIMPLE_HEAD, padding=0, collapse_padding=True)
    for scope in Scope:
        drawn.add_column(f"{scope}s" if scope is not Scope.BATCH else "batches")
        drawn.add_column("", justify="right")
    by_scope = [
        [(fault.name, injected[fault.name]) for fault in MENU.values() if fault.scope is scope] for scope in Scope
    ]
    for line in range(max(map(len, by_scope))):
        cells = [column[line] if line < len(column) else ("", None) for column in by_scope]
        drawn.add_row(*(part for name, count in cells for part in (name, "" if count is None else f"{count:,}")))
    return drawn


def errors_table(season: Iterable[Played]) -> Table:
    """What the processes met and got over, by how often."""
    met = sum((one.errors for one in season), Counter[str]())
    drawn = Table(title="Runs that failed", box=SIMPLE_HEAD, padding=0, collapse_padding=True)
    drawn.add_column("error")
    drawn.add_column("", justify="right")
    for name, count in met.most_common():
        drawn.add_row(name, f"{count:,}")
    return drawn


def sentences(played: Played) -> list[str]:
    """What a schedule broke, in words, and the command that plays it again."""
    schedule = played.schedule
    faulty = ", ".join(f"{name} {count}" for name, count in played.verdict.faulty.items())
    faults = ", ".join(sorted(played.injected)) or "none"
    return [
        f"[bold red]schedule {schedule.number}[/] ({schedule.provider}, {schedule.ledger}): {faulty}",
        *(f"    {detail}" for detail in played.verdict.details[:4]),
        *(["    one process alone and without faults did not bring it to an end"] if played.unfinished else []),
        *([f"    last words: {played.last_words}"] if played.last_words else []),
        f"    faults: {faults}; kills: {played.kills}; double runs: {played.double_runs}",
        f"    [bold]python -m chaos --only {schedule.number} --seed {schedule.seed}[/]",
    ]


def _shares(season: Iterable[Played]) -> Counter[str]:
    """Schedules by provider and by ledger."""
    return Counter(name for one in season for name in (one.schedule.provider, one.schedule.ledger))
