"""What a user asks of steering: contrasts, doses and a site; checked before anything is computed."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from polymorph.checks import nearest
from polymorph.errors import RequestError
from polymorph.models.functions import Functions
from polymorph.steering.contrasts import Contrast, LabelContrast, PromptContrast, contrast_of, plain
from polymorph.steering.documents import FEWEST
from polymorph.steering.effects import (
    MOST_DOCUMENTS,
    MOST_TOKENS,
    Aim,
    documents_concerned,
    first_documents,
)
from polymorph.steering.options import DOSES, SteeringOptions
from polymorph.steering.vectors import check_labels, check_prompts


@dataclass(frozen=True)
class Steering:
    """A request: contrasts beside those that are built in."""

    contrasts: tuple[Contrast, ...] = ()
    doses: tuple[float, ...] = DOSES
    site: str | None = None
    brief: bool = False
    """Whether a few maps, documents and random directions, and no systematic directions, are enough: what one
    checkpoint of many is worth."""

    @classmethod
    def of(cls, contrasts: Any, options: SteeringOptions | None = None) -> "Steering":
        """From plain data; `RequestError` for what cannot be right of any cohort."""
        options = options or SteeringOptions()
        asked = [] if contrasts is None else contrasts
        if not isinstance(asked, list | tuple):
            raise RequestError(
                f"contrasts={asked!r}: a list of contrasts such as [{{name:…, positive:…, …}}]"
            )
        found = tuple(contrast_of(one) for one in asked)
        names = [one.name for one in found]
        if twice := [name for name in names if names.count(name) > 1]:
            raise RequestError(f"contrasts: two have the name {twice[0]!r}")
        return cls(found, _doses(options.doses), options.site)

    def identity(self) -> dict[str, Any]:
        """What makes two requests the same; of prompts, their digest."""
        content = json.dumps([plain(one) for one in self.contrasts], sort_keys=True, default=list)
        digest = hashlib.sha256(content.encode()).hexdigest()
        brief = {"brief": True} if self.brief else {}
        return {"contrasts": digest, "doses": list(self.doses), "site": self.site, **brief}

    @property
    def tested(self) -> float:
        """The dose at which the outcome is called by its name: the one nearest 1, by its logarithm."""
        return min(self.doses, key=lambda dose: abs(math.log(dose)))

    def place(self, sites: Sequence[str]) -> str:
        """Where members of these sites are steered; `RequestError` for one that they do not have."""
        if self.site is not None:
            if self.site not in sites:
                raise RequestError(
                    f"steering.site={self.site!r}{nearest(self.site, sites)}: one of {', '.join(sites)}"
                )
            return self.site
        return PAPER_SITE if PAPER_SITE in sites else sites[len(sites) // 2]

    def check(self, functions: Functions) -> None:
        """`RequestError` for what members with these sites on this task cannot be asked; their models are not run."""
        self.place(functions.sites)
        labels = [one for one in self.contrasts if isinstance(one, LabelContrast)]
        some = first_documents(functions, MOST_DOCUMENTS, MOST_TOKENS) if self.contrasts else functions
        if labels:
            check_labels(labels, functions.inputs("fit"))
        for label in labels:
            _check_documents(label.name, documents_concerned(some, Aim.of(label)))
        for one in self.contrasts:
            if isinstance(one, PromptContrast):
                check_prompts(one, functions.task)
                _check_documents(one.name, some.probe.eval)


PAPER_SITE = "blocks.1.hook_resid_mid"


def _check_documents(name: str, documents: int) -> None:
    if documents < FEWEST:
        raise RequestError(
            f"contrast {name}: {documents} eval documents have a position that it concerns, and it needs "
            f"at least {FEWEST}"
        )


def _doses(given: Sequence[float]) -> tuple[float, ...]:
    for dose in given:
        if (
            isinstance(dose, bool)
            or not isinstance(dose, int | float)
            or not math.isfinite(dose)
            or dose <= 0
        ):
            raise RequestError(
                f"steering.doses={list(given)}: {dose} is not a finite number above 0; a contrast's sign says "
                "the direction"
            )
    if not given or len(set(given)) != len(given):
        raise RequestError(f"steering.doses={list(given)}: at least one dose, each once")
    return tuple(sorted(float(dose) for dose in given))
