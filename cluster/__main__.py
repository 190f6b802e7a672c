"""`python -m cluster`: hosts up, a backfill, plugs pulled, the verdict, and nothing left."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from cluster.hosts import address
from cluster.scene import WORKERS, Outcome, Scene

# Set in the process that has namespaces of its own.
_INSIDE = "LLM_ASSETS_CLUSTER"
_NAMESPACES = ("--net", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc")
_TOOLS = ("unshare", "nsenter", "ip", "setpriv")


def main(
    partitions: Annotated[int, typer.Option(min=5, help="How many the backfill has.")] = 50,
    documents: Annotated[int, typer.Option(min=1, help="How many a partition has.")] = 20,
    minutes: Annotated[float, typer.Option(min=1, help="It must be over after this time.")] = 30,
    folder: Annotated[Path, typer.Option(help="For logs; emptied first.")] = Path(".bench/cluster"),
) -> None:
    """A backfill over two hosts that die and lose their database: nothing may be lost, and nothing paid twice."""
    if _INSIDE not in os.environ:
        _go_inside()
    console = Console()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    started = time.monotonic()

    def say(line: str) -> None:
        console.print(f"{time.monotonic() - started:6.0f} s  {line}", highlight=False, soft_wrap=True)

    outcome = Scene(folder.absolute(), partitions, documents, say).play(60 * minutes)
    console.print(table(outcome, time.monotonic() - started))
    if broken := list(outcome.broken()):
        console.print("[bold red]Broken:[/]", *broken, f"The hosts' logs are in {folder}.", sep="\n  ")
        raise typer.Exit(1)


def _go_inside() -> None:
    """Become a process with a network, a process table and mounts of its own: with it goes all that it starts."""
    if missing := [tool for tool in _TOOLS if shutil.which(tool) is None]:
        typer.echo(
            f"not found: {', '.join(missing)}. On Debian and Ubuntu: apt-get install iproute2 util-linux", err=True
        )
        raise typer.Exit(2)
    if os.geteuid():
        typer.echo("hosts are Linux namespaces, which only root may make: sudo make cluster", err=True)
        raise typer.Exit(2)
    os.environ[_INSIDE] = "1"
    os.execvp("unshare", ["unshare", *_NAMESPACES, sys.executable, "-m", "cluster", *sys.argv[1:]])  # noqa: S606


def table(outcome: Outcome, seconds: float) -> Table:
    """A column for each provider."""
    drawn = Table(
        title=f"A backfill of {outcome.partitions} partitions over two hosts, in {seconds:.0f} s",
        caption="Counted by the emulators and in the tables, not by what is tested.",
        box=SIMPLE_HEAD,
    )
    drawn.add_column("")
    for provider in outcome.verdicts:
        drawn.add_column(provider, justify="right")
    for name, cells in _rows(outcome).items():
        drawn.add_row(name, *map(str, cells))
    pulled = ", ".join(f"{name} {count}" for name, count in sorted(outcome.plugs_pulled.items())) or "none"
    drawn.add_section()
    drawn.add_row("plugs pulled", pulled)
    drawn.add_row("… runs cut short", str(outcome.runs_cut_short))
    drawn.add_row("cut off from Postgres", f"{outcome.cut_seconds:.0f} s, {outcome.sessions_ended} sessions")
    for name, number in WORKERS.items():
        ends = [
            f"{count} {end.lower()}" for (host, end), count in sorted(outcome.runs.items()) if host == address(number)
        ]
        drawn.add_row(f"runs on {name}", ", ".join(ends))
    drawn.add_row("partitions launched again", str(outcome.launched_again))
    drawn.add_row("partitions that Dagster knows of", str(outcome.materialized))
    return drawn


def _rows(outcome: Outcome) -> dict[str, list[object]]:
    verdicts = outcome.verdicts.values()
    return {
        "documents": [verdict.documents for verdict in verdicts],
        "documents answered": [verdict.documents_enriched for verdict in verdicts],
        "documents failed": [verdict.documents_failed for verdict in verdicts],
        "documents lost": [verdict.documents_lost for verdict in verdicts],
        "batches": [verdict.batches for verdict in verdicts],
        "requests accepted": [verdict.requests_accepted for verdict in verdicts],
        "requests billed": [verdict.requests_billed for verdict in verdicts],
        "requests billed twice": [verdict.requests_billed_twice for verdict in verdicts],
        "pool: at once, at most": [
            f"{outcome.pool_most[name]} of {outcome.pool_limits[name]}" for name in outcome.verdicts
        ],
        "pool: looks, on both hosts": [
            f"{outcome.pool_looks}, {outcome.pool_over_both[name]}" for name in outcome.verdicts
        ],
    }


if __name__ == "__main__":
    typer.run(main)
