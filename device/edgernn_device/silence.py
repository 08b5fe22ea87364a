"""Which streams have fallen silent, and which are to be forgotten. Times are arguments, of a clock
that nobody sets and that stands still while nobody could be heard."""

from collections import OrderedDict


class Hearing:
    """That clock: seconds in which whoever spoke was heard."""

    def __init__(self, now_s: float) -> None:
        """`now_s`, here and below: monotonic."""
        self._seen_s = now_s
        self._could_hear = False
        self._heard_s = 0.0

    def look(self, now_s: float, *, can_hear: bool) -> float:
        """What it shows; to be looked at often, as what lies between two looks counts if both of
        them could hear."""
        if can_hear and self._could_hear:
            self._heard_s += now_s - self._seen_s
        self._seen_s, self._could_hear = now_s, can_hear
        return self._heard_s


class Silence:
    """Streams by when they were last heard: looking costs nothing while all of them speak."""

    def __init__(self, *, stale_after_s: float, forget_after_s: float) -> None:
        """`forget_after_s`: counted from the last sample, too."""
        self._stale_after_s = stale_after_s
        self._forget_after_s = forget_after_s
        self._speaking: OrderedDict[str, float] = OrderedDict()  # oldest first, as the next one
        self._silent: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        """How many are silent."""
        return len(self._silent)

    def __contains__(self, name: object) -> bool:
        """Whether a stream is silent."""
        return name in self._silent

    def longest_silent(self, now_s: float) -> tuple[str, float] | None:
        """The stream that is silent for longest, and for how long; None if all speak."""
        for name, heard_s in self._silent.items():
            return name, now_s - heard_s
        return None

    def hear(self, name: str, now_s: float) -> float:
        """A sample of a stream; for how many seconds it was silent, 0 if it was not."""
        silent_s = now_s - self._silent.pop(name, now_s) if self._silent else 0.0
        self._speaking[name] = now_s
        self._speaking.move_to_end(name)
        return silent_s

    def forget(self, name: str) -> None:
        """A stream that is no more."""
        self._silent.pop(name, None)
        self._speaking.pop(name, None)

    def fall_silent(self, now_s: float) -> list[tuple[str, float]]:
        """Streams that are silent from now on, and for how long they have been, in seconds."""
        found = []
        while self._speaking:
            name, heard_s = next(iter(self._speaking.items()))
            if now_s - heard_s <= self._stale_after_s:
                break
            del self._speaking[name]
            self._silent[name] = heard_s
            found.append((name, now_s - heard_s))
        return found

    def overdue(self, now_s: float) -> list[tuple[str, float]]:
        """Silent streams that are to be forgotten, and for how long they have been silent."""
        found = []
        for name, heard_s in self._silent.items():
            if now_s - heard_s <= self._forget_after_s:
                break
            found.append((name, now_s - heard_s))
        return found
