"""`python -m bench.month`: live through a month, print a table, write the numbers."""

import json
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console

from bench.month.accounts import accounts_of
from bench.month.contenders import PEER, Month, peer_month, project_month, script_crash, script_month
from bench.month.report import Numbers, accounts_table, notes, numbers, of_accounts, table
from bench.peer_run import PeerMissing

CENT = 0.01


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
    accounts: Annotated[bool, typer.Option("--accounts", help="Only hold the ledger against the referee.")] = False,
    requests: Annotated[int, typer.Option(min=20, help="How many, with --accounts.")] = 100_000,
    output: Annotated[Path, typer.Option(help="The file for the numbers.")] = Path(".bench/month.json"),
) -> None:
    """A month of a daily snapshot, against the emulator: what each contender is charged."""
    console, folder = Console(), output.parent
    folder.mkdir(parents=True, exist_ok=True)
    if accounts:
        found = _accounts(requests, seed, folder, console)
        output = output.with_stem(f"{output.stem}-accounts")
    else:
        month = Month(documents, days, provider, seed, folder)
        found = _month(month, console, peer=peer)
    output.write_text(json.dumps(found, indent=2) + "\n")
    console.print(f"The numbers are in {output}.")
    if found.get("difference_usd", 0) >= CENT / 2:
        raise typer.Exit(1)


def _accounts(requests: int, seed: int, folder: Path, console: Console) -> Numbers:
    with TemporaryDirectory(prefix="scratch-", dir=folder) as scratch, console.status("") as status:
        found = of_accounts(accounts_of(requests, seed, Path(scratch), status.update))
    console.print(accounts_table(found))
    return found


def _month(month: Month, console: Console, *, peer: bool) -> Numbers:
    left_out, of_peer, environments = [], None, month.folder / "peers"
    with TemporaryDirectory(prefix="scratch-", dir=month.folder) as scratch, console.status("") as status:
        month = replace(month, folder=Path(scratch))
        project = project_month(month, status.update)
        script, crash = script_month(month, status.update), script_crash(month, status.update)
        try:
            of_peer = peer_month(month, status.update, environments) if peer else None
        except PeerMissing as missing:
            left_out = [f"{PEER.name} left out: {missing}"]
    found = numbers(month, project, script, crash, of_peer)
    console.print(table(found, PEER.name))
    console.print(*notes(found), *left_out, sep="\n", markup=False, highlight=False)
    return found


if __name__ == "__main__":
    typer.run(main)
