"""Which streams were heard when, the longest silent first: who goes when there are too many."""

import itertools
from collections import OrderedDict
from collections.abc import Iterable


class Roster:
    """Names and when they were last heard. Only the silent may go: else somebody who makes names up
    could drive all others out."""

    def __init__(self, *, silent_s: float) -> None:
        self._silent_s = silent_s
        self._heard_s: OrderedDict[str, float] = OrderedDict()  # the longest silent first

    def __len__(self) -> int:
        return len(self._heard_s)

    def hear(self, names: Iterable[str], now_s: float) -> None:
        """Something came of these streams; `now_s` never goes back."""
        for name in names:
            self._heard_s[name] = now_s
            self._heard_s.move_to_end(name)

    def longest_silent(self, count: int, now_s: float) -> list[str]:
        """At most `count` names that were silent for `silent_s` or more, the longest first."""
        first = itertools.islice(self._heard_s.items(), max(0, count))
        return [name for name, heard_s in first if now_s - heard_s >= self._silent_s]

    def forget(self, name: str) -> None:
        del self._heard_s[name]
