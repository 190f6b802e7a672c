"""Everything that can be made to go wrong: the menu, and the rules that say when.

A rule names a fault and whom it meets. What a fault does is written where it happens: rows in `*_rows.py`, batches in
`anthropic.py`, `openai.py` and `jobs.py`, the transport in `gate.py`.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson
import yaml

ALWAYS = "always"
ROUTES = (
    *("create", "retrieve", "list", "results", "cancel", "delete", "ask"),
    *("upload", "retrieve_file", "list_files", "delete_file", "any"),
)
ANTHROPIC, OPENAI = "anthropic", "openai"
_BOTH = (ANTHROPIC, OPENAI)


class FaultFileError(ValueError):
    """A set of faults that cannot be read: what was found, what was expected."""


class Scope(StrEnum):
    """What a fault meets: one request, one batch, or one HTTP call."""

    ROW = "row"
    BATCH = "batch"
    TRANSPORT = "transport"


@dataclass(frozen=True, slots=True)
class Fault:
    """One entry of the menu. `route`: the calls that a transport fault meets unless its rule names another."""

    name: str
    scope: Scope
    says: str
    providers: tuple[str, ...] = _BOTH
    route: str = ""


_MENU = (
    Fault("overloaded", Scope.ROW, "The row errs: the model was overloaded."),
    Fault("api_error", Scope.ROW, "The row errs: internal error of the provider."),
    Fault("rate_limit", Scope.ROW, "The row errs: rate limit."),
    Fault("timeout", Scope.ROW, "The row errs: it took too long."),
    Fault("invalid", Scope.ROW, "The row errs: the request is said to be invalid."),
    Fault("billing", Scope.ROW, "The row errs: no money left."),
    Fault("expired", Scope.ROW, "The row was not reached within 24 hours."),
    Fault("canceled", Scope.ROW, "The row was canceled."),
    Fault("refusal", Scope.ROW, "The model refuses; billed."),
    Fault("content_filter", Scope.ROW, "The answer is cut by a content filter; billed.", (OPENAI,)),
    Fault("context_window", Scope.ROW, "The answer ends where the context window does; billed.", (ANTHROPIC,)),
    Fault("truncated", Scope.ROW, "The answer is cut at max_tokens, in the middle of its JSON; billed."),
    Fault("invalid_json", Scope.ROW, "The answer looks finished but is no JSON; billed."),
    Fault("schema_violation", Scope.ROW, "The answer is JSON that breaks the schema; billed."),
    Fault("empty_content", Scope.ROW, "The answer has no text at all; billed."),
    Fault("thinking_first", Scope.ROW, "A block of thinking stands before the answer."),
    Fault("u2028", Scope.ROW, "The answer holds U+2028 and U+0085, raw: one line that careless readers cut in two."),
    Fault("huge_answer", Scope.ROW, "The answer is `mb` (50) megabytes of text that is no JSON; billed."),
    Fault("deep_answer", Scope.ROW, "The answer is 10,000 brackets, one in the other; billed."),
    Fault("missing_row", Scope.ROW, "Counted as done, but in no file; not billed."),
    Fault("duplicate_row", Scope.ROW, "The row's line comes twice."),
    Fault("duplicate_conflict", Scope.ROW, "A second line for the row, after the first, says something else."),
    Fault("stray_row", Scope.ROW, "After the row's line comes one for a custom_id that nobody sent."),
    Fault("garbage_line", Scope.ROW, "After the row's line comes one that is no JSON."),
    Fault(
        "status_zero",
        Scope.ROW,
        "The row carries status_code 0 and no body, though counted as done; not billed.",
        (OPENAI,),
    ),
    Fault("token_limit_exceeded", Scope.BATCH, "Fails after create: too many enqueued tokens.", (OPENAI,)),
    Fault("file_not_found", Scope.BATCH, "Fails after create: the input file is said not to be there.", (OPENAI,)),
    Fault("line_errors", Scope.BATCH, "Fails after create: lines of the file are said to be wrong.", (OPENAI,)),
    Fault("only_error_file", Scope.BATCH, "Completes with all rows failed and no output file.", (OPENAI,)),
    Fault("all_errored", Scope.BATCH, "Ends with every row errored (type: api_error unless `error` names one)."),
    Fault("empty_error_file_id", Scope.BATCH, "On a clean batch, error_file_id is an empty string.", (OPENAI,)),
    Fault("expired_partial", Scope.BATCH, "Expires with `share` (0.5) of its rows answered."),
    Fault("slow_cancelling", Scope.BATCH, "Stays cancelling for `for_s` (600) seconds."),
    Fault("stalled_finalizing", Scope.BATCH, "Stays finalizing for `for_s` (600) seconds.", (OPENAI,)),
    Fault("stalled", Scope.BATCH, "Stays in progress for `for_s` (600) seconds more."),
    Fault("counts_disagree", Scope.BATCH, "At its end the counts say `by` (1) more answered rows than there are."),
    Fault("vanished", Scope.BATCH, "Answers 404 and is not listed, from its end on; what it did is billed."),
    Fault("expired_file", Scope.BATCH, "The files that the batch names are gone at its end; billed.", (OPENAI,)),
    Fault("results_gone", Scope.BATCH, "The results are archived: results_url is null; billed.", (ANTHROPIC,)),
    Fault("dropped_before_store", Scope.TRANSPORT, "The connection closes before anything was stored.", route="create"),
    Fault("dropped_after_store", Scope.TRANSPORT, "The connection closes after the batch was stored.", route="create"),
    Fault("error_500_after_store", Scope.TRANSPORT, "HTTP 500 after the batch was stored.", route="create"),
    Fault("http_400", Scope.TRANSPORT, "HTTP 400, nothing stored; `says` is the message.", route="create"),
    Fault("http_401", Scope.TRANSPORT, "HTTP 401: the key is not valid.", route="create"),
    Fault("http_402", Scope.TRANSPORT, "HTTP 402: billing.", (ANTHROPIC,), route="create"),
    Fault("http_403", Scope.TRANSPORT, "HTTP 403: no permission.", route="create"),
    Fault("http_429", Scope.TRANSPORT, "HTTP 429; `retry_after_s` adds the header.", route="create"),
    Fault("spend_limit", Scope.TRANSPORT, "HTTP 429 that must not be retried: the money is spent.", route="create"),
    Fault("http_500", Scope.TRANSPORT, "HTTP 500, nothing stored.", route="create"),
    Fault("http_503", Scope.TRANSPORT, "HTTP 503, nothing stored.", route="create"),
    Fault("http_504", Scope.TRANSPORT, "HTTP 504, nothing stored.", route="create"),
    Fault("http_529", Scope.TRANSPORT, "HTTP 529: overloaded.", (ANTHROPIC,), route="create"),
    Fault("html_413", Scope.TRANSPORT, "HTTP 413 as a gateway's HTML page.", route="create"),
    Fault(
        "html_200", Scope.TRANSPORT, "HTTP 200 that is a gateway's HTML page, after the call was done.", route="create"
    ),
    Fault("slow", Scope.TRANSPORT, "The reply comes `delay_s` (2) real seconds late.", route="create"),
    Fault("retrieve_404_at_first", Scope.TRANSPORT, "404 for batches younger than `for_s` (60).", route="retrieve"),
    Fault("retrieve_404_blip", Scope.TRANSPORT, "404 now and then.", route="retrieve"),
    Fault("retrieve_5xx", Scope.TRANSPORT, "HTTP `status` (500).", route="retrieve"),
    Fault("foreign_results_url", Scope.TRANSPORT, "results_url is on another host.", (ANTHROPIC,), route="retrieve"),
    Fault("list_lag", Scope.TRANSPORT, "Lists leave out batches younger than `for_s` (60).", route="list"),
    Fault("results_404_after_ended", Scope.TRANSPORT, "404 although the batch has ended.", route="results"),
    Fault("cut_mid_line", Scope.TRANSPORT, "The download breaks off in the middle of a line.", route="results"),
    Fault("silent_short_read", Scope.TRANSPORT, "The download is whole HTTP, but lines are missing.", route="results"),
    Fault("shuffled", Scope.TRANSPORT, "The lines are in another order at every download.", route="results"),
)
MENU: Mapping[str, Fault] = {fault.name: fault for fault in _MENU}

_FIELDS: dict[str, tuple[type, ...]] = {
    "fault": (str,),
    "provider": (str,),
    "custom_id": (str,),
    "match": (str,),
    "times": (int,),
    "rate": (int, float),
    "seed": (int,),
    "attempts": (int, str),
    "after_s": (int, float),
    "until_s": (int, float),
    "route": (str,),
    "error": (str,),
    "says": (str,),
    "retry_after_s": (int, float),
    "delay_s": (int, float),
    "for_s": (int, float),
    "share": (int, float),
    "status": (int,),
    "by": (int,),
    "mb": (int, float),
}


@dataclass(frozen=True, slots=True)
class Rule:
    """One fault and when it fires. Without any condition it fires always."""

    key: str
    fault: Fault
    provider: str | None = None
    custom_id: str | None = None
    match: bytes | None = None
    times: int | None = None
    rate: float | None = None
    seed: int = 0
    attempts: int | None = None  # how often a rate fault meets the same content; None: always
    after_s: float = 0.0
    until_s: float = float("inf")
    route: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def chosen(self, content: bytes) -> bool:
        """Whether the rate picks this content: always the same for the same seed."""
        if self.rate is None:
            return True
        digest = blake2b(b"%d/%b/" % (self.seed, self.fault.name.encode()) + content, digest_size=8).digest()
        return int.from_bytes(digest, "big") < self.rate * 2**64


@dataclass(frozen=True, slots=True)
class Hit:
    """A fault that fires, with what its rule says about how."""

    fault: str
    options: Mapping[str, Any]

    def number(self, name: str, default: float) -> float:
        """An option that is a number."""
        return float(self.options.get(name, default))


Fired = dict[tuple[str, bytes], int]


class Faults:
    """The rules in force, and how often each has fired. Thread-safe.

    `injected` counts by fault how often any rule has fired, whatever was in force since; only a reset empties it.
    """

    def __init__(self, rules: Iterable[Rule] = (), *, set_at: float = 0.0, fired: Fired | None = None) -> None:
        self._lock = threading.Lock()
        self.injected: Counter[str] = Counter()
        self.replace(rules, set_at=set_at, fired=fired)

    def replace(self, rules: Iterable[Rule], *, set_at: float, fired: Fired | None = None) -> None:
        """Put other rules in force; what fired before is forgotten."""
        with self._lock:
            by_scope: dict[tuple[Scope, str], list[Rule]] = {}
            for rule in rules:
                for provider in (rule.provider,) if rule.provider else rule.fault.providers:
                    by_scope.setdefault((rule.fault.scope, provider), []).append(rule)
            self._rules = by_scope
            self._set_at = set_at
            self._fired: Fired = dict(fired or {})
            self._fresh: set[tuple[str, bytes]] = set()

    def any_rows(self, provider: str) -> bool:
        """Whether a row has to be asked about at all."""
        return (Scope.ROW, provider) in self._rules

    def row(self, provider: str, *, custom_id: str, line: bytes, digest: bytes, now: float) -> Hit | None:
        """The fault of this row, if any: the first rule that fires."""
        for rule in self._rules.get((Scope.ROW, provider), ()):
            if _names(rule, custom_id, line) and self._fires(rule, digest, now):
                return Hit(rule.fault.name, rule.options)
        return None

    def batch(self, provider: str, *, sequence: int, body: bytes | memoryview | Any, now: float) -> list[Hit]:
        """All faults of a batch, decided when it is created. `body`: anything with `find`."""
        return [
            Hit(rule.fault.name, dict(rule.options))
            for rule in self._rules.get((Scope.BATCH, provider), ())
            if _holds(rule, body) and self._fires(rule, b"%d" % sequence, now)
        ]

    def call(self, provider: str, *, route: str, sequence: int, path: bytes, now: float) -> list[Hit]:
        """The faults of one HTTP call."""
        return [
            Hit(rule.fault.name, rule.options)
            for rule in self._rules.get((Scope.TRANSPORT, provider), ())
            if rule.route in (route, "any")
            and (rule.match is None or rule.match in path)
            and self._fires(rule, b"%d" % sequence, now)
        ]

    def fresh(self) -> list[tuple[str, bytes, int]]:
        """What fired since this was last asked, to be written down: (rule, content, times)."""
        with self._lock:
            fresh, self._fresh = self._fresh, set()
            return [
                (key, content, self._fired[key, content]) for key, content in fresh if (key, content) in self._fired
            ]

    def _fires(self, rule: Rule, content: bytes, now: float) -> bool:
        if not rule.after_s <= now - self._set_at < rule.until_s or not rule.chosen(content):
            return False
        with self._lock:
            if rule.times is not None and not self._counted(rule, b"", rule.times):
                return False
            per_content = rule.rate is not None and rule.attempts is not None
            if per_content and not self._counted(rule, content, rule.attempts or 0):
                return False
            self.injected[rule.fault.name] += 1
            return True

    def _counted(self, rule: Rule, content: bytes, bound: int) -> bool:
        so_far = self._fired.get((rule.key, content), 0)
        if so_far >= bound:
            return False
        self._fired[rule.key, content] = so_far + 1
        self._fresh.add((rule.key, content))
        return True


def _names(rule: Rule, custom_id: str, line: bytes) -> bool:
    if rule.custom_id is not None and rule.custom_id != custom_id:
        return False
    return rule.match is None or rule.match in line


def _holds(rule: Rule, body: Any) -> bool:
    if rule.custom_id is not None and body.find(b'"%b"' % rule.custom_id.encode()) < 0:
        return False
    return rule.match is None or body.find(rule.match) >= 0


def read_rules(path: Path) -> list[Rule]:
    """The rules of a YAML or JSON file. FaultFileError says what is wrong with it."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise FaultFileError(f"{path}: cannot be read as YAML or JSON ({error})") from None
    try:
        return parse_rules(found)
    except FaultFileError as error:
        raise FaultFileError(f"{path}: {error}") from None


