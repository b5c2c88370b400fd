"""A study of one's own: one folder, `studies/first_direction`, and no other file.

The question there: does R carry the direction in which a member varies most to that of the other? Here it is asked of
two planted cohorts, one that is rotated copies and one whose members have nothing in common but their spectrum.

    python examples/your_own_study.py

Every command takes it in, with its table, its section of the page and its keys in --help:

    POLYMORPH_STUDIES=examples/studies python analyze.py cohort=planted:rotated study=[first_direction,ladder]
"""

from pathlib import Path

from polymorph.evidence.evidence import planted_evidence
from polymorph.evidence.planted import Planted
from polymorph.evidence.planted_config import PlantedConfig
from polymorph.studies.registry import STUDIES, add_studies
from polymorph.studies.tables import study_tables

NAME = "first_direction"


def main() -> None:
    add_studies(Path(__file__).parent / "studies")
    for kind in ("rotated", "unrelated"):
        planted = Planted(kind, PlantedConfig(d=16, members=3, rank=16, documents=256))
        tables, refused = study_tables(planted_evidence(planted), [NAME])
        assert not refused
        for role in ("estimate", "control"):
            row = tables[NAME].filter(role=role).row(0, named=True)
            print(f"{kind}, {role}: |cos| {row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]")
        answer = STUDIES[NAME].answer(tables)
        assert answer is not None
        print(f"{kind}: {answer.text}")


if __name__ == "__main__":
    main()
