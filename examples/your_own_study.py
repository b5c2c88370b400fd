"""A study of one's own: one function from evidence to rows, and one line in the registry.

The question here: does R carry the direction in which a member varies most to that of the other? It is asked of two
planted cohorts, one that is rotated copies and one whose members have nothing in common but their spectrum. In the
package the function would be a file of `polymorph/studies`, and the line stand in `registry.py`: then `analyze.py
study=[first_direction]` asks it of any cohort, writes its table, and a figure and an answer may be added beside it.

    python examples/your_own_study.py
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from polymorph import FITS
from polymorph.alignment.jackknife import jackknife_interval
from polymorph.alignment.support import filled
from polymorph.evidence.evidence import Evidence, planted_evidence
from polymorph.evidence.planted import Planted
from polymorph.evidence.planted_config import PlantedConfig
from polymorph.evidence.rows import Row
from polymorph.studies.registry import STUDIES, Study, study_tables

STUDY = "first_direction"


def first_direction_rows(evidence: Evidence) -> Iterator[Row]:
    """|cos| [pairs] of the source's first principal direction, carried by R, with the target's; R of the fit split."""
    for site in evidence.sites:
        moments = evidence.at(site)
        for role, fit in (("estimate", moments.fit), ("control", moments.fit_tokens_permuted)):
            R = FITS["orthogonal"](fit.total()).weight
            blocks = filled(moments.eval)
            whole, rest = moments.eval.total(), blocks.leave_one_out()
            value = cosine(R, whole.xx, whole.yy)
            bounds = jackknife_interval(value, cosine(R, rest.xx, rest.yy))
            about = {"map": "orthogonal", "role": role}
            yield from evidence.pair_rows(STUDY, site, "eval", "cosine", value, bounds, **about)


def cosine(R: Tensor, xx: Tensor, yy: Tensor) -> Tensor:
    """Of the first principal directions of both sides, the source's turned by R."""
    first, second = (torch.linalg.eigh(covariance).eigenvectors[..., -1] for covariance in (xx, yy))
    return (torch.einsum("...i,...ij->...j", first, R) * second).sum(-1).abs()


def main() -> None:
    STUDIES[STUDY] = Study("Does R carry the first principal direction?", first_direction_rows)
    for kind in ("rotated", "unrelated"):
        planted = Planted(kind, PlantedConfig(d=16, members=3, rank=16, documents=256))
        tables, refused = study_tables(planted_evidence(planted), [STUDY])
        assert not refused
        found = tables[STUDY]
        for role in ("estimate", "control"):
            row = found.filter(role=role).row(0, named=True)
            print(f"{kind}, {role}: |cos| {row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]")


if __name__ == "__main__":
    main()