def parse_rules(found: Any) -> list[Rule]:
    """Rules from `[{"fault": …}, …]` or `{"faults": […]}`; nothing at all is no rules."""
    if isinstance(found, dict) and set(found) == {"faults"}:
        found = found["faults"]
    if found is None:
        return []
    if not isinstance(found, list):
        raise FaultFileError(f"found {_short(found)}; expected a list of faults, or {{faults: [...]}}")
    return [_rule(number, entry) for number, entry in enumerate(found)]


def _rule(number: int, entry: Any) -> Rule:
    where = f"fault {number + 1}"
    if isinstance(entry, str):
        entry = {"fault": entry}
    if not isinstance(entry, dict) or "fault" not in entry:
        raise FaultFileError(f"{where}: found {_short(entry)}; expected a mapping with the key `fault`")
    _check_fields(where, entry)
    fault = MENU.get(entry["fault"])
    if fault is None:
        raise FaultFileError(f"{where}: no fault is called {entry['fault']!r}; there are {', '.join(MENU)}")
    _check_values(where, entry, fault)
    known = {
        name: entry[name] for name in ("provider", "custom_id", "times", "seed", "after_s", "until_s") if name in entry
    }
    match = entry.get("match")
    return Rule(
        key=f"{number}:{fault.name}",
        fault=fault,
        match=match.encode() if match is not None else None,
        rate=float(entry["rate"]) if "rate" in entry else None,
        attempts=None if entry.get("attempts", 1) == ALWAYS else int(entry.get("attempts", 1)),
        route=entry.get("route", fault.route),
        options={name: entry[name] for name in _OPTIONS if name in entry},
        **known,
    )


