import dataclasses
import json
import re
import shutil
from itertools import chain
from pathlib import Path

import pytest
import yaml

import experiment
from bbb import runs, studies
from bbb.cli import Options, commands
from bbb.runs import Settings
from bbb.studies import Arm, grid, paper, reproduction
from bbb.studies.grid import FREE, identity
from tests.tasks import CONFIGS, DEFAULT, REPOSITORY

TINY = {"dataset": "digits8x8", "num_hidden": 8, "num_epochs": 2, "steps_per_epoch": 1, "num_test_samples": 3}
PAPER = ["ensemble", "paper_widths", "paper_baselines", "paper_pruning"]
OF_ONE_SEED = {"worth", "ensemble", "paper_widths", "paper_pruning"}  # which take long, at toy size at least
NAMES = ["normflow", "calibration", "uncertainty", "comparing_beta", "transfer_results", "worth", *PAPER]
ALLOWED_TO_DIFFER = {  # within a figure, besides the seed: what it compares
    "normflow": {"num_flows", "flow"},
    "comparing_beta": {"beta_type"},
    "uncertainty": set(),
}


@pytest.fixture(params=[False, True], ids=["full", "fast"])
def plots(request):
    return {plot.name: plot for plot in reproduction.plots(request.param, CONFIGS)}


def test_every_configuration_is_sound_and_every_mean_is_of_three_seeds(plots):
    assert list(plots) == NAMES
    for name, plot in plots.items():
        grid.check_configs(plot.jobs)
        for jobs in plot.arms.values():
            seeds = [job.config["seed"] for job in jobs]
            assert len(set(seeds)) == len(seeds) >= (1 if name in OF_ONE_SEED else 3)
            assert len({identity({**job.config, "seed": 0}) for job in jobs}) == 1


@pytest.mark.parametrize("name", ALLOWED_TO_DIFFER)
def test_the_arms_of_a_figure_differ_in_what_it_compares_and_nothing_else(plots, name):
    configs = [job.config for job in plots[name].jobs]
    differing = {key for key in configs[0] if len({str(config[key]) for config in configs}) > 1}
    assert differing - {*FREE, "seed"} == ALLOWED_TO_DIFFER[name]


def test_the_arms_of_transfer_are_trained_alike_on_the_same_images(plots):
    arms = plots["transfer_results"].arms
    assert sorted({arm.fraction for arm in arms}) == [0.01, 0.1, 0.5, 1.0]
    keys = ("classes", "fraction", "num_epochs", "steps_per_epoch", "temperature", "input_dropout", "lr", "num_hidden")
    for arm, jobs in arms.items():
        for job, baseline in zip(jobs, arms[Arm("from scratch", arm.fraction)], strict=False):
            assert job.config["seed"] == baseline.config["seed"]
            if arm.name == "transfer":
                assert {key: job.config[key] for key in keys} == {key: baseline.config[key] for key in keys}
            if arm.name != "from scratch":
                assert job.source.config["classes"] == [0, 1, 2, 3, 4]
                assert job.source.config["seed"] == job.config["seed"]


def test_no_configuration_is_run_twice_and_toys_are_kept_apart():
    full, fast = ([job for plot in reproduction.plots(size, CONFIGS) for job in plot.jobs] for size in (False, True))
    for jobs in (full, fast):
        distinct = list(grid.in_order(jobs))
        assert len({(identity(job.config), job.source) for job in distinct}) == len(distinct)
    assert {job.config["dataset"] for job in fast} == {"digits8x8"}
    names = [{job.config["experiment_name"].split("/")[0] for job in jobs} for jobs in (full, fast)]
    assert names == [{"reproduce"}, {"reproduce-fast"}]
    assert reproduction.figures_folder(False) != reproduction.figures_folder(True)


def test_the_words_of_a_run_make_its_configuration(plots):
    for job in chain.from_iterable(plot.jobs for plot in plots.values()):
        named, *changes = job.words
        config = {
            **DEFAULT,
            **runs.load_file(CONFIGS / f"{named}.yaml"),
        }
        for change in changes:
            key, _, value = change.partition("=")
            config[key] = yaml.safe_load(value)
        assert Settings.from_config(config) == Settings.from_config(job.config)


