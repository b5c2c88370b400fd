"""Papers whose claims and figures can be asked of an analysis."""

LEDGERS, FIGURES = ("paper",), ("paper",)
