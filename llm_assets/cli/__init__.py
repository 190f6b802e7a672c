"""The command line, `llm-assets`: a partition without a daemon, where everything is, the emulator, the demo.

Commands only: they read options, call, and print. Tables and progress go through rich; with `--json` standard output
holds one JSON document and nothing else. Exit codes: 0 done, 1 it did not work, 2 it was not asked rightly.
"""

from __future__ import annotations

import typer

from llm_assets.cli.decisions import accept, forget, reconcile, slice_
from llm_assets.cli.emulated import demo, emulator
from llm_assets.cli.partitions import check, cost, failed, preview, run, status

app = typer.Typer(
    help="Tables of documents in, tables of answers out, through batch APIs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
# As `--help` lists them.
for command in (run, check, status, failed, preview, cost, reconcile, forget, emulator):
    app.command()(command)
app.command("slice")(slice_)
app.command()(accept)
app.command()(demo)
