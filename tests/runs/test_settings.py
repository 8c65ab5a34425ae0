import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bbb.inference import PLAIN, Plan
from bbb.runs import KEYS, Settings, SettingsError
from tests.tasks import CONFIGS, DEFAULT

NAMED = sorted(path for path in CONFIGS.glob("*.yaml") if path.stem != "default")


def test_default_has_every_key_and_is_accepted():
    assert DEFAULT.keys() == {*KEYS}
    Settings.from_config(DEFAULT)


def test_the_plain_plan_is_that_of_default_yaml_for_one_epoch():
    assert Settings.from_config({**DEFAULT, "num_epochs": 1}).subset(Plan) == PLAIN


def test_every_key_is_explained_in_default_yaml():
    for key in DEFAULT:
        assert re.search(rf"^{key}: .* # \S", (CONFIGS / "default.yaml").read_text(), re.MULTILINE), key


def test_what_a_command_shall_do_is_no_key_of_a_configuration():
    for option in ("resume", "fast", "grid", "scheduler"):
        with pytest.raises(SettingsError, match=f"^{option}: unknown key"):
            Settings.from_config({**DEFAULT, option: "abc"})


@pytest.mark.parametrize("path", NAMED, ids=lambda path: path.stem)
def test_named_configs_are_accepted_and_hold_differences_only(path):
    config = yaml.safe_load(path.read_text())
    Settings.from_config({**DEFAULT, **config})
    assert all(config[key] != DEFAULT[key] for key in config)
    assert config["experiment_name"] == path.stem


BAD = [
    ("num_epochs", "abc"),
    ("num_epochs", 1.5),
    ("num_epochs", True),
    ("num_epochs", 0),
    ("num_epochs", None),
    ("lr", -1.0),
    ("lr", 0),
    ("lr", float("nan")),
    ("lr", float("inf")),
    ("lr", "1e-3"),
    ("lr", True),
    ("fraction", 0.0),
    ("fraction", 1.01),
    ("validation_fraction", 1.0),
    ("validation_fraction", -0.1),
    ("classes", []),
    ("classes", [3]),
    ("classes", [1, 1]),
    ("classes", [1, 10_000]),
    ("classes", [1, -1]),
    ("classes", ["1", "2"]),
    ("classes", 3),
    ("beta_type", "blundel"),
    ("dataset", ""),
    ("dataset", 3),
    ("estimator", "flipout"),
    ("experiment_name", "../x"),
    ("experiment_name", "/etc"),
    ("experiment_name", ""),
    ("experiment_name", "results"),
    ("experiment_name", "a//b"),
    ("experiment_name", "a/../../b"),
    ("experiment_name", "blundell/3"),
    ("experiment_name", "latest"),
    ("experiment_name", "_sources"),
    ("experiment_name", "a b"),
    ("experiment_name", "a\n"),
    ("num_flows", -1),
    ("num_flows", 1.5),
    ("flow", "radial"),
    ("num_flows", False),
    ("temperature", -0.1),
    ("prior_pi", 1.0),
    ("prior_std", 0.0),
    ("init_std", 1e-9),
    ("device", "gpu"),
    ("seed", -1),
    ("seed", 2**32),
    ("num_threads", 0),
    ("pretrained", ""),
    ("data_dir", 3),
]


@pytest.mark.parametrize(("key", "value"), BAD, ids=lambda part: repr(part))
def test_a_bad_value_gets_one_line_that_names_key_value_and_what_is_allowed(key, value):
    with pytest.raises(SettingsError) as error:
        Settings.from_config({**DEFAULT, key: value})
    message = str(error.value)
    assert message.startswith(f"{key}={value!r}: must be ")
    assert "\n" not in message


@pytest.mark.parametrize(("key", "suggestion"), [("num_flow", "num_flows"), ("Lr", "lr"), ("batchsize", "batch_size")])
def test_an_unknown_key_gets_the_nearest(key, suggestion):
    with pytest.raises(SettingsError, match=f"{key}: unknown key; did you mean '{suggestion}'"):
        Settings.from_config({**DEFAULT, key: 1})


def test_a_missing_key_is_named():
    with pytest.raises(SettingsError, match="lr: missing; it must be a number"):
        Settings.from_config({key: value for key, value in DEFAULT.items() if key != "lr"})


def test_every_mistake_is_told_at_once():
    with pytest.raises(SettingsError) as error:
        Settings.from_config({**DEFAULT, "lr": -1, "num_epochs": 0, "nonsense": 3})
    assert [line.split("=")[0].split(":")[0] for line in str(error.value).splitlines()] == [
        "num_epochs",
        "lr",
        "nonsense",
    ]


def test_yaml_numbers_read_as_text_are_explained():
    with pytest.raises(SettingsError, match=r"lr='1e-3': .* YAML reads this as text"):
        Settings.from_config({**DEFAULT, **yaml.safe_load("lr: 1e-3")})


def test_mixture_scales_must_be_in_order():
    with pytest.raises(SettingsError, match=r"prior_std1=0.001: must be at least prior_std2=0.0025"):
        Settings.from_config({**DEFAULT, "prior": "scale_mixture", "prior_std1": 0.001})
    Settings.from_config({**DEFAULT, "prior_std1": 0.001})


def test_local_reparameterisation_refuses_flows():
    with pytest.raises(SettingsError, match=r"estimator='local': .* num_flows=16 .* use estimator=weights"):
        Settings.from_config({**DEFAULT, "estimator": "local", "num_flows": 16})


@pytest.mark.parametrize("name", ["normflow", "results/normflow"])
def test_both_ways_to_write_an_experiment_name(name):
    assert Settings.from_config({**DEFAULT, "experiment_name": name}).experiment_name == "normflow"


@given(st.text())
def test_no_accepted_name_leaves_results(name):
    try:
        accepted = Settings.from_config({**DEFAULT, "experiment_name": name}).experiment_name
    except SettingsError:
        return
    root = Path("results").resolve()
    assert (root / accepted).resolve().is_relative_to(root)
    assert (root / accepted).resolve() != root


def test_subset_fills_a_dataclass_from_keys():
    plan = Settings.from_config({**DEFAULT, "lr": 0.5}).subset(Plan)
    assert plan.lr == 0.5
    assert plan.num_epochs == DEFAULT["num_epochs"]
