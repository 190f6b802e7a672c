"""What was measured as one flat object of numbers and as one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.table import Table

from bench.comparison import PHASES, Comparison
from bench.peer_run import Peer
from bench.phase import Measured
from bench.task import PROVIDERS

Numbers = dict[str, float]

PLATFORM, SCRIPT = PHASES


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table: the name of its numbers, how they are written, and the goal, at least or at most."""

    says: str
    name: str
    form: str = ",.0f"
    at_least: float | None = None
    at_most: float | None = None

    @property
    def goal(self) -> str:
        """The goal in words."""
        if self.at_least is not None:
            return f"≥ {self.at_least:{self.form}}"
        return f"≤ {self.at_most:{self.form}}" if self.at_most is not None else ""

    def cell(self, found: float | None) -> str:
        """A number, in the colour of what it is worth; empty when it was not measured."""
        if found is None:
            return ""
        missed = (self.at_least is not None and found < self.at_least) or (
            self.at_most is not None and found > self.at_most
        )
        colour = "yellow" if missed else "green" if self.goal else "default"
        return f"[{colour}]{found:{self.form}}[/{colour}]"


SECTIONS: tuple[tuple[str, tuple[Row, ...]], ...] = (
    (
        "end to end: documents to tables",
        (
            Row("documents a second", "docs_per_s"),
            Row("documents a CPU second", "docs_per_cpu_s", at_least=35_000),
            Row("times the speed of the script", "wall_ratio_script", ".1f", at_least=5),
            Row("times the speed of the fastest peer", "wall_ratio_peer", ".1f", at_least=50),
            Row("memory at its peak, MiB", "peak_mib", at_most=512),
            Row("  the script's", "script_peak_mib"),
            Row("CPU seconds of the emulator", "server_cpu_s", ".1f"),
        ),
    ),
    (
        "build and submit",
        (
            Row("documents a second", "submit_docs_per_s"),
            Row("  the script's", "script_submit_docs_per_s"),
            Row("times the speed of the script", "submit_ratio_sdk", ".1f", at_least=6),
            Row("share of the physical limit", "submit_limit_share", ".1%"),
        ),
    ),
    (
        "collect and publish",
        (
            Row("documents a second", "collect_docs_per_s"),
            Row("  the SDK's own reading", "sdk_read_docs_per_s"),
            Row("times the speed of the SDK", "collect_ratio_sdk", ".1f", at_least=6),
        ),
    ),
    (
        "once more",
        (
            Row("nothing to do: documents a second", "noop_docs_per_s", at_least=250_000),
            Row("  network calls", "noop_calls", at_most=0),
            Row("one changed: requests sent", "changed_requests", at_most=1),
            Row("  documents a second", "changed_docs_per_s"),
        ),
    ),
    (
        "a tick: 1,000 batches in flight of 21,000",
        (
            Row("provider calls, at most", "tick_calls", at_most=25),
            Row("seconds", "tick_s", ".2f", at_most=2),
            Row("  of the processor", "tick_cpu_s", ".2f"),
            Row("  when all have ended", "tick_learning_s", ".2f"),
            Row("ticks until all ends are known", "ticks_to_learn"),
            Row("  never known", "tick_unlearned", at_most=0),
        ),
    ),
    (
        "from the end of a batch to its tables, by Dagster's daemon",
        (
            Row("seconds for 1,000 documents", "turnaround_s", ".1f"),
            Row("  more than an interval of polls", "turnaround_over_poll_s", ".1f", at_most=10),
        ),
    ),
    (
        "growth, in seconds a document",
        (
            Row("ten times the documents", "growth_size_ratio", ".2f", at_most=1.1),
            Row("after 90 partitions, over after one", "growth_history_ratio", ".2f", at_most=1.1),
        ),
    ),
    (
        "killed in the middle of sending",
        (
            Row("batches that were there by then", "killed_at_batches"),
            Row("documents lost", "killed_lost", at_most=0),
            Row("requests billed twice", "killed_billed_twice", at_most=0),
        ),
    ),
)
LOADING = (
    Row("seconds to load 200 enrichments", "load_s", ".1f"),
    Row("  more than an empty project", "load_over_empty_s", ".1f", at_most=3),
)
# For everything else the lower of two protocols' numbers is the worse one.
_LOWER_IS_BETTER = frozenset(
    {"peak_mib", "server_cpu_s", "noop_calls", "changed_requests", "growth_size_ratio", "growth_history_ratio"}
    | {"killed_lost", "killed_billed_twice", "turnaround_s", "turnaround_over_poll_s"}
    | {"tick_calls", "tick_s", "tick_cpu_s", "tick_learning_s", "ticks_to_learn", "tick_unlearned"}
)


def with_headlines(found: Mapping[str, float]) -> Numbers:
    """What was found, and of each number that both protocols have the worse one by its plain name."""
    first, second = (f"_{provider}" for provider in PROVIDERS)
    names = [name.removesuffix(first) for name in found if name.endswith(first)]
    worse = {
        name: (max if name in _LOWER_IS_BETTER else min)(found[name + first], found[name + second])
        for name in names
        if name + second in found
    }
    return {name: round(value, 4) for name, value in (worse | dict(found)).items()}


