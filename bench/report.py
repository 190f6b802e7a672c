"""A comparison as numbers and as a table."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table

from bench.comparison import PHASES, Comparison
from bench.task import PROVIDERS

PLATFORM, SCRIPT = PHASES
# For everything else the lower of two protocols' numbers is the worse one.
_LOWER_IS_BETTER = frozenset({"peak_mib", "server_cpu_s"})


def numbers(comparison: Comparison) -> dict[str, float]:
    """One flat object. A name with `_anthropic` or `_openai` is of that protocol; without, the worse of the two.

    `docs_per_s`, `docs_per_cpu_s`: documents through submit and collect, a second of time or of processor time.
    `wall_ratio_script`, `cpu_ratio_script`: the script's time through submit and collect, over the platform's.
    `submit_ratio_sdk`: the same of sending; `collect_ratio_sdk`: the time in which the SDK hands over and validates all
    results, keeping nothing, over the platform's to collect and publish.
    `docs_per_cpu_started_s`: as `docs_per_cpu_s`, with the processor time in which processes start.
    `server_cpu_s`: the emulator's processor time for all of the platform's phases.
    `peak_mib`, `peak_ratio_script`: the process tree's proportional memory, and the script's over it.
    `noop_docs_per_s`: documents looked at a second when there is nothing to send.
    """
    by_provider = {provider: _of(comparison, provider) for provider in PROVIDERS}
    worst = {
        name: (max if name in _LOWER_IS_BETTER else min)(found[name] for found in by_provider.values())
        for name in by_provider[PROVIDERS[0]]
    }
    each = {f"{name}_{provider}": value for provider, found in by_provider.items() for name, value in found.items()}
    about = {"documents": comparison.documents, "text_bytes": comparison.text_bytes, "runs": comparison.runs}
    return {**about, **{name: round(value, 3) for name, value in (worst | each).items()}}


def _of(comparison: Comparison, provider: str) -> dict[str, float]:
    wall, cpu, peak = comparison.wall_s, comparison.cpu_s, comparison.peak_mib
    return {
        "docs_per_s": comparison.documents / wall(provider, PLATFORM),
        "docs_per_cpu_s": comparison.documents / cpu(provider, PLATFORM),
        "docs_per_cpu_started_s": comparison.documents / comparison.cpu_started_s(provider, PLATFORM),
        "server_cpu_s": comparison.server_s(provider, PLATFORM),
        "peak_mib": peak(provider, PLATFORM),
        "noop_docs_per_s": comparison.documents / wall(provider, PLATFORM, "again"),
        "wall_ratio_script": wall(provider, SCRIPT) / wall(provider, PLATFORM),
        "cpu_ratio_script": cpu(provider, SCRIPT) / cpu(provider, PLATFORM),
        "peak_ratio_script": peak(provider, SCRIPT) / peak(provider, PLATFORM),
        "submit_ratio_sdk": wall(provider, SCRIPT, "submit") / wall(provider, PLATFORM, "submit"),
        "collect_ratio_sdk": wall(provider, SCRIPT, "read") / wall(provider, PLATFORM, "collect"),
    }


def table(comparison: Comparison) -> Table:
    """A row for each protocol and phase, each number beside the script's."""
    drawn = Table(
        title=f"{comparison.documents:,} documents, {comparison.text_bytes / 1e6:.1f} MB of text, "
        f"medians of {comparison.runs}",
        caption="A ratio above 1: the platform is faster than the script. Loopback, without TLS and without Dagster.",
        box=SIMPLE_HEAD,
        padding=0,
        collapse_padding=True,
    )
    for name in ("protocol", "phase"):
        drawn.add_column(name)
    for name in ("docs/s", "script", "ratio", "CPU s", "script", "peak MiB", "script"):
        drawn.add_column(name, justify="right")
    for provider in PROVIDERS:
        for phase in PHASES[PLATFORM]:
            drawn.add_row(provider, phase, *_cells(comparison, provider, phase))
    return drawn


def _cells(comparison: Comparison, provider: str, phase: str) -> list[str]:
    speed, cpu, peak = _measures(comparison, provider, PLATFORM, phase)
    if phase not in PHASES[SCRIPT]:
        return [f"{speed:,.0f}", "", "", f"{cpu:.2f}", "", f"{peak:,.0f}", ""]
    speed_script, cpu_script, peak_script = _measures(comparison, provider, SCRIPT, phase)
    pairs = f"{speed:,.0f}", f"{speed_script:,.0f}", f"{speed / speed_script:.2f}", f"{cpu:.2f}", f"{cpu_script:.2f}"
    return [*pairs, f"{peak:,.0f}", f"{peak_script:,.0f}"]


def _measures(comparison: Comparison, provider: str, contender: str, phase: str) -> tuple[float, float, float]:
    """Documents a second, seconds of processor time, and MiB."""
    return (
        comparison.documents / comparison.wall_s(provider, contender, phase),
        comparison.cpu_s(provider, contender, phase),
        comparison.peak_mib(provider, contender, phase),
    )
