"""When a search for a recall ends: by distance instead of by a number of candidates.

A walk of width `ef_search` expands as many candidates for an easy query as for a hard one. A rule
lets it hold more candidates, and end before the first that is `far` times as far as the k-th
nearest: easy queries take less than the width then, hard ones more. `tune` looks for the rule that
reaches a recall with the fewest distances; `docs/measurements/ablations.md` has what that gives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

__all__ = ["MOST_HELD", "StopRule", "least_rule", "rule_of", "with_rule"]

UNIT = 1024  # parts in which the native index counts factors
MOST_HELD = 1000  # more candidates take longer to keep in order
_TIMES = (2, 4)  # candidates held, times the width
_MOST_FAR = 16 * UNIT
_WORTH = 0.9  # a larger share of the distances took as long as the width (measured on minilm-10k)
_WIDTH_BITS, _HELD_BITS = 32, 15


class StopRule(NamedTuple):
    """Candidates that walks hold, and the factor of distance that ends them, in parts of `UNIT`."""

    held: int
    far: int

    def word(self) -> int:
        """Return it as one number, the same in files and behind a width."""
        return self.held | self.far << _HELD_BITS

    @property
    def factor(self) -> float:
        """Return how many times as far as the k-th nearest a candidate is that ends a walk."""
        return self.far / UNIT


def rule_of(word: int) -> StopRule | None:
    """Invert `StopRule.word`; None for 0, ValueError for what no rule has."""
    if word == 0:
        return None
    held, far = word & (1 << _HELD_BITS) - 1, word >> _HELD_BITS
    if not (0 < held <= MOST_HELD and UNIT <= far <= _MOST_FAR):
        raise ValueError(f"no rule has the number {word}")
    return StopRule(held, far)


def with_rule(width: int, rule: StopRule | None) -> int:
    """Return a width as the native search takes it, with a rule if there is one."""
    return width if rule is None else width | rule.word() << _WIDTH_BITS


def least_rule(
    width: int,
    most: int,
    reaches: Callable[[int], bool],
    work: Callable[[int], float],
) -> StopRule | None:
    """Return the rule that takes the fewest distances, None if it takes hardly fewer than `width`.

    Parameters
    ----------
    width : int
        The width that reaches the recall without a rule.
    most : int
        Candidates that may be held.
    reaches : callable
        Tells whether a search with a width and a rule, as `with_rule` joins them, finds enough.
    work : callable
        Returns how many distances such a search takes.
    """
    best, least = None, _WORTH * work(width)
    for times in _TIMES:
        held = min(times * width, most, MOST_HELD)
        if held <= width:
            break
        far = _least_far(width, held, reaches)
        if far is None:
            continue
        rule = StopRule(held, far)
        distances = work(with_rule(width, rule))
        if distances < least:
            best, least = rule, distances
    return best


def _least_far(width: int, held: int, reaches: Callable[[int], bool]) -> int | None:
    """Return the least factor with which enough is found, None if there is none."""

    def enough(beyond: int) -> bool:
        return reaches(with_rule(width, StopRule(held, UNIT + beyond)))

    short, beyond = 0, UNIT // 32
    while True:
        while not enough(beyond):
            short, beyond = beyond, 2 * beyond
            if UNIT + beyond > _MOST_FAR:
                return None
        while beyond - short > max(2, beyond // 32):
            middle = (short + beyond) // 2
            if enough(middle):
                beyond = middle
            else:
                short = middle
        # recall need not rise with every step: see `least_width`
        farther = [beyond + -(-beyond // 10), beyond + -(-beyond // 4)]
        unlucky = [f for f in farther if not enough(f)]
        if not unlucky:
            return UNIT + beyond
        short, beyond = unlucky[-1], 2 * unlucky[-1]
        if UNIT + beyond > _MOST_FAR:
            return None
