"""`analyze.py port=…`: an SAE of one member, written so that it works on another."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from cohorts import UNWATCHED, memory_folder, snapshot, trained
from ended import Ended, Run
from sae_lens import SAE

from polymorph.alignment.moments import explained_variance
from polymorph.pipeline.comparison import Comparison
from polymorph.saes.stored import StoredDictionaries
from polymorph.store import Cohort

SITE = "blocks.0.hook_resid_post"
SAES = (
    "sae=quick",
    "sae.batch_size=256",
    "sae.steps=40",
    "sae.expansion=4",
    "sae.threads=1",
    f"sae.sites=[{SITE}]",
)


@pytest.fixture(scope="module")
def cohort() -> Iterator[Cohort]:
    with memory_folder() as folder:
        yield trained(folder, "seed=[0,1]", UNWATCHED, "stage=all", *SAES, "probe.fit=64", "probe.eval=64")


def ported(run: Run, cohort: Cohort, **changes: object) -> Ended:
    request = {"source": 0, "target": 1, "site": SITE, "sae": "quick"} | changes
    given = ",".join(f"{key}:{value}" for key, value in request.items() if value is not None)
    own = ("cohort=small", f"root={cohort.folder.parent}", "logger=none", "accelerator=cpu")
    return run("analyze", *own, f"port={{{given}}}")


def folder_of(ended: Ended) -> Path:
    return Path(ended.out.split("ported: ")[1].strip())


@pytest.mark.parametrize(("source", "target"), [(0, 1), (1, 0)])
@pytest.mark.parametrize("name", ["orthogonal", "similarity", "affine"])
def test_the_folder_opens_in_saelens_and_scores_what_was_said(run, cohort, name, source, target):
    ended = ported(run, cohort, map=name, source=source, target=target)
    assert ended.status == 0
    sae = SAE.load_from_disk(folder_of(ended))
    about = sae.cfg.metadata.ported["provenance"]
    assert (about["source"]["seed"], about["target"]["seed"], about["map"]) == (source, target, name)
    assert about["fit"]["tokens"] > about["fit"]["documents"] == 64
    comparison = Comparison.of(cohort, torch.device("cpu"))
    chunks = list(comparison.source([(target, 30)]).chunks("eval"))
    x = torch.cat([chunk.values[SITE][0] for chunk in chunks])
    own = StoredDictionaries(cohort).read(source, 30, SITE, "quick").sae
    with torch.no_grad():
        found = {"mapped": sae(x), "naive": own(x)}
    for key, rebuilt in found.items():
        assert about["explained_variance"][key] == pytest.approx(explained_variance(rebuilt, x), abs=1e-6)
    assert f"{about['explained_variance']['mapped']:.3f} ported with the {name} map" in ended.out
    assert about["explained_variance"]["mapped"] > about["explained_variance"]["naive"]


def test_again_is_benign_and_the_sae_stays_as_it_is(run, cohort):
    before = snapshot(cohort.folder / "members")
    first, again = (folder_of(ported(run, cohort)) for _ in range(2))
    assert first == again
    assert snapshot(cohort.folder / "members") == before
    json.loads((first / "cfg.json").read_text())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"source": 7}, "small has no seed 7"),
        ({"target": 0}, "source and target are both 0"),
        ({"site": "blocks.0.hook_resid_pots"}, "did you mean 'blocks.0.hook_resid_post'"),
        ({"site": "blocks.0.hook_resid_mid"}, "seed 0 has no such SAE"),
        ({"sae": "standard_x8"}, "families: quick"),
        ({"map": "othogonal"}, "did you mean 'orthogonal'"),
        ({"variant": "shard"}, "did you mean 'shared'"),
        ({"variant": "shared"}, "seed 0 has no such SAE"),
        ({"sae": None}, "port: sae is missing"),
        ({"maps": "affine"}, "port.maps: there is no such key (did you mean 'map'?)"),
    ],
)
def test_wrong_requests_end_with_2_and_write_nothing(run, cohort, changes, said):
    before = snapshot(cohort.folder)
    ended = ported(run, cohort, **changes)
    assert ended.status == 2
    assert said in ended.err
    assert snapshot(cohort.folder) == before


def test_what_is_no_request_is_told_how_one_looks(run, cohort):
    ended = run("analyze", "cohort=small", f"root={cohort.folder.parent}", "port=3")
    assert ended.status == 2
    assert "give it as port={source:0,target:1" in ended.err
