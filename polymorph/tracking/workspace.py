"""The W&B workspace of a cohort as code: training, rotation, Haar, transfer, function; a panel a site.

Built and written without an account; pushing it needs one. Every line is drawn by its exact name.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import wandb
import wandb_workspaces.reports.v2 as panels
import wandb_workspaces.workspaces as ws

from polymorph.alignment.families import rungs
from polymorph.steering.regimes import REGIMES
from polymorph.tracking.config import LoggerConfig
from polymorph.tracking.runs import AXIS
from polymorph.verdicts.words import WORDS

NAME = "workspace.json"
CONTROLS = ("orthogonal_documents_permuted", "orthogonal_covariance_only")
CODES = ", ".join(f"{entry.code} {entry.word}" for entry in WORDS.values())


@dataclass(frozen=True)
class Shown:
    """What there is to draw of a cohort."""

    cohort: str
    sites: Sequence[str]
    heads: Sequence[str] = ()
    distributions: Sequence[str] = ()
    saes: Sequence[str] = ()
    """Families."""
    steered: str | None = None
    """The site at which members are steered."""


def workspace(shown: Shown, logger: LoggerConfig) -> ws.Workspace:
    """Of the cohort's runs alone; without an account its entity is empty, and is filled in when it is pushed."""
    return ws.Workspace(
        entity=logger.entity or "",
        project=logger.project,
        name=f"polymorph {shown.cohort}",
        sections=[
            ws.Section(name=name, panels=list(drawn), is_open=True) for name, drawn in _sections(shown)
        ],
        settings=ws.WorkspaceSettings(x_axis=AXIS, max_runs=100),
        runset_settings=ws.RunsetSettings(filters=[ws.Metric("Group") == shown.cohort]),
    )


def _sections(shown: Shown) -> list[tuple[str, Iterator[Any]]]:
    sites = shown.sites
    return [
        ("Training", _training(shown)),
        ("Rotation: R² of every family of maps", (_line(f"R² at {site}", _r2(site)) for site in sites)),
        ("Haar: ‖R − I‖ beside its law", (_line(f"‖R − I‖ at {site}", _frobenius(site)) for site in sites)),
        ("Verdict", _verdict(sites)),
        ("Transfer of SAEs: explained variance", _transfer(shown)),
        ("Function: regimes of steering", _steering(shown)),
    ]


def _line(title: str, y: Sequence[str]) -> Any:
    return panels.LinePlot(title=title, x=AXIS, y=list(y), title_x="training step")


def _training(shown: Shown) -> Iterator[Any]:
    yield _line("training loss", ["train/loss"])
    yield _line("gradient norm and learning rate", ["train/grad_norm", "train/lr"])
    yield _line("steps a second", ["train/steps_per_second"])
    for head in shown.heads:
        names = [f"eval/{distribution}/accuracy/{head}" for distribution in shown.distributions]
        yield _line(f"held-out accuracy: {head}", names)


def _r2(site: str) -> list[str]:
    lines = (*rungs(), *CONTROLS, "orthogonal_ceiling", "affine_ceiling")
    return [f"compare/{site}/r2/{line}" for line in lines]


def _frobenius(site: str) -> list[str]:
    lines = ("frobenius_from_identity/orthogonal", "frobenius_from_identity/orthogonal_ceiling")
    return [
        f"compare/{site}/{line}"
        for line in (*lines, *(f"frobenius_haar/{p}" for p in ("low", "mean", "high")))
    ]


def _verdict(sites: Sequence[str]) -> Iterator[Any]:
    yield _line(f"verdict ({CODES})", [f"compare/{site}/verdict" for site in sites])
    yield _line(
        "determined dimensions of R", [f"compare/{site}/determined_dimension/orthogonal" for site in sites]
    )
    yield _line("p-value of the pairing test", [f"compare/{site}/pairing_p_value" for site in sites])


def _transfer(shown: Shown) -> Iterator[Any]:
    lines = ("own", "naive", "mapped", "mapped_covariance_only")
    for family in shown.saes:
        for site in shown.sites:
            names = [f"compare/{site}/explained_variance/{family}/{line}" for line in lines]
            yield _line(f"{family} at {site}", names)
        gains = [f"compare/{site}/pairing_gain/{family}/mapped" for site in shown.sites]
        yield _line(f"pairing gain of {family}", gains)


def _steering(shown: Shown) -> Iterator[Any]:
    if (site := shown.steered) is not None:
        for carrier in ("orthogonal", "identity", "orthogonal_tokens_permuted"):
            names = [f"compare/{site}/steering_regime/{carrier}/{regime}" for regime in REGIMES]
            yield _line(f"regimes through {carrier}", names)
        maps = ("orthogonal", "identity", "orthogonal_tokens_permuted")
        yield _line("efficiency of transfer", [f"compare/{site}/steering_efficiency/{name}" for name in maps])


def as_json(made: ws.Workspace) -> dict[str, Any]:
    """What W&B would be sent: entity, project, name and spec."""
    view = made._to_model()  # there is no public way to it that needs no account
    spec = json.loads(view.spec.model_dump_json(by_alias=True, exclude_none=True))
    return {"entity": view.entity, "project": view.project, "displayName": view.display_name, "spec": spec}


def push(made: ws.Workspace, logger: LoggerConfig, pushed: Mapping[str, str]) -> dict[str, str]:
    """Save it in the account, over the view that was pushed before; its name, id and address."""
    made.entity = made.entity or str(wandb.Api().default_entity)
    made._internal_name, made._internal_id = pushed.get("name", ""), pushed.get("id", "")
    made.save()
    return {"name": made._internal_name, "id": made._internal_id, "url": str(made.url)}
