"""Commands that decide or change: unknown outcomes, documents to forget, files to cut, comparisons to accept."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from llm_assets import console
from llm_assets.cli.terminal import (
    FAILED,
    MISUSED,
    AsJson,
    complain,
    errors_exit,
    looking,
    new_console,
    opened_platform,
    operator_name,
    print_json,
)
from llm_assets.corpus import slice_file
from llm_assets.decisions import Decision, decide, open_claims
from llm_assets.erasure import Erasure, erase, find
from llm_assets.other_accounts import other_accounts
from llm_assets.other_accounts import take_over as do_take_over


def reconcile(
    shard: Annotated[str | None, typer.Argument(help="Decide about this shard.", show_default=False)] = None,
    adopt: Annotated[str | None, typer.Option(metavar="BATCH", help="This batch is the shard's.")] = None,
    resend: Annotated[bool, typer.Option("--resend", help="The provider has nothing of it: send it.")] = False,
    abandon: Annotated[bool, typer.Option("--abandon", help="Do not send it again: its requests fail.")] = False,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Take what was sent with a former key of the account.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the shards that the provider may or may not have, or decide about one of them.

    The sensor settles nearly all by itself. What is decided here is written down in the ledger.
    """
    words = [word for word, said in zip(Decision, (adopt, resend, abandon), strict=True) if said]
    if len(words) > 1 or bool(words) != bool(shard) or (take_over and shard):
        said = f"what of shard {shard}? Say" if shard and not words else "name a shard and"
        complain(
            f"{said} one of --adopt, --resend and --abandon; or --take-over alone, or nothing, to see what is open"
        )
        raise typer.Exit(MISUSED)
    operator = operator_name()
    others, claims = [], []
    with errors_exit(FAILED), looking() as platform:
        if platform:
            if shard:
                decide(platform, shard, words[0], batch_id=adopt, operator=operator)
            others = do_take_over(platform, operator) if take_over else other_accounts(platform)
            claims = open_claims(platform)
    if as_json:
        print_json({"claims": [asdict(claim) for claim in claims], "other_accounts": [asdict(each) for each in others]})
        return
    out = new_console()
    for line in console.other_account_lines(others):
        out.print(line)
    if claims:
        out.print(console.claims_table(claims))
    else:
        out.print("No claim is open: the provider has, or has not, all that the ledger says.", markup=False)


def forget(
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID…", help="The documents.", show_default=False)] = None,
    ids_file: Annotated[
        Path | None, typer.Option(help="A file with an id a line.", exists=True, dir_okay=False)
    ] = None,
    documents: Annotated[
        str | None, typer.Option(help="Only of this table of documents, and what is made of it.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Erase; without it, only what would be is shown.")] = False,
    as_json: AsJson = False,
) -> None:
    """Erase documents everywhere, by id: texts, requests, answers, failures, and what was made of them.

    The files that documents were read from are yours: take them out there first, or the next reading brings them back.
    """
    wanted = {*(ids or []), *(lines_of(ids_file) if ids_file else [])} - {""}
    if not wanted:
        complain("name the documents by their ids, or a file with an id a line (--ids-file)")
        raise typer.Exit(MISUSED)
    with errors_exit(MISUSED), new_console(stderr=True).status("Loading definitions"):
        from llm_assets.foreground import declared_lineage  # loads Dagster: two seconds

        lineage = declared_lineage()
        if documents and documents not in lineage.documents:
            complain(f"no documents are called {documents!r}; there are: {', '.join(sorted(lineage.documents))}")
            raise typer.Exit(MISUSED)
    found = Erasure()
    with errors_exit(FAILED), looking() as platform:
        if platform and yes:
            found = erase(platform, wanted, lineage, documents, operator=operator_name())
        elif platform:
            found = find(platform, wanted, lineage, documents)
    if as_json:
        print_json({"erased": yes, **_erasure_json(found)})
        return
    out = new_console()
    if found.is_empty:
        out.print("No table and no file holds anything of these documents.", markup=False)
        return
    out.print(console.titled("Erased" if yes else "To be erased", console.erasure_table(found)))
    for line in console.erasure_lines(found, done=yes):
        out.print(line)


def _erasure_json(found: Erasure) -> dict[str, Any]:
    return {
        "rows": [{"of": name, "held": holds, "rows": count} for (holds, name), count in sorted(found.rows.items())],
        "files": [{"of": name, "held": holds, "files": count} for (holds, name), count in sorted(found.files.items())],
        "in_flight": [asdict(each) for each in found.in_flight],
        "batches_at_providers": dict(found.at_providers),
    }


def slice_(
    source: Annotated[Path, typer.Argument(help="A CSV, JSON Lines or Parquet file.", exists=True, dir_okay=False)],
    folder: Annotated[Path, typer.Argument(help="Where the slices go: the folder of `path`.", file_okay=False)],
    rows: Annotated[int, typer.Option(min=1, help="How many rows a slice has.")] = 100_000,
) -> None:
    """Cut a large file into slices, each a partition of documents that are `partitioned_by: file`."""
    out = new_console()
    with errors_exit(MISUSED), out.status("Slicing") as busy:
        written = []
        for path in slice_file(source, folder, rows):
            busy.update(f"Slicing: {path.name}")
            written.append(path)
    out.print(f"{len(written):,} slices of up to {rows:,} rows in {folder}", highlight=False, soft_wrap=True)


def accept(
    name: Annotated[str, typer.Argument(help="The evaluation's name.")],
) -> None:
    """Make an evaluation's latest comparison the one that later ones are held against."""
    with errors_exit(MISUSED), opened_platform() as platform:
        from llm_assets.components.evaluation import accept as do_accept  # loads Dagster: two seconds

        rows = do_accept(platform, name)
    new_console().print(f"{name}: {rows:,} answers are accepted; `no_worse` compares with them from now on.")


def lines_of(file: Path) -> list[str]:
    """The lines of a file, of which some programs write a mark before the first. Ids may hold what only Unicode takes
    for the end of a line: half of one would be another document's.
    """
    try:
        return file.read_text(encoding="utf-8-sig").split("\n")  # in which \r\n is \n
    except UnicodeDecodeError:
        complain(f"{file} is not written in UTF-8; write the ids in that")
        raise typer.Exit(MISUSED) from None
