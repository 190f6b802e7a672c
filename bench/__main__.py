"""`python -m bench`: measure, print a table, write the numbers."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench.comparison import compare
from bench.report import numbers, table


def main(
    documents: Annotated[int, typer.Option(min=1, envvar="BENCH_DOCUMENTS", help="How many to make up.")] = 100_000,
    runs: Annotated[int, typer.Option(min=1, help="How often everything is measured; medians count.")] = 3,
    output: Annotated[Path, typer.Option(help="The file for the numbers.")] = Path(".bench/results.json"),
) -> None:
    """Compare this platform with a plain script, over both protocols, against the emulator."""
    console = Console()
    with console.status("starting") as status:
        comparison = compare(documents, runs, output.parent, status.update)
    console.print(table(comparison))
    output.write_text(json.dumps(numbers(comparison), indent=2) + "\n")
    console.print(f"The numbers are in {output}.")


if __name__ == "__main__":
    typer.run(main)