SHOWS = {  # made up: two seeds, two epochs
    "normflow": {
        "curves": {"without": [[90.0, 96.0], [92.0, 98.0]], "with": [[80.0, 85.0], [80.0, 86.0]]},
        "seconds": {"without": 1.0, "with": 2.5},
        "title": "t",
    },
    "calibration": {
        "reliability": {"a": [{"share": [0, 0.4, 0.6], "confidence": [0, 0.5, 0.9], "accuracy": [0, 0.6, 0.9]}] * 2},
        "entropies": {"a": {"test": [[90.0, 10.0]] * 2, "other": [[0.0, 100.0], [5.0, 95.0]]}},
        "aurocs": {"a": {"other": [0.9, 0.92]}},
        "about": "t",
    },
    "uncertainty": {
        "images": [[0, 255, 30, 0]] * 2,
        "labels": [1, 0],
        "probs": [[[0.3, 0.7], [0.5, 0.5]], [[0.4, 0.6], [0.6, 0.4]]],
        "aleatoric": [[0.5, 0.6], [0.5, 0.6]],
        "epistemic": [[0.1, 0.0], [0.1, 0.0]],
        "title": "t",
    },
    "comparing_beta": {
        "accuracies": {"none": [[90.0, 96.0], [92.0, 98.0]]},
        "elbos": {"none": [[-90.0, -30.0], [-92.0, -25.5]]},
        "title": "t",
    },
    "ensemble": {
        "alone": {arm: {name: [1.9, 2.0] for name in ("error", "nll", "ece")} for arm in ("best", "moved")},
        "together": {arm: {name: 1.7 for name in ("error", "nll", "ece")} for arm in ("best", "moved")},
        "title": "t",
    },
    "paper_widths": {
        "widths": [400, 800],
        "scores": {name: {"dropout": [[1.9], [2.0]]} for name in ("error", "nll")},
        "reported": {"dropout": [1.51, 1.33, 1.36]},
        "title": "t",
    },
    "paper_baselines": {
        "scores": {name: {"dropout": [1.9, 2.0], "scale mixture": [1.8, 1.7]} for name in ("error", "nll", "ece")},
        "reported": {"dropout": 1.51, "scale mixture": 1.36},
        "title": "t",
    },
    "paper_pruning": {
        "errors": {"a": {"shares": [0.0, 0.5], "test_error": [[1.4, 1.5], [1.5, 1.6]]}},
        "reported": [[0.0, 1.24]],
        "histograms": {"a": {"first": -20.0, "width": 10.0, "shares": [40.0, 60.0]}},
        "title": "t",
    },
    "worth": {
        "pairs": {
            "a to b": {
                "images": {"from scratch": [10, 100], "transfer": [10], "from scratch, T = 1": [10]},
                "errors": {"from scratch": [[20.0, 5.0], [22.0, 6.0]], "transfer": [[10.0], [11.0]]},
                "code_lengths": {"from scratch": [[23.0, 90.0], [23.0, 95.0]], "transfer": [[23.0], [23.0]]},
                "elbos": {"from scratch, T = 1": [[-50.0], [-55.0]]},
                "worth": {"images": [10], "errors": [10.5], "equal_images": [35.0]},
            }
        },
        "title": "t",
    },
    "transfer_results": {
        "finals": [
            {"arm": "a", "fraction": f, "test_error": [3.0, 2.0 * f], "test_nll": [0.1, 0.3]} for f in (0.1, 1.0)
        ],
        "curves": {"a": [[90.0, 95.0], [92.0, 94.0]]},
        "curves_title": "t",
        "title": "t",
    },
}


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_is_drawn_again_from_its_file_to_the_last_bit(plots, tmp_path, name):
    plot = dataclasses.replace(plots[name], show=lambda arms: SHOWS[name])
    completed = {job: runs.Run(Path("results/a/1"), "COMPLETED", {}, {"test_error": 2.0}) for job in plot.jobs}
    studies.draw(plot, completed, tmp_path)
    path = tmp_path / f"{name}.png"
    first = path.read_bytes()
    assert json.loads((tmp_path / f"{name}.json").read_text())["shows"] == SHOWS[name]
    path.unlink()
    assert studies.redraw(plot, tmp_path)
    assert path.read_bytes() == first


