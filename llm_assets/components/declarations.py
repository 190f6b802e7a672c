"""Where components are declared, so that whatever is wrong is said of the right file, whoever finds it."""

from pathlib import Path
from typing import Annotated, Any, Self

import dagster as dg
from pydantic import BeforeValidator, PrivateAttr


def _no_truth(found: object) -> object:
    if isinstance(found, bool):
        raise ValueError(f"found {str(found).lower()}; write a number")
    return found


# Pydantic takes true for 1.
Dollars = Annotated[float, BeforeValidator(_no_truth)]
Count = Annotated[int, BeforeValidator(_no_truth)]


class InFile(dg.Component, dg.Model):
    """A component that knows the file that declares it."""

    _file: str = PrivateAttr(default="")

    @classmethod
    def load(cls, attributes: Any, context: dg.ComponentLoadContext) -> Self:
        """The component of a declaration."""
        loaded = super().load(attributes, context)
        loaded._file = file_of(context)
        return loaded

    def declared_by(self, source: str) -> str:
        """The file that declares this; `source`, where none does."""
        return self._file or source


def declared_in(context: dg.ComponentLoadContext) -> Path:
    """The folder of a component's declaration, relative to where Dagster runs when that is above it."""
    folder = context.path if context.path.is_dir() else context.path.parent
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def file_of(context: dg.ComponentLoadContext) -> str:
    """The file of a component's declaration, as problems name it."""
    return str(declared_in(context) / "defs.yaml")
