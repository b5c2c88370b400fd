"""The findings of an analysis as a page shows them."""

from polymorph.pipeline.analysis import Analysis, Findings
from polymorph.pipeline.study_cache import file_of
from polymorph.report.data import ReportData


def report_of(analysis: Analysis, found: Findings) -> ReportData:
    """Everything that the page of an analysis shows."""
    facts, tables = analysis.source.facts(), found.tables
    return ReportData(
        cohort=analysis.source.name,
        task=facts.task,
        architecture=facts.architecture,
        members=facts.members,
        headline=facts.headline,
        notes=facts.notes,
        left_out=found.left_out,
        history=facts.history,
        provenance={
            **analysis.provenance,
            **facts.provenance,
            "table files": ", ".join(file_of(name) for name in analysis.studies if name in tables),
        },
        tables=tables,
        claims=found.claims,
    )