@pytest.mark.parametrize("name", NAMES)
def test_the_figures_of_this_repository_are_drawn_again_from_their_files(tmp_path, name):
    """Also from files of earlier versions, whose configurations lack keys of today and call the classes digits."""
    shutil.copy(REPOSITORY / "figs" / f"{name}.json", tmp_path)
    (plot,) = (plot for plot in reproduction.plots(False, CONFIGS) if plot.name == name)
    assert studies.redraw(plot, tmp_path)
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def shrink(patch):
    """Make the figures of few seeds at a tiny size."""
    small = {"TOY": TINY, "SEEDS": (1, 2), "TRANSFER_SEEDS": (1, 2), "FRACTIONS": (0.1,), "TOY_WIDTHS": (4, 5, 6)}
    for name, value in small.items():
        patch.setattr(reproduction, name, value)
    patch.setattr(paper, "SEEDS", (1, 2))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """All runs of the figures, made by the commands that ``figures`` prints."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("made"))
        shrink(patch)
        for job in grid.in_order(job for plot in reproduction.plots(True, CONFIGS) for job in plot.jobs):
            experiment.command_line(["experiment.py", "with", *job.words])
        yield reproduction.plots(True, CONFIGS)


@pytest.fixture(autouse=True)
def _runs_alone(monkeypatch):
    """Studies that are not made of runs have tests of their own."""
    monkeypatch.setattr(studies, "all_studies", lambda fast: [])


def drawn():
    return {path.name: path.read_bytes() for path in reproduction.figures_folder(True).glob("*.png")}


def tables():
    return [(reproduction.figures_folder(True) / name).read_text() for name in ("results.md", "results.csv")]


@pytest.mark.slow
def test_figures_are_drawn_from_runs_and_again_from_their_files_alone(made, capsys, tmp_path, monkeypatch):
    experiment.command_line(["experiment.py", "figures", "fast=True"])
    from_runs, results, out = drawn(), tables(), capsys.readouterr().out
    assert sorted(from_runs) == sorted(f"{name}.png" for name in NAMES)
    assert len(re.findall(r"drawn from \d+ runs", out)) == len(NAMES)
    files = {path.name: path.read_bytes() for path in reproduction.figures_folder(True).glob("*.json")}
    assert all(len(content) < 30_000 for content in files.values())
    monkeypatch.chdir(tmp_path)
    reproduction.figures_folder(True).mkdir(parents=True)
    for name, content in files.items():
        (reproduction.figures_folder(True) / name).write_bytes(content)
    experiment.command_line(["experiment.py", "figures", "fast=True"])
    assert drawn() == from_runs
    assert tables() == results
    assert len(re.findall(r"drawn from \w+\.json; \d+ of its runs are not here", capsys.readouterr().out)) == len(NAMES)


@pytest.mark.slow
def test_a_figure_shows_the_runs_it_names(made):
    commands.figures(Options(fast=True), REPOSITORY / "experiment.py")
    records = {name: json.loads((reproduction.figures_folder(True) / f"{name}.json").read_text()) for name in NAMES}
    for plot in made:
        record = records[plot.name]
        for run, job in zip(record["runs"], plot.jobs, strict=True):
            (recorded,) = runs.find_runs(Path(run["run"]))
            assert identity({**record["config"], **run["config"]}) == identity(recorded.config) == identity(job.config)
    found = grid.find_completed([job for plot in made for job in plot.jobs])
    rows = {tuple(row.setting.values()): row for row in studies.results(made, reproduction.figures_folder(True))}
    assert len(rows) == sum(len(plot.arms) for plot in made)
    for plot in made:
        for arm, jobs in plot.arms.items():
            for name, (mean, _) in rows[
                plot.name, *(part for part in (arm.name, arm.fraction) if part is not None)
            ].measures.items():
                assert mean == pytest.approx(sum(found[job].result[name] for job in jobs) / len(jobs))
    reliability = records["calibration"]["shows"]["reliability"]
    (calibration,) = (plot for plot in made if plot.name == "calibration")
    for arm, jobs in calibration.arms.items():
        for job, bins in zip(jobs, reliability[arm.name], strict=True):
            pairs = zip(bins["share"], bins["confidence"], bins["accuracy"], strict=True)
            error = sum(share * abs(accuracy - confidence) for share, confidence, accuracy in pairs)
            assert 100 * error == pytest.approx(found[job].result["test_ece"], abs=0.01), "the draws are the run's own"


@pytest.mark.slow
def test_a_file_of_other_configurations_or_a_damaged_one_is_not_drawn(made, tmp_path):
    commands.figures(Options(fast=True), REPOSITORY / "experiment.py")
    for plot in made:
        path = tmp_path / f"{plot.name}.json"
        content = (reproduction.figures_folder(True) / path.name).read_text()
        path.write_text(content)
        assert studies.redraw(plot, tmp_path)
        (tmp_path / f"{plot.name}.png").unlink()
        for other in (
            content.replace('"num_epochs": 2', '"num_epochs": 3'),
            content.replace('"result"', '"results"'),
            content[:-9],
            "[]",
            '{"config": {}, "runs": 1}',
        ):
            path.write_text(other)
            assert not studies.redraw(plot, tmp_path)
        path.unlink()
        assert not studies.redraw(plot, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_missing_runs_are_told_with_the_commands_that_make_them(made, capsys, tmp_path, monkeypatch):
    results = Path("results").resolve()
    monkeypatch.chdir(tmp_path)
    shutil.copytree(results, "results", symlinks=True)
    for path in reproduction.figures_folder(True).glob("*.*"):
        path.unlink()
    shutil.rmtree("results/reproduce-fast/beta/1")
    shutil.rmtree("results/reproduce-fast/domain_a/seed2")
    with pytest.raises(
        SystemExit, match=r"^error: comparing_beta, transfer_results: not drawn; .*reproduce fast=True$"
    ):
        experiment.command_line(["experiment.py", "figures", "fast=True"])
    out = capsys.readouterr().out
    undrawn = {"comparing_beta", "transfer_results"}
    assert sorted(drawn()) == sorted(f"{name}.png" for name in NAMES if name not in undrawn)
    missing = re.findall(r"^python (experiment\.py with .*)$", out, re.MULTILINE)
    assert [command.split()[2] for command in missing] == ["blundell", "domain_a", "transfer", "transfer_naive"]
    for command in missing:
        experiment.command_line(command.split())
    experiment.command_line(["experiment.py", "figures", "fast=True"])
    assert sorted(drawn()) == sorted(f"{name}.png" for name in NAMES)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["reproduce", "fast=maybe"], "fast=maybe: must be True or False"),
        (["reproduce", "with", "seed=3"], "seed=3: reproduce takes only fast= and scheduler="),
        (["reproduce", "with", "best"], "best: reproduce takes only fast= and scheduler="),
        (["figures", "scheduler=tcp://a:1"], "scheduler=tcp://a:1: figures takes only fast="),
        (["reproduce", "scheduler=here"], "scheduler=here: must be the address of a Dask scheduler"),
        (["grid"], "grid: missing; give keys with lists of values"),
        (["grid", "with", "blundell", "grid=seed"], "grid='seed': must be keys with lists of values"),
        (["grid", "with", "blundell", f"grid={'[' * 10_000}"], "grid"),
        (["grid", "with", "blundell", "grid={'lrr': [1]}"], "grid: lrr: unknown key; did you mean 'lr'?"),
        (["grid", "with", "blundell", "grid={'lr': [-1], 'seed': [1, 2]}"], "lr=-1: must be a number above 0"),
        (["grid", "with", "blundell", "grid={'seed': [1]}", "lrr=1"], "lrr: unknown key; did you mean 'lr'?"),
        (["grid", "with", "blundel", "grid={'seed': [1]}"], "blundel: unknown named configuration"),
        (["grid", "with", "domain_a", "grid={'seed': [1]}", "pretrained=nope"], "pretrained='nope': there is no"),
        (["with", "grid={'seed': [1]}"], "grid={'seed': [1]}: must be a number, a text"),
    ],
    ids=lambda part: " ".join(part)[:60] if isinstance(part, list) else "",
)
def test_bad_input_gets_one_line_and_leaves_nothing(in_tmp, capsys, words, line):
    with pytest.raises(SystemExit) as stop:
        experiment.command_line(["experiment.py", *words])
    (printed,) = stop.value.code.splitlines()
    assert printed.startswith(f"error: {line}")
    assert capsys.readouterr() == ("", "")
    assert list(in_tmp.iterdir()) == []


@pytest.mark.slow
def test_reproduce_makes_what_is_missing_and_draws_everything(in_tmp, capfd, monkeypatch):
    shrink(monkeypatch)
    experiment.command_line(["experiment.py", "reproduce", "fast=True"])
    out, err = capfd.readouterr()
    number = int(re.match(r"(\d+) runs: 0 completed before, \1 to do\n", out)[1])
    assert (out.count(": completed\n"), err) == (number, "")
    first = drawn()
    assert sorted(first) == sorted(f"{name}.png" for name in NAMES)
    experiment.command_line(["experiment.py", "reproduce", "with", "fast=True"])
    assert capfd.readouterr().out.startswith(f"{number} runs: {number} completed before, 0 to do\n")
    assert drawn() == first
