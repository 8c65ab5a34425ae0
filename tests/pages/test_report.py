"""The report as a file: it holds every run, is no larger than it may be, and nothing of a run is markup."""

import json
import re

import pytest

from bbb.pages import asset, make_report, report
from bbb.studies import catalogue, named_configs
from tests.made_runs import found, make_run
from tests.tasks import CONFIGS

NAMED = named_configs(CONFIGS)
HTML = "<script>alert(1)</script><img src=x onerror=alert(2)>&amp;"


def elements(page):
    """What the page holds as data, by the id of the element."""
    return {
        name: json.loads(text)
        for name, text in re.findall(r'<script type="application/json" id="([^"]+)">(.*?)</script>', page)
    }


@pytest.fixture
def page_of(tmp_path):
    return lambda: elements(make_report(catalogue(NAMED, tmp_path)))


def test_every_run_has_a_row_and_what_its_own_view_shows(tmp_path, page_of):
    make_run(tmp_path, "a", 1, findings=found(50), seed=3, num_epochs=100)
    (make_run(tmp_path, "b", 1, minute=1) / "run.json").unlink()
    data = page_of()
    rows = {row["run"]: row for row in data["runs"]["runs"]}
    assert {name: row["status"] for name, row in rows.items()} == {"a/1": "completed", "b/1": "damaged"}
    assert rows["a/1"]["changes"] == {"seed": "3"}
    assert {"runs", "run-0", "run-1"} == data.keys()
    shown = data[f"run-{[*rows].index('a/1')}"]
    assert shown["findings"]["classes"] == [*range(10)]
    assert shown["log"].startswith("epoch 1/100")
    assert shown["config"]["seed"] == "3"
    assert shown["left_out"] == []


def test_curves_are_thinned_and_keep_their_ends_and_the_seconds_so_far(tmp_path, page_of):
    make_run(tmp_path, "a", 1, num_epochs=1000)
    curve = page_of()["run-0"]["curves"]["validation.nll"]
    assert len(curve["epoch"]) <= report.MAX_POINTS
    assert curve["epoch"][:20] == [*range(1, 21)]
    assert curve["epoch"][-1] == 1000
    assert curve["seconds"][2] == pytest.approx(2 * (2.5 + 1.75 + 1.5))
    values = json.loads((tmp_path / "a" / "1" / "metrics.json").read_text())["validation.nll"]["values"]
    assert curve["value"] == pytest.approx([values[int(epoch) - 1] for epoch in curve["epoch"]], rel=1e-4)


@pytest.mark.parametrize("num", [1, 79, 80, 81, 100, 101, 12_345])
def test_thinning_keeps_the_order_and_the_last_point_once(num):
    points = [(float(i), 0.0) for i in range(num)]
    kept = report._thinned(points)
    assert kept == sorted({*kept})
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert len(kept) <= report.MAX_POINTS


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"train.nll": 3}', '{"train.nll": {"steps": 1, "values": 2}}']
)
@pytest.mark.parametrize("file", ["metrics.json", "findings.json", "log.txt"])
def test_a_damaged_file_leaves_its_part_out_and_nothing_else(tmp_path, page_of, file, content):
    (make_run(tmp_path, "a", 1, findings=found(50)) / file).write_text(content)
    shown = page_of()["run-0"]
    parts = {"metrics.json": "curves", "findings.json": "findings", "log.txt": "log"}
    if file != "log.txt" and not (file == "findings.json" and content.startswith("{")):
        assert not shown[parts[file]]
    assert all(shown[part] for other, part in parts.items() if other != file)


def test_values_that_are_not_finite_are_no_points(tmp_path, page_of):
    folder = make_run(tmp_path, "a", 1)
    metric = {"steps": [1, 2, 3, None], "values": [1.0, float("nan"), 2.0, 3.0]}
    (folder / "metrics.json").write_text(json.dumps({"train.nll": metric}))
    assert page_of()["run-0"]["curves"]["train.nll"]["value"] == [1.0, 2.0]


def test_the_page_is_no_larger_than_it_may_be_and_the_oldest_runs_give_way(tmp_path, page_of, monkeypatch):
    shown = found(100)
    for i in range(6):
        make_run(tmp_path, "a", i + 1, minute=i, findings=shown, num_epochs=50)
    whole = [len(json.dumps(page_of()[f"run-{i}"])) for i in range(6)]
    monkeypatch.setattr(report, "ROOM", 3.2 * whole[0])
    data = page_of()
    details = [data[f"run-{i}"] for i in range(6)]
    assert sum(len(json.dumps(each)) for each in details) <= report.ROOM
    assert [bool(each["left_out"]) for each in details[:4]] == [False, False, False, True]
    assert details[-1]["findings"] is None
    assert [row["scores"]["test_error"] for row in data["runs"]["runs"]] == [1.5] * 6


def test_a_long_log_keeps_its_beginning_and_its_end(tmp_path, page_of):
    folder = make_run(tmp_path, "a", 1)
    (folder / "log.txt").write_text("".join(f"line {i}\n" for i in range(5000)))
    log = page_of()["run-0"]["log"].splitlines()
    assert (log[0], log[-1]) == ("line 0", "line 4999")
    assert "..." in log
    assert sum(map(len, log)) < report.MAX_LOG


def test_a_run_that_printed_and_has_no_log_shows_what_it_printed(tmp_path, page_of):
    folder = make_run(tmp_path, "a", 1)
    (folder / "log.txt").unlink()
    (folder / "cout.txt").write_bytes(b"printed \xff")
    assert page_of()["run-0"]["log"] == "printed \N{REPLACEMENT CHARACTER}"


def test_nothing_of_a_run_is_markup(tmp_path):
    folder = make_run(tmp_path, "a", 1, dataset=HTML)
    (folder / "log.txt").write_text(HTML)
    page = make_report(catalogue(NAMED, tmp_path))
    assert "alert(1)" in page
    assert HTML not in page
    assert "<img src=x" not in page


@pytest.mark.parametrize("name", ["report_table.js", "report_charts.js", "report_run.js"])
def test_scripts_never_make_markup_of_text(name):
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function", asset(name))
