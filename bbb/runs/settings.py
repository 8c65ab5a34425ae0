"""Every key of a configuration: its type, unit and range. A configuration is checked only here.

Defaults and explanations for users are in ``configs/default.yaml``, which has exactly these keys.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from bbb.data import NormalizationName
from bbb.distributions import FlowName, PosteriorName, PriorName
from bbb.inference import BetaType, Estimator, Head, LikelihoodName, LrSchedule, OptimizerName, Precision, Start
from bbb.runs.key_types import (
    Std,
    as_tasks,
    as_tuple,
    choice,
    description,
    distinct,
    experiment_name,
    integer,
    number,
)
from bbb.runs.plain import ALIASES, TASKS, SettingsError

TASK = ("dataset", "classes", "rotation", "permutation")  # the keys of the task, in a weights file too
NETWORK = r"^(mlp|lenet|.+\.py:[A-Za-z_]\w*)$"


def unknown_key(key: str) -> str:
    """Say that a key is unknown, and suggest the nearest."""
    if key == TASKS:
        return f"{key}: are of the command sequence; write: python experiment.py sequence with ..."
    return f"{key}: unknown key{nearest(key, (*KEYS, *ALIASES))}"


def nearest(word: str, choices: Iterable[str]) -> str:
    """Suggest the choice nearest to a misspelt word: ``"; did you mean 'lr'?"``, or all choices if none is near."""
    choices = list(choices)
    near = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else f"; there are {', '.join(choices)}"


@dataclass(frozen=True, config=ConfigDict(strict=True, extra="forbid"), kw_only=True)
class Settings:
    """One experiment's configuration, checked."""

    experiment_name: Annotated[
        str,
        AfterValidator(experiment_name),
        Field(
            description="a name below results/ made of letters, digits, '.', '_', '-' and '/', no part of which is "
            "only digits, is '..' or 'latest', or starts with '_'"
        ),
    ]
    tensorboard: Annotated[bool, Field(description="True or False")]
    dataset: Annotated[
        str,
        Field(
            description="digits8x8, one of torchvision's sets such as mnist, or a file NAME.npz",
            pattern=r"^([a-z0-9_]+|.+\.npz)$",
        ),
    ]
    data_dir: Annotated[str | None, Field(description="a folder, or null for $BBB_DATA_DIR, else data", min_length=1)]
    classes: Annotated[
        Annotated[tuple[Annotated[int, Field(ge=0, le=9999)], ...], Field(min_length=2)] | None,
        BeforeValidator(as_tuple),
        AfterValidator(distinct),
        Field(description="a list of at least two different classes, counted from 0, or null for all"),
    ]
    normalization: Annotated[NormalizationName, choice(NormalizationName)]
    pixel_scale: Annotated[float, number("grey levels", gt=0, le=1e6)]
    rotation: Annotated[float, number("degrees, counter-clockwise", ge=-360, le=360)]
    permutation: Annotated[
        int | None, Field(description=f"a whole number from 0 to {2**32 - 1} (a seed), or null", ge=0, le=2**32 - 1)
    ]
    fraction: Annotated[float, number("share of the training set", gt=0, le=1)]
    union: Annotated[
        Annotated[tuple[dict[str, Any], ...], Field(min_length=1)] | None,
        BeforeValidator(as_tasks),
        Field(description="a list of tasks, as in [{'rotation': 0}, {'rotation': 90}], or null"),
    ]
    coreset: Annotated[int, integer("examples of a task", 0, 60_000)]
    validation_fraction: Annotated[float, number("share of the training set", ge=0, lt=1)]
    network: Annotated[str, Field(description="mlp, lenet or FILE.py:FUNCTION", pattern=NETWORK)]
    deterministic: Annotated[
        tuple[str, ...], BeforeValidator(as_tuple), Field(description="a list of names of layers, perhaps empty")
    ]
    num_layers: Annotated[int, integer("hidden layers", 1, 32)]
    num_hidden: Annotated[int, integer("units a hidden layer", 1, 8192)]
    num_flows: Annotated[int, integer("planar flows on the posterior of each layer", 0, 256)]
    flow: Annotated[FlowName, choice(FlowName)]
    num_replicas: Annotated[int, integer("networks trained at once", 1, 1024)]
    num_epochs: Annotated[int, integer("epochs", 1, 1_000_000)]
    steps_per_epoch: Annotated[int, integer("training steps", 1, 1_000_000)]
    batch_size: Annotated[int, integer("images", 1, 60_000)]
    num_samples: Annotated[int, integer("draws of the weights", 1, 1024)]
    num_validation_samples: Annotated[int, integer("draws of the weights", 1, 10_000)]
    num_test_samples: Annotated[int, integer("draws of the weights", 1, 10_000)]
    lr: Annotated[float, number("learning rate", gt=0, le=100)]
    lr_schedule: Annotated[LrSchedule, choice(LrSchedule)]
    optimizer: Annotated[OptimizerName, choice(OptimizerName)]
    likelihood: Annotated[LikelihoodName, choice(LikelihoodName)]
    noise_std: Annotated[float, number("a standard deviation, in the units of y", gt=0, le=1e6)]
    learn_noise: Annotated[bool, Field(description="True or False")]
    beta_type: Annotated[BetaType, choice(BetaType)]
    temperature: Annotated[float, number("1 is the ELBO", ge=0, le=1000)]
    noise_reuse: Annotated[int, integer("training steps that share a table of noise; 1: none", 1, 1024)]
    input_dropout: Annotated[float, number("share of pixels", ge=0, lt=1)]
    input_shift: Annotated[int, integer("pixels", 0, 32)]
    estimator: Annotated[Estimator, choice(Estimator)]
    posterior: Annotated[PosteriorName, choice(PosteriorName)]
    dropout: Annotated[float, number("share of the hidden units", ge=0, lt=1)]
    prior: Annotated[PriorName, choice(PriorName)]
    prior_std: Std
    prior_pi: Annotated[float, number("probability of the wide component", gt=0, lt=1)]
    prior_std1: Std
    prior_std2: Std
    init_std: Std
    pretrained: Annotated[
        str | None, Field(description="an experiment name, a run folder, a weights file, or null", min_length=1)
    ]
    prior_inflation: Annotated[
        Annotated[float, Field(ge=1e-6, le=1e9, allow_inf_nan=False)] | Literal["auto"],
        Field(description="a number from 1e-06 up to 1e+09 (factor on the variances), or auto"),
    ]
    prior_floor: Annotated[float, number("a standard deviation", ge=0, le=1e3)]
    head: Annotated[Head, choice(Head)]
    start: Annotated[Start, choice(Start)]
    checkpoint_minutes: Annotated[float, number("minutes", gt=0, le=1e6)]
    device: Annotated[str, Field(description="auto, cpu, cuda or cuda:N", pattern=r"^(auto|cpu|cuda(:\d+)?)$")]
    seed: Annotated[int, integer("a seed", 0, 2**32 - 1)]
    split_seed: Annotated[
        int | None, Field(description=f"a whole number from 0 to {2**32 - 1}, or null for the seed", ge=0, le=2**32 - 1)
    ]
    precision: Annotated[Precision, choice(Precision)]
    cuda_graph: Annotated[bool, Field(description="True or False")]
    num_threads: Annotated[
        int | None, Field(description="a whole number from 1 to 1024 (threads), or null for all cores", ge=1, le=1024)
    ]

    @model_validator(mode="after")
    def _suits_the_posterior(self) -> "Settings":
        if self.posterior == "gaussian":
            return self
        key = f"posterior={self.posterior!r}"
        if self.num_flows > 0:
            raise ValueError(f"{key}: has no density that num_flows={self.num_flows} could transform; use num_flows=0")
        if self.estimator == "local":
            raise ValueError(f"{key}: has no variances, which estimator=local needs; use estimator=weights")
        if self.num_samples > 1:
            raise ValueError(f"{key}: trains on one draw a step, not on num_samples={self.num_samples}; use 1")
        if self.posterior == "laplace" and self.prior in ("ard", "scale_mixture"):
            raise ValueError(
                f"{key}: adds the curvature of the likelihood to that of a Gaussian prior; prior={self.prior} is none; "
                "use prior=gaussian, posterior or pretrained"
            )
        if self.posterior != "laplace" and self.prior in ("ard", "posterior"):
            raise ValueError(
                f"{key}: has no variances, which prior={self.prior} needs; use prior=gaussian, scale_mixture or "
                "pretrained, or beta_type=none for no prior at all"
            )
        if self.posterior != "point" and self.num_replicas > 1:
            raise ValueError(f"{key}: trains one network, not num_replicas={self.num_replicas}; use num_replicas=1")
        return self

    @model_validator(mode="after")
    def _is_a_union(self) -> "Settings":
        for place, task in enumerate(self.union or (), start=1):
            for key, value in task.items():
                if key not in TASK:
                    raise ValueError(f"union: {place}: {key}: must be one of {', '.join(TASK)}; give others outside")
                if not type(self).accepts(key, value):
                    raise ValueError(f"union: {place}: {key}={value!r}: must be {allowed_values(key)}")
        if self.union is not None and self.pretrained is not None and self.head == "auto":
            raise ValueError("head='auto': cannot tell whether a union has new classes; use head=keep or head=fresh")
        if self.union is not None and self.likelihood != "categorical":
            raise ValueError(f"union: is of classes, which likelihood={self.likelihood} does not have; use categorical")
        return self

    @property
    def tasks(self) -> tuple["Settings", ...]:
        """The settings of each task of a union; only these, where there is none."""
        if self.union is None:
            return (self,)
        return tuple(replace(self, **{"union": None, **task}) for task in self.union)

    @model_validator(mode="after")
    def _fits_together(self) -> "Settings":
        if self.estimator == "local" and self.num_flows > 0:
            raise ValueError(
                f"estimator='local': needs activations that are Gaussian, which num_flows={self.num_flows} makes them "
                "not; use estimator=weights"
            )
        if self.prior == "ard" and self.num_flows > 0:
            raise ValueError(
                f"prior='ard': follows the means and variances of a Gaussian posterior, not of one with "
                f"num_flows={self.num_flows}; use num_flows=0"
            )
        if self.num_replicas > 1 and (self.num_flows > 0 or self.pretrained is not None):
            raise ValueError(
                f"num_replicas={self.num_replicas}: replicas start from scratch and have no flows; use num_flows=0 and "
                "pretrained=None, or num_replicas=1"
            )
        if self.prior == "posterior" and self.pretrained is None:
            raise ValueError("pretrained=None: prior=posterior needs the posterior of a finished run; name it here")
        if self.prior == "pretrained" and self.pretrained is None:
            raise ValueError(
                "pretrained=None: prior=pretrained needs the weights of a trained network; name their file"
            )
        if self.likelihood == "gaussian" and self.classes is not None:
            raise ValueError("classes: choose among classes, which likelihood=gaussian does not have; use classes=None")
        if self.deterministic and (self.network == "mlp" or self.num_replicas > 1):
            raise ValueError(
                f"deterministic={list(self.deterministic)}: needs network=lenet or a module of your own, and "
                "num_replicas=1"
            )
        if self.prior == "scale_mixture" and self.prior_std1 < self.prior_std2:
            raise ValueError(
                f"prior_std1={self.prior_std1}: must be at least prior_std2={self.prior_std2}, the narrow component"
            )
        return self

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Settings":
        """Check a configuration.

        Args:
            config: every key of ``configs/default.yaml``.

        Raises:
            SettingsError: a key is unknown, missing, of the wrong type or out of range. The message has one line
                for each problem, with the key, the value and what is allowed.
        """
        try:
            return cls(**config)
        except ValidationError as errors:
            lines = [cls._explain(error, config) for error in errors.errors(include_url=False)]
            raise SettingsError("\n".join(dict.fromkeys(lines))) from None

    @classmethod
    def accepts(cls, key: str, value: Any) -> bool:
        """Tell whether a key could have a value, whatever the other keys are."""
        judge = TypeAdapter(get_type_hints(cls, include_extras=True)[key], config=ConfigDict(strict=True))
        try:
            judge.validate_python(value)
        except ValidationError:
            return False
        return True

    @classmethod
    def _explain(cls, error: Mapping[str, Any], config: Mapping[str, Any]) -> str:
        if not error["loc"]:  # the message of a rule about several keys is complete
            return error["msg"].removeprefix("Value error, ")
        key = str(error["loc"][0])
        if key not in KEYS:
            return unknown_key(key)
        allowed = allowed_values(key)
        if error["type"] == "missing":
            return f"{key}: missing; it must be {allowed}"
        value, hint = config[key], ""
        if isinstance(value, str) and re.fullmatch(r"[-+]?\d+[eE][-+]?\d+", value):
            hint = "; YAML reads this as text, write it with a decimal point, as in 0.001"
        names = re.findall(r"[^\s,'\"\[\]]+", str(value))
        if key == "deterministic" and names:  # a shell takes quotes away, and Python reads names without quotes as text
            hint = f'; on the command line write {key}="{names}"'
        return f"{key}={value!r}: must be {allowed}{hint}"

    def subset(self, kind: type) -> Any:
        """Fill a dataclass whose fields are all keys of the configuration."""
        return kind(**{field.name: getattr(self, field.name) for field in fields(kind)})


KEYS = tuple(field.name for field in fields(Settings))


def allowed_values(key: str) -> str:
    """Say what a key may be."""
    return description(get_type_hints(Settings, include_extras=True)[key])
