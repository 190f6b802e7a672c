"""The command line, `llm-assets`: a partition without a daemon, where everything is, the emulator, the demo.

Commands only: they read options, call, and print. Tables and progress go through rich; with `--json` standard output
holds one JSON document and nothing else. Exit codes: 0 done, 1 it did not work, 2 it was not asked rightly.
"""

from __future__ import annotations

import getpass
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from msgspec import structs
from rich.console import Console
from rich.live import Live
from rich.text import Text

from llm_assets import console
from llm_assets.corpus import slice_file
from llm_assets.demo import HOST, KINDS, POLL_SECONDS, ROOT, Demo, KindName, Options, Report
from llm_assets.erasure import Erasure, erase, find
from llm_assets.errors import LLMAssetsError
from llm_assets.overview import overview
from llm_assets.platform import Platform, Settings
from llm_assets.preview import ask_some, count_some, outlook
from llm_assets.prices import in_dollars
from llm_assets.providers import caveat
from llm_assets.reconciliation import Decision, decide, open_claims, other_accounts
from llm_assets.reconciliation import take_over as do_take_over
from llm_assets.records import Mode
from llm_assets.status import (
    Outcome,
    PartitionStatus,
    asked_lately,
    failures,
    outcome,
    overall,
    spending_table,
    statuses,
    together,
    tokens_so_far,
)

