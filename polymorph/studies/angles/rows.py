"""By which angles does the fitted orthogonal map turn? All eigenvalue angles, for each pair and site."""

from collections.abc import Iterator, Mapping, Sequence

from polymorph.alignment.collect import SiteMoments
from polymorph.alignment.fit import orthogonal
from polymorph.alignment.rotation import eigenvalue_angles
from polymorph.errors import RunError
from polymorph.evidence.evidence import Evidence
from polymorph.evidence.pairs import PairLabel
from polymorph.evidence.rows import Row
from polymorph.studies.ladder.rows import check_site


def angle_rows(
    moments: Mapping[str, SiteMoments], pairs: Sequence[PairLabel], cohort: str, *, fit_documents: int
) -> list[Row]:
    """One row per angle, in radians, ascending in the extra column `index` from 0 to d − 1.

    Each pair is given in one direction: the map back has the same angles, because those of a real matrix come
    in pairs ±θ. Angles of weights that the data do not determine are those of the fit, not of the members.
    """
    return [row for site, at in moments.items() for row in _site_rows(site, at, pairs, cohort, fit_documents)]


def _site_rows(
    site: str, moments: SiteMoments, pairs: Sequence[PairLabel], cohort: str, documents: int
) -> Iterator[Row]:
    check_site(site, moments, pairs)
    whole = moments.fit.total()
    try:
        angles = eigenvalue_angles(orthogonal(whole).weight)
    except ValueError as error:
        raise RunError(f"angles at {site}: {error}") from error
    for label, tokens, values in zip(pairs, whole.n.long().tolist(), angles.tolist(), strict=True):
        for index, value in enumerate(values):
            yield Row(
                cohort=cohort,
                study="angles",
                **label.columns(),
                site=site,
                map="orthogonal",
                metric="eigenvalue_angle",
                split="fit",
                value=value,
                n_documents=documents,
                n_tokens=tokens,
                extra={"index": index},
            )


def study_rows(evidence: Evidence) -> Iterator[Row]:
    """The angles of the pairs of one comparison."""
    fit = evidence.source.documents["fit"]
    for site in evidence.sites:
        moments = {site: evidence.at(site)}
        yield from angle_rows(moments, evidence.pairs, evidence.cohort, fit_documents=fit)
