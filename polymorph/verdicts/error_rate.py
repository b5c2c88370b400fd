"""How often the verdicts of a site are wrong where the truth is known: counts of planted cohorts."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

RATES = Path(__file__).with_name("error_rates.json")
"""The true verdict → the verdict given → how many cohorts; written by `python -m benchmarks.calibration --write`."""


@dataclass(frozen=True)
class ErrorRate:
    """Of one verdict, over planted cohorts of every kind."""

    wrongly: int
    """Cohorts with another truth that were given it."""
    of_others: int
    missed: int
    """Cohorts of which it is true that were given another."""
    of_its_own: int

    @property
    def sentence(self) -> str:
        """Without a full stop; empty if no planted cohort was judged."""
        if not self.of_others:
            return ""
        false = f"On planted truth given to {self.wrongly} of {self.of_others} cohorts of which it is false"
        own = f", missed in {self.missed} of {self.of_its_own} of which it is true"
        return false + (own if self.of_its_own else "")


def error_rate(verdict: str) -> ErrorRate:
    """Of a verdict; counts of 0 if no planted cohort was ever judged."""
    its_own = _given().get(verdict, {})
    others = [given for truth, given in _given().items() if truth != verdict]
    return ErrorRate(
        wrongly=sum(given.get(verdict, 0) for given in others),
        of_others=sum(sum(given.values()) for given in others),
        missed=sum(its_own.values()) - its_own.get(verdict, 0),
        of_its_own=sum(its_own.values()),
    )


@cache
def _given() -> dict[str, dict[str, int]]:
    rates: dict[str, dict[str, int]] = json.loads(RATES.read_text())
    return rates