_OPTIONS = ("error", "says", "retry_after_s", "delay_s", "for_s", "share", "status", "by", "mb")


def _check_fields(where: str, entry: Mapping[str, Any]) -> None:
    for name, value in entry.items():
        types = _FIELDS.get(name)
        if types is None:
            raise FaultFileError(f"{where}: found the key {name!r}; expected one of {', '.join(_FIELDS)}")
        if not isinstance(value, types) or isinstance(value, bool):
            expected = " or ".join(one.__name__ for one in types)
            raise FaultFileError(f"{where}: {name} is {_short(value)}; expected {expected}")


def _check_values(where: str, entry: Mapping[str, Any], fault: Fault) -> None:
    if not 0 <= entry.get("rate", 0) <= 1:
        raise FaultFileError(f"{where}: rate is {entry['rate']}; expected 0 to 1")
    if isinstance(entry.get("attempts"), str) and entry["attempts"] != ALWAYS:
        raise FaultFileError(f"{where}: attempts is {entry['attempts']!r}; expected a number or {ALWAYS!r}")
    if entry.get("provider", fault.providers[0]) not in fault.providers:
        expected = " or ".join(fault.providers)
        raise FaultFileError(f"{where}: {fault.name} with provider {entry['provider']!r}; expected {expected}")
    if "route" in entry and fault.scope is not Scope.TRANSPORT:
        raise FaultFileError(f"{where}: {fault.name} meets a {fault.scope}; only faults of the transport have a route")
    if entry.get("route", "any") not in ROUTES:
        raise FaultFileError(f"{where}: route is {entry['route']!r}; expected one of {', '.join(ROUTES)}")
    if "custom_id" in entry and fault.scope is Scope.TRANSPORT:
        raise FaultFileError(f"{where}: {fault.name} meets a call, which has no custom_id; use `match` on its path")


def _short(value: Any) -> str:
    try:
        shown = orjson.dumps(value, default=str).decode()
    except orjson.JSONEncodeError:
        shown = str(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
