import csv
import io

import numpy as np
import pytest

from bbb.studies import table

RESULTS = [
    ({"beta_type": beta, "seed": seed}, {"test_error": error, "seconds": 10.0 * seed})
    for seed, pair in enumerate([(1.5, 2.0), (1.7, 2.5), (1.2, 2.2)], 1)
    for beta, error in zip(("blundell", "none"), pair, strict=True)
]


def test_rows_are_means_and_standard_errors_over_seeds():
    rows = table.summarise(RESULTS)
    assert [row.setting for row in rows] == [{"beta_type": "blundell"}, {"beta_type": "none"}]
    assert [row.num_seeds for row in rows] == [3, 3]
    for row in rows:
        errors = np.array(
            [result["test_error"] for setting, result in RESULTS if row.setting.items() <= setting.items()]
        )
        mean, error = row.measures["test_error"]
        assert mean == pytest.approx(errors.mean())
        assert error == pytest.approx(errors.std(ddof=1) / np.sqrt(3))


def test_one_seed_has_no_standard_error():
    (row,) = table.summarise(RESULTS[:1])
    assert row.measures["test_error"] == (1.5, None)
    assert "| blundell | 1 | 1.5 | 10 |" in table.markdown([row])


def test_markdown_rounds_to_two_digits_of_the_error():
    lines = table.markdown(table.summarise(RESULTS)).splitlines()
    assert lines[0] == "| beta_type | seeds | test_error | seconds |"
    assert lines[2] == "| blundell | 3 | 1.47 ± 0.15 | 20.0 ± 5.8 |"
    assert [line.count("|") for line in lines] == [5] * 4


def test_csv_keeps_every_digit():
    rows = table.summarise(RESULTS)
    first, second = csv.DictReader(io.StringIO(table.as_csv(rows)))
    assert first["beta_type"] == "blundell"
    assert (float(second["test_error"]), float(second["test_error_se"])) == rows[1].measures["test_error"]
    assert first["seeds"] == "3"


def test_measures_that_not_all_rows_have_leave_a_gap():
    rows = table.summarise([({"prior": "posterior"}, {"a": 1.0, "b": 2.0}), ({"prior": "gaussian"}, {"a": 3.0})])
    assert table.markdown(rows).splitlines()[-1] == "| gaussian | 1 | 3 |  |"
    assert table.as_csv(rows).splitlines()[-1] == "gaussian,1,3.0,,,"
