"""What a user may ask of the study."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from polymorph.checks import nearest
from polymorph.errors import RequestError

if TYPE_CHECKING:
    from polymorph.evidence.evidence import Evidence


@dataclass
class Options:
    """Which components' effects are told."""

    components: Any = "all"
    """For the study `components`: `all`, or a list such as `[L0H1,L1MLP]` of those whose effects are told, and then
    nothing of how members agree."""

    def request(self) -> list[str] | None:
        """Names, each once; None for all."""
        asked = self.components
        if asked == "all":
            return None
        if not isinstance(asked, list | tuple) or not asked or not all(isinstance(n, str) for n in asked):
            raise RequestError(f"components={asked!r}: all, or a list of names such as [L0H1,L1MLP]")
        return list(dict.fromkeys(asked))

    def identity(self) -> Mapping[str, Any]:
        return {"components": self.request()}

    def check(self, evidence: "Evidence") -> None:
        """`RequestError` for a component that the members do not have, with those that they have."""
        from polymorph.components.ablation import (
            component_names,  # torch, which a configuration must not load
        )

        if (asked := self.request()) is None or not evidence.ends:
            return
        there = (
            [] if evidence.functions is None else component_names(evidence.functions(evidence.ends[:1]), 0)
        )
        for name in asked:
            if name not in there:
                raise RequestError(f"components={name}{nearest(name, there)}: one of {', '.join(there)}")
