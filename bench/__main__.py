"""`python -m bench`: measure, print a table, write the numbers."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from bench.comparison import compare
from bench.growth import measure_growth
from bench.interruption import measure_interruption
from bench.loading import measure_loading
from bench.peer_run import Peer, run_peers
from bench.phase import Measured
from bench.report import Numbers, against_peers, compared, of_peers, table, with_headlines
from bench.tick import measure_ticks
from bench.turnaround import measure_turnaround


class Part(StrEnum):
    """What can be measured by itself."""

    SCRIPT = "script"
    PEERS = "peers"
    TICK = "tick"
    LOADING = "loading"
    GROWTH = "growth"
    INTERRUPTION = "interruption"
    TURNAROUND = "turnaround"


_NOTES = [
    "Loopback without TLS; Dagster is in ticks, loading and turnaround only.",
    "Starting Python and waiting for the provider do not count; for peers waiting does.",
    "Goals are for 1,000,000 documents; of fewer, what is done once has a larger share.",
]


@dataclass(slots=True)
class _Bench:
    documents: int
    peer_documents: int
    runs: int
    folder: Path
    numbers: Numbers = field(default_factory=dict)
    peers: dict[Peer, Measured] = field(default_factory=dict)
    notes: list[str] = field(default_factory=lambda: list(_NOTES))

    def measure(self, part: Part, tell: Callable[[str], None]) -> None:
        match part:
            case Part.SCRIPT:
                self.numbers |= compared(compare(self.documents, self.runs, self.folder, tell))
            case Part.PEERS:
                self.peers, missing = run_peers(self.peer_documents, self.folder, tell)
                self.numbers |= of_peers(self.peers)
                self.notes += missing
            case Part.TICK:
                self.numbers |= measure_ticks(self.folder, tell)
            case Part.LOADING:
                self.numbers |= measure_loading(self.folder, self.runs)
            case Part.GROWTH:
                self.numbers |= measure_growth(self.documents, self.runs, self.folder, tell)
            case Part.INTERRUPTION:
                self.numbers |= measure_interruption(self.documents, self.folder, tell)
            case Part.TURNAROUND:
                self.numbers |= measure_turnaround(self.folder, tell)


def main(
    documents: Annotated[int, typer.Option(min=1, envvar="BENCH_DOCUMENTS", help="How many to make up.")] = 75_000,
    peer_documents: Annotated[int, typer.Option(min=1, help="How many of them the peers get.")] = 5_000,
    runs: Annotated[int, typer.Option(min=1, help="How often everything is measured; medians count.")] = 3,
    only: Annotated[list[Part] | None, typer.Option(help="Measure this part alone; may be said again.")] = None,
    output: Annotated[Path, typer.Option(help="The file for the numbers.")] = Path(".bench/results.json"),
) -> None:
    """Measure this platform against the emulator, over both protocols, beside a plain script and other tools."""
    console, folder = Console(), output.parent
    folder.mkdir(parents=True, exist_ok=True)
    bench = _Bench(documents, peer_documents, runs, folder)
    _measure_all(bench, only or list(Part), console)
    numbers = with_headlines(bench.numbers | against_peers(bench.numbers))
    console.print(table(numbers, bench.peers))
    console.print(*bench.notes, sep="\n", markup=False, highlight=False)
    output.write_text(json.dumps(numbers, indent=2) + "\n")
    console.print(f"The numbers are in {output}.")


def _measure_all(bench: _Bench, parts: Sequence[Part], console: Console) -> None:
    columns = SpinnerColumn(finished_text="✓"), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        for part in parts:
            task = progress.add_task(part, total=1)

            def tell(does: str, part: Part = part, task: TaskID = task) -> None:
                progress.update(task, description=f"{part}: {does}")

            bench.measure(part, tell)
            progress.update(task, description=part, completed=1)


if __name__ == "__main__":
    typer.run(main)
