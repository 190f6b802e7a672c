"""`python -m chaos`: play, judge, print tables, write the numbers."""

import json
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from chaos.report import broken, errors_table, faults_table, numbers, sentences, table, together
from chaos.season import play_all
from chaos.stage import Played


def main(
    schedules: Annotated[int, typer.Option(min=1, help="How many to play.")] = 200,
    seed: Annotated[int, typer.Option(help="What they are drawn from.")] = 1,
    only: Annotated[int | None, typer.Option(min=0, help="Play this one alone.")] = None,
    minutes: Annotated[float, typer.Option(min=0, help="None is begun after this time.")] = 15,
    lanes: Annotated[int, typer.Option(min=1, help="How many are played at once.")] = 3,
    keep: Annotated[bool, typer.Option(help="Leave stores and ledgers for a look, beside the numbers.")] = False,
    output: Annotated[Path, typer.Option(help="The file for the numbers.")] = Path(".bench/chaos.json"),
) -> None:
    """Faults, kills and double runs at random: nothing may be lost, and nothing paid twice."""
    console = Console()
    chosen = range(schedules) if only is None else [only]
    started = time.monotonic()
    season: list[Played] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("playing", total=len(chosen))
        played = play_all(seed, chosen, output.parent, lanes=lanes, seconds_max=60 * minutes, keep=keep)
        for one in played:
            season.append(one)
            for line in sentences(one) if one.verdict.faulty else ():
                progress.console.print(line, highlight=False, soft_wrap=True)
            progress.update(task, advance=1, description=_standing(season))
    seconds = time.monotonic() - started
    console.print(table(season, seed, seconds))
    console.print(faults_table(season))
    console.print(errors_table(season))
    output.write_text(json.dumps(numbers(season, seed, seconds), indent=2) + "\n")
    console.print(f"The numbers are in {output}.")
    if len(season) < len(chosen):
        console.print(f"[bold]{len(chosen) - len(season)} of {len(chosen)} schedules were not begun in time.[/]")
    if lost := broken(season):
        commands = [f"python -m chaos --only {one.schedule.number} --seed {seed}" for one in lost]
        console.print(f"[bold red]{len(lost)} schedules broke a promise[/]; to play one again:", *commands, sep="\n  ")
    if lost or len(season) < len(chosen):
        raise typer.Exit(1)


def _standing(season: list[Played]) -> str:
    verdict = together(season)
    kills, faults = sum(one.kills for one in season), sum(one.injected.total() for one in season)
    lost, twice = verdict.documents_lost, verdict.requests_billed_twice
    return f"{faults:,} faults, {kills:,} kills; {lost} lost, {twice} billed twice"


if __name__ == "__main__":
    typer.run(main)