def compared(comparison: Comparison) -> Numbers:
    """The numbers of a comparison with the script, by protocol.

    `docs_per_s`, `docs_per_cpu_s`: documents through submit and collect, a second of time or of processor time;
    `docs_per_cpu_started_s`: with the processor time in which processes start.
    `wall_ratio_script`, `cpu_ratio_script`: the script's time through submit and collect, over the platform's.
    `submit_ratio_sdk`: the same of sending; `collect_ratio_sdk`: the time in which the SDK hands over and validates all
    results, keeping nothing, over the platform's to collect and publish.
    `submit_limit_share`: the time of the physical limit over the platform's to submit.
    `peak_mib`, `peak_ratio_script`: the process tree's proportional memory, and the script's over it.
    `server_cpu_s`: the emulator's processor time for all of the platform's phases.
    `noop_docs_per_s`, `changed_docs_per_s`: documents looked at a second when there is nothing to send, or one.
    """
    found: Numbers = {
        "documents": comparison.documents,
        "text_bytes": comparison.text_bytes,
        "runs": comparison.runs,
    }
    for provider in PROVIDERS:
        of_both = _of_both(comparison, provider) | _of_platform(comparison, provider)
        found |= {f"{name}_{provider}": value for name, value in of_both.items()}
    return found


def _of_platform(comparison: Comparison, provider: str) -> Numbers:
    wall, documents = comparison.wall_s, comparison.documents
    return {
        "docs_per_s": documents / wall(provider, PLATFORM),
        "docs_per_cpu_s": documents / comparison.cpu_s(provider, PLATFORM),
        "docs_per_cpu_started_s": documents / comparison.cpu_started_s(provider, PLATFORM),
        "submit_docs_per_s": documents / wall(provider, PLATFORM, "submit"),
        "submit_cpu_s": comparison.cpu_s(provider, PLATFORM, "submit"),
        "submit_limit_share": comparison.limit_s(provider) / wall(provider, PLATFORM, "submit"),
        "collect_docs_per_s": documents / wall(provider, PLATFORM, "collect"),
        "collect_cpu_s": comparison.cpu_s(provider, PLATFORM, "collect"),
        "noop_docs_per_s": documents / wall(provider, PLATFORM, "again"),
        "noop_calls": 0,  # or there would be no comparison
        "changed_docs_per_s": documents / wall(provider, PLATFORM, "changed"),
        "changed_requests": 1,
        "peak_mib": comparison.peak_mib(provider, PLATFORM, *PHASES[PLATFORM]),
        "server_cpu_s": comparison.server_s(provider, PLATFORM),
    }


def _of_both(comparison: Comparison, provider: str) -> Numbers:
    wall, cpu, peak, documents = comparison.wall_s, comparison.cpu_s, comparison.peak_mib, comparison.documents
    return {
        "script_docs_per_s": documents / wall(provider, SCRIPT),
        "script_submit_docs_per_s": documents / wall(provider, SCRIPT, "submit"),
        "sdk_read_docs_per_s": documents / wall(provider, SCRIPT, "read"),
        "script_peak_mib": peak(provider, SCRIPT),
        "wall_ratio_script": wall(provider, SCRIPT) / wall(provider, PLATFORM),
        "cpu_ratio_script": cpu(provider, SCRIPT) / cpu(provider, PLATFORM),
        "peak_ratio_script": peak(provider, SCRIPT) / peak(provider, PLATFORM),
        "submit_ratio_sdk": wall(provider, SCRIPT, "submit") / wall(provider, PLATFORM, "submit"),
        "collect_ratio_sdk": wall(provider, SCRIPT, "read") / wall(provider, PLATFORM, "collect"),
    }


def of_peers(peers: Mapping[Peer, Measured]) -> Numbers:
    """Each peer's documents a second, and the fastest one's."""
    found = {
        f"peer_{peer.name.replace('-', '_')}_over_{peer.provider}_docs_per_s": measured.documents / measured.wall_s
        for peer, measured in peers.items()
    }
    return found | ({"peer_docs_per_s": max(found.values())} if found else {})


def against_peers(found: Numbers) -> Numbers:
    """The platform's documents a second, by protocol, over those of the fastest peer, whatever its protocol is."""
    if "peer_docs_per_s" not in found:
        return {}
    names = [f"docs_per_s_{provider}" for provider in PROVIDERS]
    return {
        name.replace("docs_per_s", "wall_ratio_peer"): found[name] / found["peer_docs_per_s"]
        for name in names
        if name in found
    }


def table(found: Numbers, peers: Mapping[Peer, Measured]) -> Table:
    """All that was measured, a section for each question."""
    drawn = Table(title=_title(found), box=SIMPLE_HEAD)
    drawn.add_column("")
    for name in (*PROVIDERS, "goal"):
        drawn.add_column(name, justify="right")
    for title, rows in SECTIONS:
        there = [row for row in rows if f"{row.name}_{PROVIDERS[0]}" in found]
        if there:
            drawn.add_section()
            drawn.add_row(f"[bold]{title}[/bold]")
        for row in there:
            drawn.add_row(row.says, *(row.cell(found.get(f"{row.name}_{each}")) for each in PROVIDERS), row.goal)
    _add_loading(drawn, found)
    _add_peers(drawn, peers)
    return drawn


def _title(found: Numbers) -> str:
    if "documents" not in found:
        return ""
    of_text = f"{found['documents']:,.0f} documents, {found['text_bytes'] / 1e6:,.1f} MB of text"
    return f"{of_text}, medians of {found['runs']:.0f}"


def _add_loading(drawn: Table, found: Numbers) -> None:
    if "load_s" in found:
        drawn.add_section()
        drawn.add_row("[bold]definitions[/bold]")
        for row in LOADING:
            drawn.add_row(row.says, row.cell(found[row.name]), "", row.goal)


def _add_peers(drawn: Table, peers: Mapping[Peer, Measured]) -> None:
    if peers:
        drawn.add_section()
        drawn.add_row(f"[bold]peers, {max(one.documents for one in peers.values()):,} documents, once[/bold]")
    for peer, measured in peers.items():
        speed = f"{measured.documents / measured.wall_s:,.0f}"
        cells = [speed if peer.provider == provider else "" for provider in PROVIDERS]
        drawn.add_row(f"{peer.name}: documents a second", *cells, peer.note)
