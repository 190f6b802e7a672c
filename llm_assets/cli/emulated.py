"""Commands without a provider: the emulator, and the demo against it."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from llm_assets import console
from llm_assets.cli.terminal import (
    FAILED,
    AsJson,
    errors_exit,
    new_console,
    print_json,
)
from llm_assets.demo import HOST, KINDS, POLL_SECONDS, ROOT, Demo, KindName, Options, Report
from llm_assets.published import together


class Model(StrEnum):
    """What answers in the emulator."""

    SCRIPTED = "scripted"
    SMOLLM2 = "smollm2"


def emulator(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; Anthropic's base URL is the root, OpenAI's is /v1.")] = 8089,
    model: Annotated[Model, typer.Option(help="What answers.")] = Model.SCRIPTED,
    faults: Annotated[Path | None, typer.Option(help="A YAML file of faults.", exists=True, dir_okay=False)] = None,
    state_dir: Annotated[Path | None, typer.Option(help="The folder that its state lives in.")] = None,
    latency: Annotated[float, typer.Option(min=0, help="Seconds that a batch takes at least.")] = 0,
) -> None:
    """Serve both batch APIs on this machine, with answers from a script or a small local model."""
    command = [sys.executable, "-m", "llm_assets.emulator", "--host", host, "--port", str(port), "--model", model]
    command += ["--faults", str(faults)] if faults else []
    command += ["--state-dir", str(state_dir)] if state_dir else []
    command += ["--latency", str(latency)] if latency else []
    os.execv(sys.executable, command)  # noqa: S606 (the emulator takes this process over, signals and all)


def demo(
    stay: Annotated[
        bool, typer.Option("--stay", help="Keep everything up afterwards, and go on with what is there.")
    ] = False,
    as_json: AsJson = False,
    port: Annotated[int, typer.Option(help="The port of Dagster's UI.")] = 3000,
    model: Annotated[
        Model | None, typer.Option(help="What answers instead of the providers.", show_default="by the kind of work")
    ] = None,
    folder: Annotated[Path | None, typer.Option(help="Where it writes.", show_default=".demo")] = None,
    kind: Annotated[KindName, typer.Option(help="The kind of work.")] = KindName.LABELS,
) -> None:
    """Show the whole flow: sample documents through a real daemon and both protocols, no keys and no costs."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.default_int_handler)
    started = time.monotonic()
    out = new_console(stderr=as_json)
    options = Options((folder or ROOT / ".demo").absolute(), port, model and model.value, keep=stay, kind=KINDS[kind])
    with errors_exit(FAILED):
        out.print("Starting the emulator and Dagster …", style="dim")
        with Demo(options, say=lambda line: out.print(line, style="yellow", highlight=False, soft_wrap=True)) as shown:
            _watch(shown, out)
            report, seconds = shown.report(), time.monotonic() - started
            if as_json:
                print_json(_report_json(shown, report, seconds))
            else:
                _print_report(out, shown, report, seconds)
            if stay:
                _stay(shown, out)
            else:
                out.print("`make dev` goes on with this and keeps Dagster's UI up.", style="dim", markup=False)


def _watch(shown: Demo, out: Console) -> None:
    """The live table until everything is published."""
    answered_by = "SmolLM2-135M on this machine" if shown.model == "smollm2" else "a script"
    out.print(f"Emulated providers at http://{HOST}:{shown.emulator_port}, answered by {answered_by}", highlight=False)
    out.print(f"Dagster's UI       at {shown.url}", highlight=False)
    runs = shown.launch()
    started = (
        f"Started {len(runs)} runs; from here on the sensor does" if runs else "Nothing is launched: the sensors do"
    )
    out.print(f"{started} the rest, every {POLL_SECONDS} s.", style="dim")
    out.print()
    with _line_ended(out), Live(console=out, refresh_per_second=4) as live:
        for found in shown.watch(runs):
            live.update(console.status_table(found, out.width) if found else Text("Dagster starts its runs …", "dim"))


@contextmanager
def _line_ended(out: Console) -> Iterator[None]:
    """Rich ends the last line of a live table on terminals only."""
    try:
        yield
    finally:
        if not out.is_terminal:
            out.line()


def _stay(shown: Demo, out: Console) -> None:
    out.print(f"Everything stays up, sensor and schedules too: {shown.url}  (Ctrl-C ends it)", style="bold")
    try:
        while True:
            shown.check()
            time.sleep(1)  # until Ctrl-C; each round only looks whether the processes live
    except KeyboardInterrupt:
        out.print("Ending …", style="dim")


def _report_json(shown: Demo, report: Report, seconds: float) -> dict[str, Any]:
    return {
        "answers_from": f"the emulator ({shown.model})",
        "ui": shown.url,
        "seconds": round(seconds, 1),
        "enrichments": {
            name: asdict(done) | {"accuracy": report.accuracies.get(name)} for name, done in report.outcomes.items()
        },
        "examples": report.examples,
        "accounting": report.accounting,
        "asked_again": report.asked_again,
        "paid_twice": report.paid_twice,
    }


def _print_report(out: Console, shown: Demo, report: Report, seconds: float) -> None:
    out.print(console.titled("What came of it", console.outcomes_table(report.outcomes, report.accuracies)))
    failures = together(report.outcomes.values()).failures
    if failures:
        out.print(console.titled("Failures by reason", console.reasons_table(failures)))
    out.print(console.titled("Some answers", console.examples_table(report.examples)))
    out.print(console.titled("The emulator's books", console.facts_table(_accounting_facts(report))))
    out.print(
        f"\nAll answers are the emulator's ({shown.model}), not a provider's: judge nothing by them.", style="yellow"
    )
    if shown.page is not None:
        out.print(f"Compared, with pictures, in {shown.page}", style="bold", soft_wrap=True)
    out.print(
        f"Done in {console.duration(seconds)}; tables, ledger and logs lie in {shown.options.folder}", soft_wrap=True
    )


def _accounting_facts(report: Report) -> dict[str, str]:
    asked = report.accounting["asked"].get("requests", 0)
    return {
        "batches accepted": console.number(report.accounting["batches"]),
        "requests accepted": console.number(report.accounting["requests"]),
        "requests billed": console.number(report.accounting["billed"]),
        **({"answered in real time": console.number(asked)} if asked else {}),
        "asked again, the first answer was of no use": console.number(report.asked_again),
        "paid twice for the same answer": console.number(report.paid_twice),
    }
