"""What is written for what is heard: how probable each item of a vocabulary is for a unit, such as a syllable.

A decoder that hears units before it writes characters is right about sound more often than about script, and its text
part has read less than a lexicon can count. So an item w counts by its own probability and by that of its units:

    score(w) = (1 - T) log p(w) + T log(sum_s p(s) P(w | s)^S + LEAST)

Both are the decoder's, P is counted in texts. Items without a reading, such as letters, keep log p(w).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property

import numpy as np
from jaxtyping import Float32

from paraformer.native import layout

BY_UNITS = 0.8
"""T: how far an item counts by its units. Tuned on development speech, as the next (docs/embedded-model.md)."""
FLATTENED = 0.35
"""S: how much less than proportionally, since a language model that knows the words before comes after this."""
LEAST = 1e-7
"""The probability of an item none of whose units was heard."""
ARRAYS = {"reading_item": np.uint16, "reading_unit": np.uint16, "reading_share": np.float16}
"""What a file keeps of one, by item."""


class Lexicon:
    """Readings: items with their units, and the share of a unit's occurrences that are this item."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        """arrays: as a file keeps them."""
        self._arrays = {name: arrays[name] for name in ARRAYS}
        self._shares = arrays["reading_share"].astype(np.float32) ** np.float32(FLATTENED)
        self._items, self._begins = np.unique(arrays["reading_item"], return_index=True)
        self.size, self.units = (int(arrays[name].max()) + 1 for name in ("reading_item", "reading_unit"))
        """How many items, and units, there must be at least."""

    def __len__(self) -> int:
        return len(self._shares)

    def __reduce__(self) -> tuple[type[Lexicon], tuple[dict[str, np.ndarray]]]:
        """Pickled as what it was made of: the rest has addresses of this process in it."""
        return Lexicon, (self.arrays,)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What a file keeps."""
        return dict(self._arrays)

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> Lexicon | None:
        """The one that a file keeps, None where it keeps none."""
        return cls(arrays) if arrays.keys() >= ARRAYS.keys() else None

    @cached_property
    def _tables(self) -> dict[str, np.ndarray]:
        """As compiled code reads them."""
        tables = {
            "items": self._items,
            "unit": self._arrays["reading_unit"],
            "begins": np.append(self._begins, len(self)).astype(np.int32),
            "share": self._shares,
        }
        return {name: np.require(table, requirements=["C", "A"]) for name, table in tables.items()}

    @cached_property
    def compiled(self) -> layout.Lexicon:
        """For compiled code, as long as this object lives."""
        addresses = {name: table.ctypes.data for name, table in self._tables.items()}
        return layout.Lexicon(**addresses, count=len(self._items), by_units=BY_UNITS, least=LEAST)

    @staticmethod
    def fits(arrays: Mapping[str, np.ndarray], size: int, units: int) -> bool:
        """Whether these are no readings at all, or some of `size` items in so many units, in order.

        The shares of a unit that is read make it whole.
        """
        names = arrays.keys() & ARRAYS.keys()
        if not names:
            return True
        if names != ARRAYS.keys() or {name: arrays[name].dtype for name in names} != ARRAYS:
            return False
        items, heard, shares = (arrays[name] for name in ARRAYS)
        if not (items.ndim == 1 and len(items) > 0 and items.shape == heard.shape == shares.shape):
            return False
        if not (int(items.max()) < size and int(heard.max()) < units and ((shares >= 0) & (shares <= 1)).all()):
            return False
        keys = items.astype(np.int64) * units + heard
        whole = np.bincount(heard, shares.astype(np.float64))[np.unique(heard)]
        return bool((np.diff(keys) > 0).all() and np.allclose(whole, 1, atol=0.01))

    @classmethod
    def count(cls, readings: Iterable[tuple[int, int]], size: int, units: int) -> Lexicon | None:
        """Of items below `size` and the units they were read as, a pair for each occurrence; None where there is none.

        Unit 0 is no reading: it is the blank of a CTC layer.
        """
        keys = np.fromiter((item * units + unit for item, unit in readings), np.int64)
        found, counts = np.unique(keys[keys % units > 0], return_counts=True)
        if not len(found):
            return None
        items, heard = np.divmod(found, units)
        assert int(items[-1]) < size
        shares = counts / np.bincount(heard, counts, minlength=units)[heard]
        arrays = (items.astype(np.uint16), heard.astype(np.uint16), shares.astype(np.float16))
        return cls(dict(zip(ARRAYS, arrays, strict=True)))

    def moved(self, places: np.ndarray) -> Lexicon:
        """The same over another vocabulary, in which item i stands at places[i], in the same order."""
        items = places[self._arrays["reading_item"]].astype(np.uint16)
        return Lexicon(self._arrays | {"reading_item": items})

    def scores(
        self, scores: Float32[np.ndarray, "tokens vocab"], units: Float32[np.ndarray, "tokens units"]
    ) -> Float32[np.ndarray, "tokens vocab"]:
        """Scores of items by their own and by those of their units, each before or after softmax."""
        heard = np.exp(log_softmax(units))[:, self._arrays["reading_unit"]] * self._shares
        spoken = np.add.reduceat(heard, self._begins, axis=1)
        found = log_softmax(scores)
        by_units = np.log(spoken + np.float32(LEAST))
        found[:, self._items] = (1 - BY_UNITS) * found[:, self._items] + BY_UNITS * by_units
        return found


def log_softmax(scores: Float32[np.ndarray, "tokens items"]) -> Float32[np.ndarray, "tokens items"]:
    """Logarithms of the probabilities that scores stand for, of each token."""
    shifted = scores - scores.max(-1, keepdims=True, initial=-np.inf)
    found: np.ndarray = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return found.astype(np.float32, copy=False)
