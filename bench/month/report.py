"""What a month came to as one flat object of numbers and as one table."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

from rich.box import SIMPLE_HEAD
from rich.table import Table

from bench.month.accounts import Accounts
from bench.month.contenders import Month, Night, OfProject
from bench.month.referee import Bill
from bench.month.snapshot import CHANGED_SHARE, COPIES_SHARE
from bench.task import PROVIDERS

Numbers = dict[str, float]

SHARE_MAX = 0.05


def of_bill(name: str, bill: Bill) -> Numbers:
    """A contender's bill: dollars, of them for copies on the same day and for contents of earlier days, requests, those
    that failed and were not billed, tokens.
    """
    return {
        f"{name}_usd": float(bill.usd),
        f"{name}_copies_usd": float(bill.copies_usd),
        f"{name}_again_usd": float(bill.again_usd),
        f"{name}_requests": bill.requests,
        f"{name}_failed_requests": bill.failed,
        f"{name}_input_tokens": bill.input_tokens,
        f"{name}_output_tokens": bill.output_tokens,
        f"{name}_cached_tokens": bill.cached_tokens,
    }


def of_project(project: OfProject) -> Numbers:
    """The bill of this project, how far its ledger is from the referee, and its forecasts' errors as shares.

    `forecast_error` is the median, after the first night, of how far the shards' costs were from what was expected of
    them; `plan_error` of how far the night's were from what was expected before anything was sent.
    """
    return {
        **of_bill("project", project.bill),
        "ledger_usd": project.ledger_usd,
        "referee_difference_usd": abs(project.ledger_usd - float(project.bill.usd)),
        **_errors(project.nights),
    }


def _errors(nights: list[Night]) -> Numbers:
    first, later = nights[0], nights[1:] or nights
    return {
        "first_night_error": first.error,
        "first_night_plan_error": first.plan_error,
        "forecast_error": median(one.error for one in later),
        "forecast_error_max": max(one.error for one in later),
        "plan_error": median(one.plan_error for one in later),
        "plan_error_max": max(one.plan_error for one in later),
    }


def numbers(month: Month, project: OfProject, script: Bill, crash: Bill, peer: Bill | None) -> Numbers:
    """Everything. `project_share` is of the script's bill; `project_share_planned` what it must be by arithmetic when
    every content costs the same; the peer's numbers are left out where there is none.
    """
    found: Numbers = {"documents": month.documents, "days": month.days}
    found |= of_project(project) | of_bill("script", script)
    found |= of_bill("peer", peer) if peer else {}
    found |= {"script_crash_usd": float(crash.usd), "project_share": float(project.bill.usd / script.usd)}
    found |= {"peer_share": float(peer.usd / script.usd)} if peer else {}
    found["project_share_planned"] = (1 - COPIES_SHARE) * (1 + (month.days - 1) * CHANGED_SHARE) / month.days
    return {name: round(value, 9) for name, value in found.items()}


def table(found: Mapping[str, float], peer: str) -> Table:
    """One table: a column a contender."""
    title = f"{found['documents']:,.0f} documents a day, {found['days']:.0f} days: what the provider would charge"
    drawn = Table(title=title, box=SIMPLE_HEAD)
    drawn.add_column()
    names = [name for name in ("project", "script", "peer") if f"{name}_usd" in found]
    for name in names:
        drawn.add_column({"project": "this project", "script": "script", "peer": peer}[name], justify="right")
    for says, key, form in _LINES:
        drawn.add_row(says, *(f"{found[f'{name}_{key}']:{form}}" for name in names))
    shares = {"project": _goal(found["project_share"]), "script": "100 %", "peer": f"{found.get('peer_share', 0):.2%}"}
    drawn.add_row("share of the script", *(shares[name] for name in names))
    drawn.add_section()
    drawn.add_row("dies after create: $ more", "", f"{found['script_crash_usd']:,.4f}")
    drawn.add_row("the ledger says, $", f"{found['ledger_usd']:,.4f}")
    drawn.add_row("  off the referee, $", f"{found['referee_difference_usd']:.9f}")
    for says, name in _ERRORS:
        drawn.add_row(says, f"{found[name]:.2%}")
    return drawn


def of_accounts(found: Mapping[str, Accounts]) -> Numbers:
    """The sums by protocol and how far they are apart."""
    numbers: Numbers = {}
    for provider, one in found.items():
        numbers |= {
            f"{provider}_requests": one.bill.requests,
            f"{provider}_failed_requests": one.bill.failed,
            f"{provider}_long_requests": one.long_requests,
            f"{provider}_waves": one.waves,
            f"{provider}_cached_tokens": one.bill.cached_tokens,
            f"{provider}_referee_usd": float(one.bill.usd),
            f"{provider}_ledger_usd": one.ledger_usd,
            f"{provider}_tables_usd": one.tables_usd,
            f"{provider}_difference_usd": abs(one.ledger_usd - float(one.bill.usd)),
            f"{provider}_tables_difference_usd": abs(one.tables_usd - float(one.bill.usd)),
        }
    numbers["difference_usd"] = sum(numbers[f"{provider}_difference_usd"] for provider in found)
    return {name: round(value, 9) for name, value in numbers.items()}


def accounts_table(found: Mapping[str, float]) -> Table:
    """A column a protocol."""
    drawn = Table(title="the provider's rows against the ledger", box=SIMPLE_HEAD)
    drawn.add_column()
    for provider in PROVIDERS:
        drawn.add_column(provider, justify="right")
    for says, name, form in _SUMS:
        drawn.add_row(says, *(f"{found[f'{provider}_{name}']:{form}}" for provider in PROVIDERS))
    return drawn


def notes(found: Mapping[str, float]) -> list[str]:
    """What is to be known of the numbers."""
    return [
        "Each row that the emulator billed is priced by itself with genai-prices, as a batch.",
        f"{CHANGED_SHARE:.0%} of the contents change a day and {COPIES_SHARE:.0%} of the documents are copies: a month"
        f" of answers paid once is {found['project_share_planned']:.2%} of asking all each day.",
        "The script's death is not in its bill. In this project's month a connection drops after create: it is.",
        "A shard is off its forecast by the rows that fail, a night is not: they are billed when they are sent again.",
        "Rows that fail are not billed: to send them again costs requests, not dollars.",
    ]


_LINES = (
    ("dollars", "usd", ",.4f"),
    ("  copies on the same day", "copies_usd", ",.4f"),
    ("  contents of earlier days", "again_usd", ",.4f"),
    ("requests", "requests", ",.0f"),
    ("  failed and sent again", "failed_requests", ",.0f"),
    ("tokens in", "input_tokens", ",.0f"),
    ("tokens out", "output_tokens", ",.0f"),
)
_SUMS = (
    ("requests", "requests", ",.0f"),
    ("  failed, not billed", "failed_requests", ",.0f"),
    ("  in the tier of long prompts", "long_requests", ",.0f"),
    ("waves", "waves", ".0f"),
    ("tokens of the prompt cache", "cached_tokens", ",.0f"),
    ("the referee, $", "referee_usd", ",.9f"),
    ("the ledger, $", "ledger_usd", ",.9f"),
    ("  off the referee", "difference_usd", ",.9f"),
    ("the tables, $", "tables_usd", ",.9f"),
    ("  off the referee", "tables_difference_usd", ",.9f"),
)
_ERRORS = (
    ("shards off forecast: first night", "first_night_error"),
    ("  later nights, median", "forecast_error"),
    ("  later nights, most", "forecast_error_max"),
    ("nights off forecast: first night", "first_night_plan_error"),
    ("  later nights, median", "plan_error"),
    ("  later nights, most", "plan_error_max"),
)


def _goal(share: float) -> str:
    colour = "green" if share <= SHARE_MAX else "yellow"
    return f"≤ {SHARE_MAX:.0%}: [{colour}]{share:.2%}[/{colour}]"