app = typer.Typer(
    help="Tables of documents in, tables of answers out, through batch APIs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
_PIPE_COLUMNS = 120
_RESUMABLE = "stopped; nothing is lost, the same command goes on where this one was"
_FAILED, _MISUSED, _INTERRUPTED = 1, 2, 130


class Model(StrEnum):
    """What answers in the emulator."""

    SCRIPTED = "scripted"
    SMOLLM2 = "smollm2"


@app.command()
def run(
    name: Annotated[str, typer.Argument(help="The enrichment.", show_default=False)],
    partition: Annotated[str, typer.Option(help="The partition, such as 2026-11-01.", show_default=False)],
    as_json: AsJson = False,
    poll_seconds: Annotated[float, typer.Option(min=0.1, help="The pause between two looks at the provider.")] = 10,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Ask once more for what failed after all its attempts.")
    ] = False,
) -> None:
    """Do one partition to the end, in this process and without a daemon.

    It may be stopped and started again at any time: nothing is lost and nothing is sent twice.
    """
    started = time.monotonic()
    done = _run(name, partition, poll_seconds, retry_failed)
    seconds = time.monotonic() - started
    if as_json:
        _print_json({"enrichment": name, "partition": partition} | _outcome_json(done) | {"seconds": round(seconds, 1)})
        return
    out = _console()
    out.print(console.titled(f"{name} {partition}", console.facts_table(_outcome_facts(done, seconds))))
    if done.failures:
        out.print(console.titled("Failures by reason", console.reasons_table(done.failures)))
    out.print()
    for path in done.tables:
        out.print(path, soft_wrap=True, highlight=False, markup=False)


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(help="Only this enrichment.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Show where every partition is, from the ledger; no provider is asked."""
    with _errors_exit(_FAILED), _looking() as platform:
        found = statuses(platform) if platform else []
        known = sorted({each.enrichment for each in found})
        _check_known(name, known)
        found = [each for each in found if name in (None, each.enrichment)]
        others = other_accounts(platform) if platform else []
        asked = asked_lately(platform.ledger.active_shards()) if platform else []
        now = platform.clock() if platform else datetime.now(UTC)
        progress = overall(platform, name, found) if platform and name and found else None
    if as_json:
        accounts = [{"provider": each.provider, "batches": len(each.shards)} for each in others]
        _print_json(
            {
                "partitions": [asdict(each) for each in found],
                "totals": _totals(found),
                "other_accounts": accounts,
                "asked": [asdict(each) for each in asked],
                **({"progress": asdict(progress)} if progress else {}),
            }
        )
        return
    out = _console()
    if not found:
        out.print(f"Nothing was sent yet{f' for {name}' if name else ''}.", markup=False)
        return
    out.print(console.status_table(found, out.width))
    if progress:
        out.print(console.overall_line(str(name), progress))
    wrong = (*console.held_lines(found), *console.empty_lines(found), *console.other_account_lines(others))
    for line in (*wrong, *console.caveat_lines(found), *console.asked_lines(asked, now)):
        out.print(line)


@app.command()
def failed(
    name: Annotated[str, typer.Argument(help="The enrichment.", show_default=False)],
    partition: Annotated[str | None, typer.Option(help="Only this partition.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many documents to list.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Show which documents failed and why, in the partitions that are published."""
    with _errors_exit(_FAILED), _looking() as platform:
        known = sorted({each.enrichment for each in statuses(platform)}) if platform else []
        _check_known(name, known)
        found = failures(platform, name, partition).to_dicts() if platform else []
    if as_json:
        _print_json({"failed": found})
        return
    out = _console()
    if not found:
        out.print(f"No document of {name}{f' {partition}' if partition else ''} failed.", markup=False)
        return
    reasons = Counter(row["reason"] for row in found)
    out.print(console.titled("Failures by reason", console.reasons_table(dict(reasons.most_common()))))
    out.print(console.titled("Documents", console.failures_table(found[:limit])))
    if len(found) > limit:
        out.print(f"… and {len(found) - limit:,} more (--limit, --json)", style="dim")


@app.command()
def preview(
    name: Annotated[str, typer.Argument(help="The enrichment.", show_default=False)],
    partition: Annotated[
        str | None, typer.Option(help="The partition, such as 2026-11-01; all, if not said.", show_default=False)
    ] = None,
    count: Annotated[int, typer.Option("-n", "--count", min=0, help="Of a partition: how many to ask about.")] = 5,
    count_tokens: Annotated[
        bool, typer.Option("--count-tokens", help="Let the provider count the tokens of some requests, for free.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Ask about a few documents in real time, and show what all of them would cost. Nothing is sent as a batch.

    What is asked here is paid at the standard price, and its answers are shown and not kept. Without a partition
    nothing is asked: what all partitions would cost that are not finished is added up.
    """
    if partition is None:
        _preview_all(name, as_json)
        return
    err = _console(stderr=True)
    with _errors_exit(_MISUSED), err.status("Loading definitions"):
        from llm_assets.foreground import Foreground, find_target, open_instance  # loads Dagster: two seconds

        target = find_target(name, partition)
    _warn(target.provider)
    with _platform() as platform, _errors_exit(_FAILED):
        with open_instance() as instance:
            Foreground(target, platform, instance, poll_seconds=1, on_problem=_complain).read_documents()
        answers = ask_some(platform, target.declared, partition, count) if count else []
        counted = count_some(platform, target.declared, partition) if count_tokens else []
        ahead = outlook(platform, target.declared, partition, answers, counted)
    if as_json:
        _print_json(
            {
                "outlook": asdict(ahead),
                "answers": [asdict(each) | {"usage": structs.asdict(each.usage)} for each in answers],
            }
        )
        return
    out = _console()
    if answers:
        out.print(console.titled(f"{name} {partition}: asked now", console.preview_table(answers)))
    how = _how(target.declared.mode)
    out.print(console.titled(f"All of it, {how}", console.facts_table(console.outlook_facts(ahead))))


def _preview_all(name: str, as_json: bool) -> None:
    err = _console(stderr=True)
    with _errors_exit(_MISUSED), err.status("Loading definitions"):
        from llm_assets.foreground import find_target, open_instance  # loads Dagster: two seconds

        target = find_target(name)
    _warn(target.provider)
    with _platform() as platform, _errors_exit(_FAILED), open_instance() as instance, err.status("Reading") as busy:
        partitions = target.all_partitions(platform, instance)
        ahead = overview(
            platform, target.declared, partitions, target.source, lambda each: busy.update(f"Reading {each}")
        )
    if as_json:
        _print_json({"overview": asdict(ahead)})
        return
    out = _console()
    title = f"{name}: what is left of all partitions, {_how(target.declared.mode)}"
    out.print(console.titled(title, console.overview_table(ahead)))
    out.print()
    out.print(console.facts_table(console.overview_facts(ahead)))


def _how(mode: Mode) -> str:
    return "in real time" if mode is Mode.REALTIME else "as batches"


def _warn(provider: str) -> None:
    """Say what is to be known of a provider."""
    if known := caveat(provider):
        err = _console(stderr=True)
        err.print(f"llm-assets: {provider} is {known}", style="yellow", soft_wrap=True, highlight=False, markup=False)


@app.command()
def cost(
    since: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="From this day on (UTC).")] = None,
    until: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Up to and with this day.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what was spent, by enrichment and model, from the ledger: on results that came in within the days."""
    start = since and since.replace(tzinfo=UTC)
    # After the last day that there is comes none.
    end = None if until is None or until.date() == date.max else until.replace(tzinfo=UTC) + timedelta(days=1)
    with _errors_exit(_FAILED), _looking() as platform:
        rows = spending_table(platform, since=start, until=end).to_dicts() if platform else []
    if as_json:
        _print_json({"spending": rows})
    elif rows:
        _console().print(console.spending_table(rows))
    else:
        _console().print("Nothing was spent.", markup=False)


@app.command()
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
        _complain(
            "name a shard and one of --adopt, --resend and --abandon, or --take-over alone, or nothing at all to see "
            "what is open"
        )
        raise typer.Exit(_MISUSED)
    operator = _operator()
    others, claims = [], []
    with _errors_exit(_FAILED), _looking() as platform:
        if platform:
            if shard:
                decide(platform, shard, words[0], batch_id=adopt, operator=operator)
            others = do_take_over(platform, operator) if take_over else other_accounts(platform)
            claims = open_claims(platform)
    if as_json:
        _print_json(
            {"claims": [asdict(claim) for claim in claims], "other_accounts": [asdict(each) for each in others]}
        )
        return
    out = _console()
    for line in console.other_account_lines(others):
        out.print(line)
    if claims:
        out.print(console.claims_table(claims))
    else:
        out.print("No claim is open: the provider has, or has not, all that the ledger says.", markup=False)


@app.command()
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
    wanted = {*(ids or []), *(ids_file.read_text(encoding="utf-8").splitlines() if ids_file else [])} - {""}
    if not wanted:
        _complain("name the documents by their ids, or a file with an id a line (--ids-file)")
        raise typer.Exit(_MISUSED)
    with _errors_exit(_MISUSED), _console(stderr=True).status("Loading definitions"):
        from llm_assets.foreground import declared_lineage  # loads Dagster: two seconds

        lineage = declared_lineage()
        if documents and documents not in lineage.documents:
            _complain(f"no documents are called {documents!r}; there are: {', '.join(sorted(lineage.documents))}")
            raise typer.Exit(_MISUSED)
    found = Erasure()
    with _errors_exit(_FAILED), _looking() as platform:
        if platform and yes:
            found = erase(platform, wanted, lineage, documents, operator=_operator())
        elif platform:
            found = find(platform, wanted, lineage, documents)
    if as_json:
        _print_json({"erased": yes, **_erasure_json(found)})
        return
    out = _console()
    if found.is_empty:
        out.print("No table and no file holds anything of these documents.", markup=False)
        return
    out.print(console.titled("Erased" if yes else "To be erased", console.erasure_table(found)))
    for line in console.erasure_lines(found, done=yes):
        out.print(line)


@app.command()
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


@app.command("slice")
def slice_(
    source: Annotated[Path, typer.Argument(help="A CSV, JSON Lines or Parquet file.", exists=True, dir_okay=False)],
    folder: Annotated[Path, typer.Argument(help="Where the slices go: the folder of `path`.", file_okay=False)],
    rows: Annotated[int, typer.Option(min=1, help="How many rows a slice has.")] = 100_000,
) -> None:
    """Cut a large file into slices, each a partition of documents that are `partitioned_by: file`."""
    out = _console()
    with _errors_exit(_MISUSED), out.status("Slicing") as busy:
        written = []
        for path in slice_file(source, folder, rows):
            busy.update(f"Slicing: {path.name}")
            written.append(path)
    out.print(f"{len(written):,} slices of up to {rows:,} rows in {folder}", highlight=False, soft_wrap=True)


@app.command()
def accept(
    name: Annotated[str, typer.Argument(help="The evaluation's name.")],
) -> None:
    """Make an evaluation's latest comparison the one that later ones are held against."""
    with _errors_exit(_MISUSED), _platform() as platform:
        from llm_assets.components.evaluation import accept as do_accept  # loads Dagster: two seconds

        rows = do_accept(platform, name)
    _console().print(f"{name}: {rows:,} answers are accepted; `no_worse` compares with them from now on.")


@app.command()
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
    out = _console(stderr=as_json)
    options = Options((folder or ROOT / ".demo").absolute(), port, model and model.value, keep=stay, kind=KINDS[kind])
    with _errors_exit(_FAILED):
        out.print("Starting the emulator and Dagster …", style="dim")
        with Demo(options, say=lambda line: out.print(line, style="yellow", highlight=False, soft_wrap=True)) as shown:
            _watch(shown, out)
            report, seconds = shown.report(), time.monotonic() - started
            if as_json:
                _print_json(_report_json(shown, report, seconds))
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


def _run(name: str, partition: str, poll_seconds: float, retry_failed: bool) -> Outcome:
    """A partition to its end, under a progress bar on standard error."""
    err = _console(stderr=True)
    with _errors_exit(_MISUSED), err.status("Loading definitions"):
        from llm_assets.foreground import Foreground, find_target, open_instance  # loads Dagster: two seconds

        target = find_target(name, partition)
    _warn(target.provider)
    with _platform() as platform:
        with _errors_exit(_MISUSED):
            platform.client(target.provider, None)  # raises when there is no key
        with _errors_exit(_FAILED, stopped=_RESUMABLE), open_instance() as instance, console.progress_bar(err) as bar:
            task = bar.add_task(f"{name} {partition}", **console.progress_fields())
            work = Foreground(target, platform, instance, poll_seconds, _complain, retry_failed)
            for each in work.complete():
                bar.update(task, **console.progress_fields(each, tokens_so_far(platform, name, partition)))
            return outcome(platform.store, work.plan())


def _check_known(name: str | None, known: list[str]) -> None:
    if name and known and name not in known:
        _complain(f"nothing was ever sent for {name!r}; there are: {', '.join(known)}")
        raise typer.Exit(_MISUSED)


@contextmanager
def _looking() -> Iterator[Platform | None]:
    """The platform for a command that only looks, None where there is nothing to see; it makes nothing."""
    settings = Settings.from_environment()
    if not settings.in_use:
        err = _console(stderr=True)
        err.print(
            f"Nothing was sent yet from {settings.root}. If there should be something, go to the folder that holds "
            ".llm_assets, or set LLM_ASSETS_ROOT.",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )
        yield None
        return
    with _platform() as platform:
        yield platform


@contextmanager
def _platform() -> Iterator[Platform]:
    platform = Platform.open(Settings.from_environment())
    try:
        yield platform
    finally:
        platform.close()


@contextmanager
def _errors_exit(code: int, stopped: str = "stopped") -> Iterator[None]:
    """What this project raises on purpose becomes one line on standard error and this exit code.

    `stopped` is said after Ctrl-C.
    """
    try:
        yield
    except KeyboardInterrupt:
        _complain(stopped)
        raise typer.Exit(_INTERRUPTED) from None
    except Exception as error:
        ours = _ours(error)
        if ours is None:
            raise
        _complain(str(ours))
        raise typer.Exit(code) from None


def _ours(error: BaseException | None) -> LLMAssetsError | None:
    """The error of this project that Dagster may have wrapped in its own."""
    while error is not None and not isinstance(error, LLMAssetsError):
        error = error.__cause__ or error.__context__
    return error


def _console(*, stderr: bool = False) -> Console:
    """A console; where it is no terminal, with room for the tables."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else _PIPE_COLUMNS)


def _complain(message: str) -> None:
    err = _console(stderr=True)
    err.print(f"llm-assets: {message}", style="red", soft_wrap=True, highlight=False, markup=False)


def _print_json(document: object) -> None:
    sys.stdout.buffer.write(orjson.dumps(document, default=str, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    sys.stdout.buffer.flush()  # what goes on afterwards may take hours


def _operator() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}"


def _erasure_json(found: Erasure) -> dict[str, Any]:
    return {
        "rows": [{"of": name, "held": holds, "rows": count} for (holds, name), count in sorted(found.rows.items())],
        "files": [{"of": name, "held": holds, "files": count} for (holds, name), count in sorted(found.files.items())],
        "in_flight": [asdict(each) for each in found.in_flight],
        "batches_at_providers": dict(found.at_providers),
    }


def _outcome_json(done: Outcome) -> dict[str, Any]:
    return asdict(done)


def _outcome_facts(done: Outcome, seconds: float) -> dict[str, str]:
    return {
        "documents": console.number(done.documents),
        "enriched": console.number(done.enriched),
        "failed": console.number(done.failed),
        "waves": console.number(done.waves),
        "tokens in": console.number(done.input_tokens),
        "tokens out": console.number(done.output_tokens),
        "cost": in_dollars(done.cost_usd),
        "wall time": console.duration(seconds),
    }


def _totals(found: list[PartitionStatus]) -> dict[str, int]:
    counted = ("documents", "requests", "requests_done", "batches_in_flight", "requests_in_flight", "requests_finished")
    return {
        "partitions": len(found),
        "published": sum(each.published_at is not None for each in found),
        "held": sum(bool(each.held) for each in found),
        **{name: sum(getattr(each, name) for each in found) for name in (*counted, "requests_due")},
    }


def _report_json(shown: Demo, report: Report, seconds: float) -> dict[str, Any]:
    return {
        "answers_from": f"the emulator ({shown.model})",
        "ui": shown.url,
        "seconds": round(seconds, 1),
        "enrichments": {
            name: _outcome_json(done) | {"accuracy": report.accuracies.get(name)}
            for name, done in report.outcomes.items()
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
