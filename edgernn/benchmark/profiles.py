"""What a hit, a false alarm and a miss are worth: NAB's three profiles, which SKAB took over."""

import msgspec


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Points; all three are positive, costs are subtracted."""

    name: str
    hit: float
    """At most, for a window found at once (A_TP)."""
    false: float
    """At most, for a detection outside windows (A_FP)."""
    miss: float
    """For a window without a detection (A_FN)."""

    def normalise(self, points: float, *, windows: int) -> float | None:
        """0 = no detection at all, 100 = every window found at once and nothing else; below 0 is
        possible. None where there is no window, so that both are the same."""
        null, perfect = -self.miss * windows, self.hit * windows
        return 100.0 * (points - null) / (perfect - null) if windows else None


STANDARD = Profile(name="standard", hit=1.0, false=0.11, miss=1.0)
LOW_FP = Profile(name="reward low FP rate", hit=1.0, false=0.22, miss=1.0)
LOW_FN = Profile(name="reward low FN rate", hit=1.0, false=0.11, miss=2.0)
PROFILES = (STANDARD, LOW_FP, LOW_FN)
