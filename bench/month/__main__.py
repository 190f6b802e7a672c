"""`python -m bench.month`: live through a month, print a table, write the numbers."""

import json
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console

from bench.month.contenders import PEER, Month, peer_month, project_month, script_crash, script_month
from bench.month.report import notes, numbers, table
from bench.peer_run import PeerMissing


class Provider(StrEnum):
    """Whose protocol everybody speaks."""

    ANTHROPIC = "anthropic"
    OPENAI = "openai"


def main(
    documents: Annotated[int, typer.Option(min=10, envvar="MONTH_DOCUMENTS", help="How many a day.")] = 2_000,
    days: Annotated[int, typer.Option(min=1, help="How many days.")] = 30,
    provider: Annotated[Provider, typer.Option(help="The peer is driven over openai only.")] = Provider.OPENAI,
    peer: Annotated[bool, typer.Option(help="Whether the other tool takes part.")] = True,
    seed: Annotated[int, typer.Option(help="What documents and failures are drawn from.")] = 1,
    output: Annotated[Path, typer.Option(help="The file for the numbers.")] = Path(".bench/month.json"),
) -> None:
    """A month of a daily snapshot, against the emulator: what each contender is charged."""
    console, folder = Console(), output.parent
    folder.mkdir(parents=True, exist_ok=True)
    left_out = []
    with TemporaryDirectory(prefix="scratch-", dir=folder) as scratch, console.status("") as status:
        month = Month(documents, days, provider, seed, Path(scratch))
        project = project_month(month, status.update)
        script, crash = script_month(month, status.update), script_crash(month, status.update)
        of_peer = None
        try:
            of_peer = peer_month(month, status.update, folder / "peers") if peer else None
        except PeerMissing as missing:
            left_out = [f"{PEER.name} left out: {missing}"]
    found = numbers(month, project, script, crash, of_peer)
    console.print(table(found, PEER.name))
    console.print(*notes(found), *left_out, sep="\n", markup=False, highlight=False)
    output.write_text(json.dumps(found, indent=2) + "\n")
    console.print(f"The numbers are in {output}.")


if __name__ == "__main__":
    typer.run(main)
