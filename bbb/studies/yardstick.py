"""The yardstick: how far families of posteriors are from the true one, on problems small enough to know it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar

import torch
from matplotlib.figure import Figure
from torch import Tensor

from bbb.distributions import Mixture
from bbb.inference import LogJoint
from bbb.networks import BayesianNetwork
from bbb.studies.study import Results, Study
from bbb.studies.yardstick_families import FAMILIES, fit, fit_laplace, laplace_outputs
from bbb.studies.yardstick_figure import SHOWN, yardstick_figure
from bbb.studies.yardstick_measures import AT_ONCE, draws, elbo, predictions, scores
from bbb.studies.yardstick_problems import Problem, problems
from bbb.studies.yardstick_truth import TruthPlan, find_truth

TRUTH = "truth"
SEEDS = (1, 2, 3, 4, 5)
MANY_FLOWS = 16
FAST_TRUTH = TruthPlan(8, 30, 5, 10)
FAST_FAMILIES = ("mean field", "4 planar", "inducing points", "ensemble")


class YardstickStudy(Study):
    """Each part is the truth of a problem, or a family on it: all seeds, alone and as a mixture."""

    name: ClassVar[str] = "yardstick"

    def __init__(self, fast: bool = False) -> None:
        super().__init__(fast)
        self.problems = problems(fast)
        self.families = {name: FAMILIES[name] for name in (FAST_FAMILIES if fast else FAMILIES)}
        self.seeds = SEEDS[:2] if fast else SEEDS
        self.num_steps, self.num_samples = (20, 4) if fast else (2000, 8)
        self.num_draws = 100 if fast else 2000
        self.truth_plan = FAST_TRUTH if fast else TruthPlan()

    @property
    def config(self) -> dict[str, Any]:
        return {"parts": {part: self.config_of(part) for part in self.parts}}

    def config_of(self, part: str) -> dict[str, Any]:
        problem, family = self._of(part)
        shared: dict[str, Any] = {"problem": _as_config(problem)}
        if family == TRUTH:
            return shared | {"truth": asdict(self.truth_plan)}
        how = {"num_steps": self.num_steps, "num_samples": self.num_samples, "num_draws": self.num_draws}
        return shared | {"family": asdict(self.families[family]), "seeds": [*self.seeds], **how}

    @property
    def parts(self) -> dict[str, int]:
        steps = {TRUTH: self.truth_plan.num_steps}
        steps |= dict.fromkeys(self.families, len(self.seeds) * self.num_steps)
        places = [(name, family) for name in self.problems for family in (TRUTH, *self._families(name))]
        return {_part(name, family): steps[family] for name, family in places}

    def make(self, part: str, on_step: Callable[[], None]) -> dict[str, Any]:
        problem, family = self._of(part)
        if family == TRUTH:
            return self._truth(problem, on_step)
        networks = [
            fit(problem, self.families[family], self.num_steps, self.num_samples, seed, on_step) for seed in self.seeds
        ]
        target = problem.target()
        each = [self._measure(problem, target, network, family) for network in networks]
        mixed = None
        if networks[0].posterior.has_density:
            mixture = Mixture([network.posterior.frozen() for network in networks])
            mixed = self._measure(problem, target, networks[0].with_posterior(mixture), family)
        elif family == "ensemble":
            mixed = self._ensemble(problem, target, networks)
        return {"each": each, "mixed": mixed}

    def show(self, results: Results) -> dict[str, Any]:
        rows = []
        for name, problem in self.problems.items():
            truth = results[_part(name, TRUTH)]
            for family in self._families(name):
                result = results[_part(name, family)]
                for label, found in (("alone", result["each"]), ("mixed", [result["mixed"]])):
                    if found[0] is not None:
                        rows.append({"problem": name, "family": family, "as": label, **scores(problem, truth, found)})
        first = next(iter(self.problems.values()))
        bands = {TRUTH: results[_part(first.name, TRUTH)]["bands"]}
        bands |= {
            family: results[_part(first.name, family)]["each"][0]["bands"]
            for family in SHOWN
            if family in self.families
        }
        return {
            "rows": rows,
            "truths": {name: _about(results[_part(name, TRUTH)]) for name in self.problems},
            "x": [round(x, 3) for x in first.inputs[:, 0].tolist()],
            "data": [
                [round(v, 3) for v in values.tolist()] for values in (first.train.images[:, 0], first.train.labels)
            ],
            "bands": bands,
            "num_seeds": len(self.seeds),
        }

    @staticmethod
    def draw(shows: dict[str, Any]) -> Figure:
        return yardstick_figure(**shows)

    @staticmethod
    def lines(shows: dict[str, Any]) -> list[str]:
        lines = []
        for name, truth in shows["truths"].items():
            low, high = truth["evidence"][:2]
            lines.append(f"{name}: log-evidence between {low:.1f} and {high:.1f} nats, R-hat {truth['r_hat']:.3f}")
            for row in shows["rows"]:
                if row["problem"] == name:
                    label = row["family"] + (f", mixture of {shows['num_seeds']}" if row["as"] == "mixed" else "")
                    shown = [f"{key} {value[0]:.3g}" for key, value in row.items() if isinstance(value, list)]
                    lines.append(f"  {label}: {', '.join(shown)}")
        return lines

    def _families(self, problem: str) -> list[str]:
        """The families that are fitted to a problem; those with the most maps, which take long, to the first alone."""
        first = next(iter(self.problems))
        return [name for name, family in self.families.items() if problem == first or family.num_flows <= MANY_FLOWS]

    def _of(self, part: str) -> tuple[Problem, str]:
        name, _, family = part.partition(".")
        families = {_slug(family): family for family in (TRUTH, *self.families)}
        return self.problems[name], families[family]

    def _truth(self, problem: Problem, on_step: Callable[[], None]) -> dict[str, Any]:
        truth = find_truth(problem, self.truth_plan, 1, on_step)
        return {
            "evidence": [*truth.evidence],
            "r_hat": truth.r_hat,
            "num_effective": truth.num_effective,
            "acceptance": truth.acceptance,
            **predictions(problem, truth.outputs, truth.test_outputs),
        }

    def _measure(self, problem: Problem, target: LogJoint, network: BayesianNetwork, family: str) -> dict[str, Any]:
        if family == "Laplace":
            fitted, at = fit_laplace(problem, network), self._inputs(problem, target)
            drawn = [laplace_outputs(fitted, x, self.num_draws, torch.Generator().manual_seed(7)) for x in at]
            return {"evidence": fitted.log_marginal_likelihood().item(), **predictions(problem, *drawn)}
        generator = torch.Generator().manual_seed(7)
        own = elbo(target, network.posterior, self.num_draws, generator) if network.posterior.has_density else None
        w = draws(network.posterior, self.num_draws, generator)
        return {"elbo": own, **self._from_weights(problem, target, w)}

    def _ensemble(self, problem: Problem, target: LogJoint, networks: Sequence[BayesianNetwork]) -> dict[str, Any]:
        """Average points, without a density."""
        w = torch.stack([network.posterior.centre.detach() for network in networks])
        return {"elbo": None, **self._from_weights(problem, target, w)}

    def _from_weights(self, problem: Problem, target: LogJoint, w: Tensor) -> dict[str, Any]:
        at = self._inputs(problem, target)
        outputs = [torch.cat([target.outputs(part, x) for part in w.split(AT_ONCE)]) for x in at]
        return predictions(problem, *outputs)

    def _inputs(self, problem: Problem, target: LogJoint) -> tuple[Tensor, Tensor]:
        """Normalise the inputs where predictions are compared, and those of the test set."""
        normalize = target.network.normalization
        return normalize(problem.inputs), normalize(problem.test.images)


def _about(truth: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in truth.items() if key not in ("probabilities", "bands")}


def _as_config(problem: Problem) -> dict[str, Any]:
    return {
        "name": problem.name,
        "sizes": [*problem.sizes],
        "activation": problem.activation,
        "prior_std": problem.prior_std,
        "noise_std": problem.noise_std,
        "num_examples": len(problem.train),
    }


def _part(problem: str, family: str) -> str:
    return f"{problem}.{_slug(family)}"


def _slug(text: str) -> str:
    return text.replace(" ", "_")
