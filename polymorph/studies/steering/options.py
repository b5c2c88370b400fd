"""What a user may ask of the study."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from polymorph.steering.options import SteeringOptions

if TYPE_CHECKING:
    from polymorph.evidence.evidence import Evidence
    from polymorph.steering.request import Steering


@dataclass
class Options:
    """Contrasts by which members are steered beside those that are built in, where, and how strongly."""

    contrasts: Any = None
    """For the study `steering`, beside what is built in: a list such as
    `contrasts=[{name:deeper,positive:{depth:3},negative:{depth:2}},{name:mood,prompts:mood.jsonl}]`."""
    steering: SteeringOptions = field(default_factory=SteeringOptions)

    def request(self) -> "Steering":
        from polymorph.steering.request import Steering  # torch, which a configuration must not load

        return Steering.of(self.contrasts, self.steering)

    def identity(self) -> Mapping[str, Any]:
        return self.request().identity()

    def check(self, evidence: "Evidence") -> None:
        request = self.request()
        if evidence.functions is not None:
            request.check(evidence.functions([]))
