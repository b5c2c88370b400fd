"""`analyze.py dashboard=write|push`: the workspace of a cohort, from what the cohort holds."""

import json
from pathlib import Path
from typing import Any

from polymorph.cli.config import AnalyzeConfig
from polymorph.errors import RequestError
from polymorph.models.registry import architecture_of
from polymorph.saes.stored import StoredDictionaries
from polymorph.steering.request import Steering
from polymorph.store import Cohort
from polymorph.store.search import find_cohort
from polymorph.tracking.workspace import NAME, Shown, as_json, push, workspace


def run(config: AnalyzeConfig) -> None:
    """Write the workspace into the cohort's folder, and push it where that is asked for."""
    cohort = find_cohort(config.cohort, config.root)
    made = workspace(shown(cohort), config.logger)
    path = cohort.folder / NAME
    before = _pushed(path)
    if config.dashboard == "push":
        before = push(made, config.logger, before)
        print(f"pushed: {before['url']}")
    path.write_text(json.dumps({**as_json(made), "pushed": before}, indent=1) + "\n", encoding="utf-8")
    print(f"workspace: {path}")
    if config.dashboard == "write":
        print(f"next, with an account: wandb sync {cohort.folder}/wandb/offline-run-*")
        print(f"                       python analyze.py cohort={cohort.folder} dashboard=push")


def shown(cohort: Cohort) -> Shown:
    """What there is to draw: sites of the architecture, what was evaluated, and the families of SAEs."""
    sites = list(architecture_of(cohort).sites)
    evaluated = {
        tuple(key.split("/"))
        for member in cohort.members()
        for row in member.rows()
        if row.get("kind") == "evaluation"
        for key in row
        if "/accuracy/" in key
    }
    parts = [parts for parts in evaluated if len(parts) == 4]
    return Shown(
        cohort=cohort.name,
        sites=sites,
        heads=sorted({head for _, _, _, head in parts}),
        distributions=sorted({distribution for _, distribution, _, _ in parts}),
        saes=StoredDictionaries(cohort, lenient=True).families(),
        steered=Steering().place(sites),
    )


def _pushed(path: Path) -> dict[str, Any]:
    """Where it went before, so that pushing again changes that view and makes no second one."""
    if not path.is_file():
        return {}
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")).get("pushed", {})
    except (ValueError, AttributeError) as error:
        raise RequestError(f"{path} is not a workspace: {error}; remove it") from error
    return found
