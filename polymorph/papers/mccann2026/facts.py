"""What a cohort, a preset and the code are set to, by dotted names: the numbers that no study measures."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from omegaconf import OmegaConf

from polymorph.components.attribution import PAPER_POINTS
from polymorph.models.dyck_transformer.model import analytic_positions
from polymorph.presets import CONF
from polymorph.steering.contrasts import paper_contrasts
from polymorph.steering.options import DOSES
from polymorph.store import Cohort, CorruptError
from polymorph.studies.bars.claims import BOUNDS
from polymorph.studies.weights import search as weights
from polymorph.tasks.dyck import task as dyck
from polymorph.tasks.registry import spelled_out

PRESETS = ("sae/paper_x8", "sae/paper_x32")
TRAJECTORY = "cohort/pythia70m_trajectory"
DEPTH, STICKY, _ = paper_contrasts()
CODE: Mapping[str, Any] = MappingProxyType(
    {
        "code.dyck.families": dyck.FAMILIES,
        "code.dyck.pad": dyck.PAD,
        "code.dyck.bos": dyck.BOS,
        "code.dyck.eos": dyck.EOS,
        "code.dyck.first_bracket": dyck.FIRST_BRACKET,
        "code.dyck.last_bracket": dyck.FIRST_BRACKET + 2 * dyck.FAMILIES - 1,
        "code.dyck.brackets": 2 * dyck.FAMILIES,
        "code.dyck.used_tokens": dyck.FIRST_BRACKET + 2 * dyck.FAMILIES,
        "code.dyck.open_probability": dyck.OPEN_PROBABILITY,
        "code.dyck.prefix_probability": dyck.PREFIX_PROBABILITY,
        "code.dyck.position_axes": int(analytic_positions(64, 64).any(0).sum()),
        "code.weights.restarts": weights.RESTARTS,
        "code.components.paper_points": PAPER_POINTS,
        "code.steering.doses": list(DOSES),
        "code.steering.sticky_depth": STICKY.positive["depth"][0],
        "code.steering.depth_high": DEPTH.positive["depth"][0],
        "code.steering.depth_low": DEPTH.negative["depth"][0],
        "code.bars.count": len(BOUNDS),
        **{f"code.bars.{bar}": bound.value for bar, bound in BOUNDS.items()},
    }
)


def facts_of(cohort: Cohort) -> dict[str, Any]:
    """Every setting by its name; what is not recorded is not there.

    `task.…`, `architecture.…` and `probe.…` are the cohort's identity, `member.…` the config of its last member,
    `cohort.…` who its members are, `preset.<file>.…` this installation's presets, `code.…` constants.
    """
    found = dict(CODE)
    for part, own in spelled_out(cohort.identity).items():
        _flatten(part, own, found)
    for preset in PRESETS:
        _flatten(f"preset.{preset}", preset_of(preset), found)
    listed = preset_of(TRAJECTORY)["models"][0]["revisions"]
    return found | {f"preset.{TRAJECTORY}.revisions": len(listed)} | _members(cohort)


def preset_of(name: str) -> Any:
    """A preset of `conf` as plain data, nothing resolved."""
    text = (CONF / f"{name}.yaml").read_text(encoding="utf-8")
    return OmegaConf.to_container(OmegaConf.create(text), resolve=False)


def _members(cohort: Cohort) -> dict[str, Any]:
    members = [member for member in cohort.members() if member.steps()]
    found: dict[str, Any] = {
        "cohort.seeds": [member.seed for member in members],
        "cohort.first_seed": members[0].seed if members else None,
        "cohort.last_step": max((member.steps()[-1] for member in members), default=0),
    }
    try:
        configs = [member.config() for member in members if member.has_config()]
        _flatten("member", configs[-1] if configs else {}, found)
        repositories = [config["repository"] for config in configs if "repository" in config]
        found |= {"cohort.models": repositories} if repositories else {}
        if members and (last := members[-1].read_step(members[-1].steps()[-1])).reference is None:
            found["cohort.parameters"] = sum(value.numel() for value in last.weights.values())
    except CorruptError:  # what cannot be read is not recorded
        pass
    return found


def _flatten(prefix: str, value: Any, into: dict[str, Any]) -> None:
    if isinstance(value, Mapping):
        for key, own in value.items():
            _flatten(f"{prefix}.{key}", own, into)
    else:
        into[prefix] = value
