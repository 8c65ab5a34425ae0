"""The yardstick: how far families of posteriors are from the true one, on problems small enough to know it."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from matplotlib.figure import Figure
from torch import Tensor

from bbb.distributions import Mixture, WeightDistribution
from bbb.inference import LogJoint
from bbb.networks import BayesianNetwork
from bbb.studies.study import Results, Study
from bbb.studies.table import mean_and_error
from bbb.studies.yardstick_families import FAMILIES, HAS_DENSITY, copies, fit, laplace_outputs
from bbb.studies.yardstick_figure import SHOWN, yardstick_figure
from bbb.studies.yardstick_problems import Problem, in_gap, on_data, problems
from bbb.studies.yardstick_truth import TruthPlan, find_truth

TRUTH = "truth"
SEEDS = (1, 2, 3, 4, 5)
MANY_FLOWS = 16
AT_ONCE = 250  # draws
RANKS = (0.05, 0.5, 0.95)  # of the bands in the figure
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
            return shared | {"truth": self.truth_plan.as_config()}
        how = {"num_steps": self.num_steps, "num_samples": self.num_samples, "num_draws": self.num_draws}
        return shared | {"family": self.families[family].as_config(), "seeds": [*self.seeds], **how}

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
        if family in HAS_DENSITY:
            mixed = self._measure(problem, target, networks[0].with_posterior(Mixture(copies(networks))), family)
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
                        rows.append({"problem": name, "family": family, "as": label, **_scores(problem, truth, found)})
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
            **_predictions(problem, truth.outputs, truth.test_outputs),
        }

    def _measure(self, problem: Problem, target: LogJoint, network: BayesianNetwork, family: str) -> dict[str, Any]:
        if family == "Laplace":
            at = [problem.inputs, problem.test.images]
            drawn = [laplace_outputs(problem, network, x, self.num_draws, torch.Generator().manual_seed(7)) for x in at]
            (outputs, evidence), (test_outputs, _) = drawn
            return {"evidence": evidence, **_predictions(problem, outputs, test_outputs)}
        generator = torch.Generator().manual_seed(7)
        own = elbo(target, network.posterior, self.num_draws, generator) if network.posterior.has_density else None
        w = _draws(network.posterior, self.num_draws, generator)
        return {"elbo": own, **self._from_weights(problem, target, w)}

    def _ensemble(self, problem: Problem, target: LogJoint, networks: Sequence[BayesianNetwork]) -> dict[str, Any]:
        """Average points, without a density."""
        w = torch.stack([network.posterior.centre.detach() for network in networks])
        return {"elbo": None, **self._from_weights(problem, target, w)}

    def _from_weights(self, problem: Problem, target: LogJoint, w: Tensor) -> dict[str, Any]:
        at = [target.network.normalization(x) for x in (problem.inputs, problem.test.images)]
        outputs = [torch.cat([target.outputs(part, x) for part in w.split(AT_ONCE)]) for x in at]
        return _predictions(problem, *outputs)


@torch.no_grad()
def elbo(target: LogJoint, q: WeightDistribution, num_draws: int, generator: torch.Generator) -> float:
    """Estimate the evidence lower bound in nats, of all examples; a mixture's from as many draws of each component.

    Args:
        target: the densities.
        q: the posterior.
        num_draws: S.
        generator: source of the draws.
    """
    components = q.component_list if isinstance(q, Mixture) else [q]
    shares = q.log_weights.exp().tolist() if isinstance(q, Mixture) else [1.0]
    total, num = 0.0, math.ceil(num_draws / AT_ONCE / len(components))
    for component, share in zip(components, shares, strict=True):
        for _ in range(num):
            w, _ = component.rsample_and_log_prob(AT_ONCE, generator)
            gain = target.log_likelihood(w) + target.prior.log_prob(w) - q.log_prob(w)
            total += share * gain.double().mean().item() / num
    return total


@torch.no_grad()
def _draws(q: WeightDistribution, num: int, generator: torch.Generator) -> Tensor:
    if q.is_certain:
        return q.centre.detach().unsqueeze(0)
    parts = [q.rsample_and_log_prob(AT_ONCE, generator)[0] for _ in range(math.ceil(num / AT_ONCE))]
    return torch.cat(parts)[:num]


@torch.no_grad()
def _predictions(problem: Problem, outputs: Tensor, test_outputs: Tensor) -> dict[str, Any]:
    """Summarise the outputs of draws ``(S, N, C)``: predictions, and scores of the test set, as plain data."""
    y, probabilities = problem.test.labels, problem.probabilities(outputs)
    summary: dict[str, Any] = {"probabilities": [[round(p, 5) for p in row] for row in probabilities.tolist()]}
    if problem.noise_std is None:
        of_test = problem.probabilities(test_outputs)
        nll = -of_test.clamp(min=1e-30)[torch.arange(len(y)), y].log().mean().item()
        confidence, correct = of_test.amax(1), of_test.argmax(1) == y
        return summary | {
            "nll": nll,
            "error": 100.0 * (1.0 - correct.float().mean().item()),
            "overconfidence": 100.0 * (confidence.mean() - correct.float().mean()).item(),
        }
    std, means = problem.noise_std, test_outputs[..., 0]
    each = -0.5 * ((y - means) / std).square() - math.log(std) - 0.5 * math.log(2.0 * math.pi)
    below = torch.special.ndtr((y - means) / std).mean(0)
    function = outputs[..., 0]
    deviation = function.std(0, correction=0)
    ranks = torch.tensor(RANKS, dtype=function.dtype)
    return summary | {
        "nll": -(each.logsumexp(0) - math.log(len(each))).mean().item(),
        "coverage": 100.0 * ((below > 0.05) & (below < 0.95)).float().mean().item(),
        "std_on_data": deviation[on_data(problem)].mean().item(),
        "std_in_gap": deviation[in_gap(problem)].mean().item(),
        "bands": [[round(v, 4) for v in row] for row in function.quantile(ranks, dim=0).tolist()],
    }


def _scores(problem: Problem, truth: Mapping[str, Any], found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Compare what seeds found with the truth: each measure as mean and standard error."""
    evidence = 0.5 * (truth["evidence"][0] + truth["evidence"][1])
    true = torch.tensor(truth["probabilities"])
    measures: dict[str, list[float]] = {}
    for one in found:
        own = torch.tensor(one["probabilities"])
        values = {"nats_to_evidence": None if one.get("elbo") is None else evidence - one["elbo"]}
        values |= {"total_variation": 0.5 * (own - true).abs().sum(1).mean().item()}
        if problem.noise_std is None:
            values |= {"agreement": 100.0 * (own.argmax(1) == true.argmax(1)).float().mean().item()}
        else:
            values |= {key: one[key] / truth[key] for key in ("std_on_data", "std_in_gap")}
        values |= {key: one[key] for key in ("nll", "error", "overconfidence", "coverage") if key in one}
        for key, value in values.items():
            if value is not None:
                measures.setdefault(key, []).append(value)
    return {key: [round(value or 0.0, 5) for value in mean_and_error(values)] for key, values in measures.items()}


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
