"""How a person finds an asset in the UI, and whom they ask about it: its text, owners and tags."""

import re
from collections.abc import Mapping, Sequence

import dagster as dg

DOCUMENTS_TAG = "llm_assets/documents"
_NOT_IN_TAGS = re.compile(r"[^A-Za-z0-9_.-]")
_TAG_LENGTH_MAX = 63


class About(dg.Model, dg.Resolvable):
    """What a declaration may say of its assets: a text, owners (addresses, or `team:` and a name), tags."""

    description: str | None = None
    owners: Sequence[str] = ()
    tags: Mapping[str, str] = {}

    @property
    def about(self) -> "About":
        """Only that, of a declaration that says more."""
        return About(description=self.description, owners=self.owners, tags=self.tags)

    def text(self, default: str, rest: str) -> str:
        """The description, or one that fits any such asset, and what a stranger needs to know besides."""
        return f"{(self.description or default).strip()}\n\n{rest}"


def documents_tags(name: str, about: About) -> dict[str, str]:
    """What a table of documents is found by."""
    return {**about.tags, DOCUMENTS_TAG: name}


def tag_value(name: str) -> str:
    """A name as a tag can have it: those of fine-tuned models have colons."""
    return _NOT_IN_TAGS.sub("_", name)[:_TAG_LENGTH_MAX]
