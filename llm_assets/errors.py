"""Every failure that a user of llm_assets can meet, as one tree.

    LLMAssetsError
    ├── DeclarationError          an enrichment, a prompt or a schema is wrong; found when definitions load
    ├── DocumentsError            a source cannot be read as documents; found before anything is spent
    ├── StoreError                a table or file is not where, or not what, it should be
    ├── LedgerError               the ledger refuses a change
    │   ├── IllegalTransition     a shard cannot go from this state to that one
    │   └── PlanConflict          another run planned the same partition in the meantime
    └── ProviderError             a provider did not do what was asked
        ├── TransientError        nothing was accepted; the same call may work later
        ├── CapacityError         nothing was accepted: a queue or rate limit is reached; later, no attempt counted
        ├── SystemicError         key, billing, permission, model: nothing more is sent until somebody acts
        ├── RequestRejected       the provider refuses this very call for good
        ├── OutcomeUnknown        the call may or may not have been accepted; never answered by sending again
        ├── NotThere              a batch or file does not exist (yet, or any more)
        └── DownloadIncomplete    results ended before they were complete; fetch again from the start

A message says what was found, what was expected and what to do. It never holds a document's text, a prompt
or a key: messages reach logs, tags and the UI.

What happens to a single *request* that failed is not an exception: it is a row with a `Reason`
(see `records.py`), and `retries.py` holds the table that decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from llm_assets.positions import place_of


class LLMAssetsError(Exception):
    """The root of everything that this project raises on purpose."""


class DeclarationError(LLMAssetsError):
    """What somebody declared cannot work; `source` names the file or object that says so.

    Of a YAML file the message tells the line and the key, too, as far as the problem names it.
    """

    def __init__(self, source: str, problem: str, *, is_list: bool = False) -> None:
        place = None if is_list else place_of(source, problem)
        at = "" if place is None else f":{place.line} ({place.key})"
        super().__init__(f"{source}{at}: {problem}")
        self.source = source
        self.problem = problem

    @classmethod
    def raise_for(cls, source: str, problems: Iterable[str]) -> None:
        """Raise one error that lists all problems; nothing when there are none."""
        found = list(problems)
        if len(found) == 1:
            raise cls(source, found[0])
        if found:
            listed = "".join(f"\n  - {_placed(source, problem)}" for problem in found)
            raise cls(source, f"{len(found)} problems{listed}", is_list=True)


def _placed(source: str, problem: str) -> str:
    place = place_of(source, problem)
    return problem if place is None else f"line {place.line} ({place.key}): {problem}"


class DocumentsError(LLMAssetsError):
    """A source cannot be read as documents."""


class StoreError(LLMAssetsError):
    """A table or file of the store is missing or unreadable."""


class LedgerError(LLMAssetsError):
    """The ledger refuses a change."""


class IllegalTransition(LedgerError):
    """A shard is not in the state that this change starts from."""


class PlanConflict(LedgerError):
    """Another run planned the same partition between our reading and our writing."""


class ProviderError(LLMAssetsError):
    """A provider did not do what was asked. `code` is the provider's own name for it."""

    def __init__(self, message: str, *, code: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after_s = retry_after_s


class TransientError(ProviderError):
    """Nothing was accepted; the same call may work later."""


class CapacityError(ProviderError):
    """Nothing was accepted because a limit of queue or rate is reached; later, without counting an attempt."""


class SystemicError(ProviderError):
    """Key, billing, spend limit, permission or model: every further call would fail the same way."""


class RequestRejected(ProviderError):
    """The provider refuses this very call, and would refuse it again."""


class OutcomeUnknown(ProviderError):
    """The call may or may not have been accepted: ask the provider what it has, do not call again."""


class NotThere(ProviderError):
    """The provider does not know this batch or file: not yet, or not any more."""


class DownloadIncomplete(ProviderError):
    """Results ended before they were complete."""


def meant_or_all(name: str, there: Sequence[str]) -> str:
    """What somebody may have meant who wrote a name that is not there, or all that there are."""
    near = get_close_matches(name, there, n=1)
    return f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(there) or 'none'}"


def is_ours(class_name: str) -> bool:
    """Whether an error of this class is one of these: its message may be shown to anybody."""
    found = globals().get(class_name)
    return isinstance(found, type) and issubclass(found, LLMAssetsError)
