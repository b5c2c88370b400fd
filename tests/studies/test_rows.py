import math

import polars as pl
import pytest

from polymorph.evidence.rows import COLUMNS, Row, read_table, table, write_table

ORDER = (
    "cohort study source target source_step target_step site map role metric convention split "
    "value low high n_documents n_tokens n_seeds"
)


def row(**changes) -> Row:
    about = {"cohort": "c", "study": "s", "role": "estimate", "metric": "r2", "value": 0.5}
    return Row(**(about | changes))


def test_the_columns_are_the_promised_ones():
    assert " ".join(COLUMNS) == ORDER
    assert table([row()]).columns == ORDER.split()


def test_a_table_does_not_depend_on_the_order_of_its_rows():
    rows = [row(source=s, target=t, extra={"index": i}) for s in (2, 0) for t in (1, None) for i in (3, 1)]
    declared = {"index": pl.Int64}
    assert table(rows, declared).equals(table(rows[::-1], declared))
    assert table(rows, declared)["source"].to_list() == [0] * 4 + [2] * 4


def test_rows_and_bytes_come_back(tmp_path):
    rows = [row(source=0, low=0.1, high=0.9, n_seeds=2), row(source=1, extra={"control": "x"})]
    frame = table(rows, {"control": pl.String})
    back = read_table(write_table(frame))
    assert back.equals(frame)
    assert back.schema == frame.schema
    assert [Row.from_dict(values) for values in back.iter_rows(named=True)] == rows


def test_an_empty_table_has_its_types():
    assert dict(table([], {"index": pl.Int64}).schema) == {**COLUMNS, "index": pl.Int64}


@pytest.mark.parametrize("column", ["value", "low", "high"])
@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_number_that_is_not_finite_is_refused(column, number):
    with pytest.raises(ValueError, match="not finite"):
        row(**{column: number})


def test_what_does_not_belong_is_refused():
    with pytest.raises(ValueError, match="role 'floor'"):
        row(role="floor")
    with pytest.raises(ValueError, match="may not repeat"):
        row(extra={"site": "x"})
    with pytest.raises(ValueError, match="undeclared extra columns: alpha"):
        table([row(extra={"alpha": 1.0})])
    with pytest.raises(ValueError, match="one key"):
        table([row(value=0.1), row(value=0.2)])
    with pytest.raises(ValueError, match="not a study table"):
        write_table(pl.DataFrame({"value": [1.0]}))
