"""Deliberate faults: each is put into a copy of the code, one at a time, and must turn a test red.

    python -m tests.faults                     all of them, two at a time
    python -m tests.faults --only "kl shares"  those whose name holds these words

A fault that no test notices has survived: a law is missing. A fault whose text is no longer in the code has to be
written anew. Either ends the program with exit status 1.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[1]
COPIED = ("bbb", "configs", "docs", "experiment.py", "figs", "pyproject.toml", "README.md", "requirements.txt", "tests")


class Fault(NamedTuple):
    """A wrong line: the file below bbb/, what stands there, what shall stand there, and the tests that must notice."""

    name: str
    file: str
    right: str
    wrong: str
    tests: str


FAULTS = [
    Fault(
        "dropout that does not scale up what is left",
        "distributions/dropout.py",
        "return (noise >= threshold).to(noise.dtype).mul_(1.0 / (1.0 - share))",
        "return (noise >= threshold).to(noise.dtype)",
        "distributions/test_point.py inference/test_point_gradient.py",
    ),
    Fault(
        "dropout of the pixels too",
        "networks/dropped.py",
        "            if i == 0:",
        "            if i < 0:",
        "inference/test_point_gradient.py",
    ),
    Fault(
        "a point without its weight decay",
        "inference/point_gradient.py",
        "self._log_prior.subtract_gradient(self._mean, self._grad, kl_weight)",
        "self._log_prior.subtract_gradient(self._mean, torch.zeros_like(self._grad), kl_weight)",
        "inference/test_point_gradient.py",
    ),
    Fault(
        "ARD without its limit",
        "distributions/ard.py",
        "log_variance = ratio.clamp(max=1.0).log() + self.max_variance.log()",
        "log_variance = ratio.log() + self.max_variance.log()",
        "distributions/test_ard.py",
    ),
    Fault(
        "ARD's precision is that of the last step",
        "distributions/kl_in_place.py",
        "torch.reciprocal(memory, out=precision)",
        "torch.reciprocal(memory, out=precision if precision.sum() == 0 else torch.empty_like(memory))",
        "distributions/test_ard.py",
    ),
    Fault(
        "kl shares in reverse order",
        "inference/training.py",
        "return kl_shares(self.plan.beta_type, self.num_batches, self.epochs_done, self.plan.num_epochs)",
        "return kl_shares(self.plan.beta_type, self.num_batches, self.epochs_done, self.plan.num_epochs)[::-1]",
        "inference/test_wiring.py",
    ),
    Fault(
        "cost scaled by 1/N instead of M/N",
        "inference/step.py",
        "self.scale = num_batches(train, plan.batch_size) / len(train)",
        "self.scale = 1.0 / len(train)",
        "inference/test_wiring.py",
    ),
    Fault(
        "KL left out of all minibatches but the first",
        "inference/training.py",
        "return [i == 0 or share * self.plan.temperature > NEGLIGIBLE for i, share in enumerate(shares)]",
        "return [i == 0 for i, _ in enumerate(shares)]",
        "inference/test_wiring.py",
    ),
    Fault(
        "ELBO of the last draw's KL",
        "inference/predictive.py",
        "kl += kl_divergence(network.posterior, prior, (w, log_q)).item() / num_samples",
        "kl = kl_divergence(network.posterior, prior, (w, log_q)).item()",
        "inference",
    ),
    Fault(
        "temperature forgotten",
        "inference/objective.py",
        "nll.mean(0) + (temperature * kl_share) * kl",
        "nll.mean(0) + kl_share * kl",
        "inference/test_objective.py inference/test_wiring.py",
    ),
    Fault(
        "warm-up counts from zero",
        "inference/objective.py",
        "min(1.0, 4.0 * (epoch + 1) / num_epochs)",
        "min(1.0, 4.0 * epoch / num_epochs)",
        "inference/test_objective.py",
    ),
    Fault(
        "cosine stepped to its end by epochs",
        "inference/training.py",
        "CosineAnnealingLR(optimizer, num_steps)",
        "CosineAnnealingLR(optimizer, plan.num_epochs)",
        "inference/test_training.py",
    ),
    Fault(
        "one draw too few in the mean",
        "inference/gradient.py",
        "Terms(nll.detach(), kl.detach(), score / self.num_samples)",
        "Terms(nll.detach(), kl.detach(), score)",
        "inference",
    ),
    Fault(
        "predictive not divided by S",
        "inference/likelihood.py",
        "return total - math.log(num)",
        "return total",
        "inference/test_predictive.py",
    ),
    Fault(
        "chunks under other draws",
        "inference/predictive.py",
        "        generator.set_state(start)\n",
        "",
        "inference/test_predictive.py",
    ),
    Fault(
        "validation on the training set",
        "inference/training.py",
        "score, validation_nll = self._validate(self.validation) if",
        "score, validation_nll = self._validate(self.train) if",
        "inference",
    ),
    Fault(
        "cross-entropy with its mean",
        "inference/likelihood.py",
        'reduction="sum"',
        'reduction="mean"',
        "inference/test_likelihood.py",
    ),
    Fault(
        "calibration error without its sign removed",
        "inference/scores.py",
        "(self.share * (self.accuracy - self.confidence).abs()).nansum()",
        "(self.share * (self.accuracy - self.confidence)).nansum().abs()",
        "inference/test_scores.py",
    ),
    Fault(
        "mutual information of the wrong sign",
        "inference/scores.py",
        "return Entropy(total, aleatoric, total - aleatoric)",
        "return Entropy(total, aleatoric, aleatoric - total)",
        "inference/test_scores.py",
    ),
    Fault(
        "fresh head at its random start",
        "inference/transfer.py",
        "posterior = join(posterior, _at_zero(fresh.split_head()[1]))",
        "posterior = join(posterior, fresh.split_head()[1])",
        "inference/test_transfer.py",
    ),
    Fault(
        "source's posterior not widened",
        "inference/transfer.py",
        "prior = shared.widened(inflation, floor)",
        "prior = shared.frozen()",
        "inference/test_transfer.py",
    ),
    Fault(
        "the worst prior scale is chosen",
        "inference/transfer.py",
        "return min(candidates, key=scores.__getitem__), scores",
        "return max(candidates, key=scores.__getitem__), scores",
        "inference/test_transfer.py",
    ),
    Fault(
        "head not swapped back for the source's error",
        "inference/transfer.py",
        "posterior = join(network.split_head()[0], source.split_head()[1])",
        "posterior = source.posterior",
        "inference/test_transfer.py",
    ),
    Fault(
        "log-determinant added",
        "distributions/flowed.py",
        "return w, log_q - log_det",
        "return w, log_q + log_det",
        "distributions",
    ),
    Fault(
        "log-determinant of the inverse added",
        "distributions/flowed.py",
        "return self.base.log_prob(z) - log_det",
        "return self.base.log_prob(z) + log_det",
        "distributions",
    ),
    Fault(
        "flows do not start as the identity",
        "distributions/planar.py",
        "IDENTITY = math.log(math.e - 1.0)",
        "IDENTITY = math.log(math.e + 1.0)",
        "distributions",
    ),
    Fault(
        "floor added without its square",
        "distributions/gaussian.py",
        "inflation * torch.exp(2.0 * prior.log_std) + floor**2",
        "inflation * torch.exp(2.0 * prior.log_std) + floor",
        "distributions/test_contract.py",
    ),
    Fault(
        "narrowed widens",
        "distributions/gaussian.py",
        "narrow.log_std.clamp_(max=math.log(max_std))",
        "narrow.log_std.clamp_(min=math.log(max_std))",
        "distributions/test_contract.py",
    ),
    Fault(
        "a frozen posterior is no copy",
        "distributions/base.py",
        "return copy.deepcopy(self).requires_grad_(False)",
        "return self.requires_grad_(False)",
        "distributions",
    ),
    Fault(
        "KL without its one half",
        "distributions/gaussian.py",
        "return total(p_log_std, dim) - total(log_std, dim) + 0.5 * (quadratic - dim)",
        "return total(p_log_std, dim) - total(log_std, dim) + (quadratic - dim)",
        "distributions",
    ),
    Fault(
        "fused KL forgets the prior's pull on the mean",
        "distributions/kl.py",
        "return torch.addcmul(grad_mean, pull, grad_kl), grad_log_std",
        "return grad_mean, grad_log_std",
        "distributions/test_kl.py",
    ),
    Fault(
        "mixture draws the narrow component for the wide one",
        "distributions/scale_mixture.py",
        "torch.where(is_wide, self.std1, self.std2)",
        "torch.where(is_wide, self.std2, self.std1)",
        "distributions",
    ),
    Fault(
        "every step reads the same window of noise",
        "distributions/noise.py",
        "ALIGNMENT * self._places[self._uses]",
        "ALIGNMENT * self._places[0]",
        "distributions/test_noise.py",
    ),
    Fault(
        "local noise of the standard deviation, not the variance",
        "inference/local_gradient.py",
        "out=self._variance).square_()",
        "out=self._variance)",
        "inference/test_local_gradient.py",
    ),
    Fault("no ReLU", "networks/mlp.py", "h = apply(i, h.relu_())", "h = apply(i, h)", "networks"),
    Fault(
        "initial means of half the variance",
        "networks/network.py",
        "math.sqrt(2.0 / layer.fan_in)",
        "math.sqrt(1.0 / layer.fan_in)",
        "networks",
    ),
    Fault(
        "damaged weights are accepted",
        "networks/weights_file.py",
        "    if checksum != _checksum(metadata, tensors):",
        "    if checksum is None:",
        "networks/test_weights_file.py",
    ),
    Fault(
        "kept pixels are not scaled up",
        "data/transforms.py",
        "return (x * keep).mul_(1.0 / (1.0 - share))",
        "return x * keep",
        "data",
    ),
    Fault(
        "images are held out and trained on",
        "data/splits.py",
        "return split[order[:num]], split[order[num:]]",
        "return split[order[:num]], split[order]",
        "data",
    ),
    Fault(
        "classes relabelled in sorted order",
        "data/splits.py",
        "relabelled[list(classes)] = torch.arange(len(classes))",
        "relabelled[sorted(classes)] = torch.arange(len(classes))",
        "data",
    ),
    Fault(
        "a damaged checkpoint is accepted",
        "runs/checkpoint.py",
        "if checksum != hashlib.sha256(content).hexdigest().encode():",
        "if not checksum:",
        "runs",
    ),
    Fault(
        "validation cut by the fraction",
        "runs/tasks.py",
        'return subsample(train, settings.fraction, generator(settings, "fraction")), validation, test',
        'return train, validation, subsample(test, settings.fraction, generator(settings, "fraction"))',
        "runs/test_assembly.py",
    ),
    Fault(
        "a resumed transfer takes any weights",
        "runs/assembly.py",
        'if record["sha256"] == started_with["sha256"]:',
        "if record:",
        "runs cli",
    ),
    Fault(
        "a run of another configuration is resumed",
        "runs/folders.py",
        "same = [run for run in stopped if not differing[run.folder]]",
        "same = stopped",
        "runs cli",
    ),
    Fault(
        "the checkpoint goes before the result is recorded",
        "cli/recorder.py",
        "                write(*args, **kwargs)\n                if is_complete:\n",
        "                if is_complete:\n                    self._run.complete()\n"
        "                write(*args, **kwargs)\n                if False:\n",
        "cli",
    ),
    Fault(
        "a slow observer comes before our record",
        "cli/recorder.py",
        "priority=math.inf",
        "priority=0",
        "cli/test_observers.py",
    ),
    Fault(
        "what an observer did not take is forgotten",
        "cli/guarded.py",
        "event, file = self._files[0]\n            getattr(observer, event)(**file)\n            del self._files[0]",
        "event, file = self._files.pop(0)\n            getattr(observer, event)(**file)",
        "cli/test_observers.py",
    ),
    Fault(
        "a resumed run doubles its steps for TensorBoard",
        "runs/tensorboard.py",
        "if epoch.number > self.last.get(tag, 0):",
        "if epoch.number > 0:",
        "runs/test_tensorboard.py",
    ),
    Fault(
        "runs that differ are taken for the same",
        "studies/grid.py",
        'compared = sorted(set(KEYS) - {*FREE, "pretrained"})',
        'compared = sorted(set(KEYS) - {*FREE, "pretrained", "lr"})',
        "studies",
    ),
    Fault(
        "standard errors without the root of n",
        "studies/table.py",
        "statistics.stdev(values) / math.sqrt(len(values))",
        "statistics.stdev(values) / len(values)",
        "studies/test_table.py",
    ),
    Fault(
        "Gaussian noise without its normaliser",
        "inference/likelihood.py",
        "return (-0.5 * z.square() - self.log_std - 0.5 * LOG_2PI).sum(-1)",
        "return (-0.5 * z.square() - 0.5 * LOG_2PI).sum(-1)",
        "inference/test_likelihood.py",
    ),
    Fault(
        "draws of replicas on numbers averaged before they are mixed",
        "inference/likelihood.py",
        "return torch.cat([*predictives])",
        "return torch.stack([*predictives]).mean(0)",
        "inference/test_likelihood.py",
    ),
    Fault(
        "coverage of half the interval",
        "inference/scores.py",
        "(rank - 0.5).abs() <= p / 200",
        "(rank - 0.5).abs() <= p / 400",
        "inference/test_scores.py",
    ),
    Fault(
        "candidates of the prior's scale share what the likelihood learns",
        "inference/transfer.py",
        "own = copy.deepcopy(likelihood)",
        "own = likelihood",
        "inference/test_transfer.py",
    ),
    Fault(
        "what the likelihood has learnt is lost when a run is resumed",
        "inference/training.py",
        'self.likelihood.load_state_dict(state["likelihood"])',
        "pass",
        "cli/test_networks_and_data.py",
    ),
    Fault(
        "layers that are not Bayesian are lost when a run is resumed",
        "inference/training.py",
        'self.network.fixed.load_state_dict(state["fixed"])',
        "pass",
        "cli/test_networks_and_data.py",
    ),
    Fault(
        "layers that are not Bayesian start anew in a transfer",
        "runs/assembly.py",
        "fresh.fixed.load_state_dict(source.network.fixed.state_dict())",
        "pass",
        "cli/test_networks_and_data.py",
    ),
    Fault(
        "a run in training shares its fixed layers with the assembly",
        "runs/assembly.py",
        "architecture = self.architecture.copy()",
        "architecture = self.architecture",
        "runs/test_assembly.py",
    ),
    Fault(
        "a network is run because a weights file names it",
        "networks/weights_file.py",
        'if name == "lenet" or (isinstance(network, str) and network not in ("mlp", "lenet")):',
        "if network := name:",
        "cli/test_networks_and_data.py",
    ),
    Fault(
        "activations without variance have no finite gradient",
        "networks/local.py",
        ".clamp_(min=LEAST_VARIANCE)",
        "",
        "networks/test_forward.py",
    ),
    Fault(
        "a layer that runs twice keeps the gradient of one run",
        "networks/gradients.py",
        "target.add_(value)",
        "target.copy_(value)",
        "inference/test_local_gradient.py",
    ),
    Fault(
        "a layer that does not run keeps its last gradient",
        "networks/gradients.py",
        "target.zero_()",
        "pass",
        "inference/test_local_gradient.py",
    ),
    Fault(
        "the KL's gradient at log_std without the variance",
        "inference/local_gradient.py",
        "grad_log_std.mul_(self._variance).sub_(kl_weight)",
        "grad_log_std.sub_(kl_weight)",
        "inference/test_local_gradient.py",
    ),
    Fault(
        "the kernel of a convolution does not learn its variance",
        "networks/local.py",
        "torch.sum(value * each_rate, 0, out=for_rate[at])",
        "torch.sum(0.0 * each_rate, 0, out=for_rate[at])",
        "inference/test_local_gradient.py",
    ),
    Fault(
        "a convolution's window of noise counts its outputs",
        "networks/local.py",
        "run.layer.dim if run.layer.shares_weights else num_examples * run.num_outputs for run",
        "num_examples * run.num_outputs for run",
        "inference/test_local_gradient.py",
    ),
    Fault(
        "the gradient of the last draw alone",
        "inference/drawn_gradient.py",
        "self._grad_mean.add_(self._grad_w)",
        "self._grad_mean.copy_(self._grad_w)",
        "inference/test_drawn_gradient.py",
    ),
    Fault(
        "drawn weights' KL at log_std without the variance",
        "inference/drawn_gradient.py",
        "addcmul_(self._variance, self._closed.precision * weight)",
        "add_(self._closed.precision * weight)",
        "inference/test_drawn_gradient.py",
    ),
    Fault(
        "the mixture's pull once for each draw",
        "inference/drawn_gradient.py",
        "self._grad_w, kl_weight * share) * share",
        "self._grad_w, kl_weight) * share",
        "inference/test_drawn_gradient.py",
    ),
    Fault(
        "flows learn nothing from the log-determinant",
        "inference/drawn_gradient.py",
        "self._flows.backward(-kl_weight * share if with_kl else 0.0",
        "self._flows.backward(0.0",
        "inference/test_drawn_gradient.py",
    ),
    Fault(
        "the gradient of a flowed draw skips the flows",
        "inference/drawn_gradient.py",
        "        if self._flows is None and is_first:",
        "        if is_first:",
        "inference/test_drawn_gradient.py",
    ),
    Fault(
        "a training from Python goes on with other data",
        "runs/fitting.py",
        'if state.get("inputs") != about["inputs"]:',
        "if False:",
        "runs/test_posterior.py",
    ),
    Fault(
        "testing cannot be stopped",
        "runs/pipeline.py",
        "        if self.should_stop():",
        "        if False:",
        "runs/test_pipeline.py",
    ),
    Fault(
        "testing counts replicas once",
        "runs/pipeline.py",
        "return settings.num_replicas * num +",
        "return num +",
        "runs/test_pipeline.py",
    ),
    Fault(
        "images move right and down only",
        "data/transforms.py",
        "torch.randint(2 * pixels + 1, (2, num)",
        "torch.randint(pixels + 1, (2, num)",
        "data/test_transforms.py",
    ),
    Fault(
        "a trained network's layers by shape alone",
        "networks/pretrained.py",
        "name if name in fits else next(others, None)",
        "next(iter(fits), None)",
        "networks/test_pretrained.py",
    ),
    Fault(
        "a trained network's layers in the order of letters",
        "networks/pretrained.py",
        'name.endswith(".weight")), key=_in_order)',
        'name.endswith(".weight")))',
        "networks/test_pretrained.py",
    ),
    Fault(
        "a trained network is the prior's mean but not the start",
        "runs/assembly.py",
        "base.mean.copy_(torch.where(is_matched, mean, base.mean))",
        "pass",
        "cli/test_networks_and_data.py",
    ),
    Fault(
        "configurations of earlier versions lack the keys of today",
        "runs/plain.py",
        "return {**_SINCE, **renamed}",
        "return renamed",
        "runs/test_folders.py",
    ),
    Fault(
        "a run is resumed whatever became of the user's files",
        "runs/folders.py",
        "if key not in today or old.get(key) != today[key]]",
        "if key not in today]",
        "runs/test_folders.py",
    ),
    Fault(
        "completed runs are told apart by the names of the user's files",
        "runs/contents.py",
        'str(path), "sha256": checksum(path)}',
        'str(path), "sha256": str(path)}',
        "studies/test_grid.py",
    ),
    Fault(
        "a posterior as prior leaves its deterministic layers behind",
        "runs/fitting.py",
        "        start.fixed.load_state_dict(dict(prior.fixed))",
        "        pass",
        "runs/test_posterior.py",
    ),
    Fault(
        "a posterior as prior with the normalization of the new data",
        "runs/fitting.py",
        "normalization = copy.deepcopy(prior.normalization)",
        "normalization = standardization(train.images, train.input_shape)",
        "runs/test_posterior.py",
    ),
    Fault(
        "validation data may be of another kind",
        "runs/fitting.py",
        '        check_alike(train, held_out, "the data and validation")\n',
        "",
        "runs/test_posterior.py",
    ),
    Fault(
        "a Bayesian layer may share its weights with a deterministic one",
        "networks/module.py",
        "if other == path or not {path, other} & bayesian.keys():",
        "if other == path or not {path, other} <= bayesian.keys():",
        "networks/test_module.py",
    ),
    Fault(
        "print_config stars what has not changed",
        "cli/commands.py",
        'mark = " " if value == defaults[key] else "*"',
        'mark = " " if str(value) == str(defaults[key]).lower() else "*"',
        "cli",
    ),
    Fault(
        "the entropy of the first draw in place of the mean",
        "inference/predictive.py",
        "total = total.to(log_probs.device) + entropy(log_probs)",
        "total = entropy(log_probs) * (num + 1) if num == 0 else total",
        "inference/test_predictive.py",
    ),
    Fault(
        "aleatoric and epistemic entropy taken for each other",
        "runs/findings.py",
        '"epistemic": (entropy(log_probs) - aleatoric).clamp(min=0.0)}',
        '"epistemic": entropy(log_probs)}',
        "runs/test_findings.py",
    ),
    Fault(
        "rows and columns of the confusion matrix exchanged",
        "runs/findings.py",
        "torch.bincount(y * num_classes + predicted, minlength",
        "torch.bincount(predicted * num_classes + y, minlength",
        "runs/test_findings.py",
    ),
    Fault(
        "the pictures of the surest images",
        "runs/pictures.py",
        "nll[members].topk(",
        "(-nll[members]).topk(",
        "runs/test_findings.py",
    ),
    Fault(
        "signal-to-noise by the variance",
        "distributions/independent.py",
        "base.log_std.detach().exp().expand(base.shape)",
        "(2.0 * base.log_std.detach()).exp().expand(base.shape)",
        "runs/test_findings.py",
    ),
    Fault(
        "the best epoch by the training",
        "runs/plotting.py",
        'best = min(nlls["validation"], key=nlls["validation"].__getitem__, default=None)',
        'best = min(nlls["train"], key=nlls["train"].__getitem__, default=None)',
        "runs/test_plotting.py",
    ),
    Fault(
        "the oldest run first",
        "studies/catalogue.py",
        "entry.name), reverse=True)",
        "entry.name))",
        "studies/test_catalogue.py",
    ),
    Fault(
        "a list of runs that stops at a damaged one",
        "studies/records.py",
        "except (RecursionError, UnicodeDecodeError, json.JSONDecodeError):",
        "except (UnicodeDecodeError, json.JSONDecodeError):",
        "studies/test_catalogue.py",
    ),
    Fault(
        "the command of another configuration",
        "studies/origin.py",
        "words = [_word(key, config[key]) for key in _differing(config, named[nearest])]",
        "words = [_word(key, config[key]) for key in _differing(config, named[nearest], but=FREE)]",
        "studies/test_origin.py",
    ),
    Fault(
        "a text of a configuration read back as a number",
        "studies/origin.py",
        "text = value if isinstance(value, str) and not _is_literal(value) else repr(value)",
        "text = value if isinstance(value, str) else repr(value)",
        "studies/test_origin.py",
    ),
    Fault(
        "a page that grows with its runs",
        "pages/report.py",
        "room -= size",
        "room -= 0",
        "pages/test_report.py",
    ),
    Fault(
        "curves without their last epoch",
        "pages/report.py",
        "return [*first, *kept, *([rest[-1]] if kept[-1] is not rest[-1] else [])]",
        "return [*first, *kept]",
        "pages/test_report.py",
    ),
    Fault(
        "a gradient that passes closed units of an MLP",
        "networks/chain.py",
        "grad = _through_relu(grad @ weights[i][0], inputs[i])",
        "grad = grad @ weights[i][0]",
        "inference/test_drawn_gradient.py",
    ),
    Fault(
        "local reparameterisation of an MLP without the input's part of the variance",
        "networks/chain.py",
        "(grad @ mean[i][0]).addcmul_(h, rate @ variance[i][0])",
        "grad @ mean[i][0]",
        "inference/test_local_gradient.py",
    ),
    Fault(
        "flows by hand forget the bias of the deviation in their projections",
        "distributions/matrix_planar_in_place.py",
        "torch.mul(grad_x, self._bias_of_d, out=self._of_bias)",
        "torch.mul(0.0 * grad_x, self._bias_of_d, out=self._of_bias)",
        "distributions/test_drawn_flows.py",
    ),
    Fault(
        "flows by hand keep the gradients of a minibatch's first draw alone",
        "distributions/layer_stacks.py",
        "torch._foreach_add_(self._single, self._stacked)",
        "torch._foreach_add_(self._single, [0.0 * value for value in self._stacked])",
        "distributions/test_drawn_flows.py",
    ),
    Fault(
        "flows by hand read their parameters once",
        "distributions/matrix_planar_in_place.py",
        "stacks.inputs.stack()",
        "stacks.inputs.stack() if stacks.b.count_nonzero() == 0 else None",
        "distributions/test_drawn_flows.py",
    ),
    Fault(
        "the log-determinant of flows by hand is that of the first layer",
        "distributions/matrix_planar_in_place.py",
        "return log_det.sum()",
        "return log_det[0].sum()",
        "distributions/test_drawn_flows.py",
    ),
    Fault(
        "the products of vectors have no gradient in the columns",
        "distributions/matrix_planar_in_place.py",
        "stacks.grad_columns.baddbmm_(self._mixed_columns, stacks.columns)",
        "stacks.grad_columns.baddbmm_(self._mixed_columns, 0.0 * stacks.columns)",
        "distributions/test_drawn_flows.py",
    ),
    Fault(
        "a recursion backward with the products of the first layer in all",
        "distributions/recursion.py",
        "system = h.mT.unsqueeze(-3)",
        "system = h[:1].mT.unsqueeze(-3)",
        "distributions/test_recursion.py",
    ),
    Fault(
        "planar maps in parts, with the determinant of the last part alone",
        "distributions/planar.py",
        "log_det + of_part",
        "of_part",
        "distributions/test_flows.py",
    ),
    Fault(
        "weights pruned by their mean alone",
        "distributions/pruned.py",
        "else log_magnitude - q.log_std.detach().double()",
        "else log_magnitude",
        "distributions/test_pruned.py",
    ),
    Fault(
        "weights pruned by their standard deviation alone",
        "distributions/pruned.py",
        "else log_magnitude - q.log_std.detach().double()",
        "else -q.log_std.detach().double()",
        "distributions/test_pruned.py",
    ),
    Fault(
        "the best weights pruned",
        "distributions/pruned.py",
        ".argsort(stable=True)",
        ".argsort(stable=True, descending=True)",
        "distributions/test_pruned.py",
    ),
    Fault(
        "a weight too few pruned",
        "distributions/pruned.py",
        "round(share * len(candidates))",
        "int(share * len(candidates))",
        "distributions/test_pruned.py",
    ),
    Fault(
        "share of all weights in place of those that may go",
        "distributions/pruned.py",
        "round(share * len(candidates))",
        "round(share * q.dim)",
        "distributions/test_pruned.py networks/test_pruning.py",
    ),
    Fault(
        "biases pruned",
        "networks/layout.py",
        "masks.append(torch.arange(layer.dim) < num_kernel)",
        "masks.append(torch.arange(layer.dim) < num_kernel + layer.dim)",
        "networks/test_pruning.py",
    ),
    Fault(
        "noise for the kept weights alone",
        "distributions/noise.py",
        "return normal((*draws, self.dim), like, self.source).index_select(-1, self.index)",
        "return normal((*draws, num), like, self.source)",
        "distributions/test_pruned.py",
    ),
    Fault(
        "removed weights possible everywhere",
        "distributions/pruned.py",
        "is_possible = ((w == 0.0) | self.kept).all(-1)",
        "is_possible = torch.ones_like(log_q, dtype=torch.bool)",
        "distributions/test_pruned.py",
    ),
    Fault(
        "KL of pruned weights against any prior",
        "distributions/kl.py",
        "if not isinstance(prior, Pruned) or not posterior.has_the_support_of(prior):",
        "if not isinstance(prior, Pruned):",
        "distributions/test_pruned.py",
    ),
    Fault(
        "bits of a mask in reverse",
        "networks/bits.py",
        "bits = (packed.unsqueeze(1) >> _places())",
        "bits = (packed.unsqueeze(1) >> _places().flip(0))",
        "networks/test_pruning.py",
    ),
    Fault(
        "bits behind the last weight taken for none",
        "networks/bits.py",
        "return None if bits[dim:].any() else bits[:dim].clone()",
        "return bits[:dim].clone()",
        "networks/test_pruning.py",
    ),
    Fault(
        "pruned posteriors written whole",
        "networks/held.py",
        "        return {**posterior.base.state_dict(), KEPT: pack(posterior.kept)}",
        "        whole = {name: posterior.spread(value) for name, value in posterior.base.state_dict().items()}\n"
        "        return {**whole, KEPT: pack(torch.ones_like(posterior.kept))}",
        "networks/test_pruning.py",
    ),
    Fault(
        "pruned posteriors tested with other draws",
        "runs/retest.py",
        'draws, number = generator(self.settings, "evaluation", self.device)',
        'draws, number = generator(self.settings, "validation", self.device)',
        "cli/test_prune.py",
    ),
    Fault(
        "a pruned posterior trained against a whole prior",
        "runs/assembly.py",
        "return Pruned(self._prior(posterior.base.dim), posterior.kept)",
        "return self._prior(posterior.dim)",
        "cli/test_prune.py",
    ),
    Fault(
        "a random start where the pruned prior is not",
        "inference/transfer.py",
        "return _with_the_support_of(prior, fresh), prior",
        "return fresh, prior",
        "cli/test_prune.py",
    ),
    Fault(
        "removed weights have no number for a ratio",
        "runs/posterior.py",
        "return torch.where(self.kernel_std > 0, self.kernel_mean.abs() / self.kernel_std, 0.0)",
        "return self.kernel_mean.abs() / self.kernel_std",
        "cli/test_prune.py",
    ),
    Fault(
        "poisonous mushrooms always poison",
        "studies/bandit.py",
        "return FED if self.is_edible[t] or self._is_lucky[t] else POISONED",
        "return FED if self.is_edible[t] else POISONED",
        "studies/test_bandit.py",
    ),
    Fault(
        "regret measured from what an oracle gets by eating",
        "studies/bandit.py",
        "regret.append(bandit.reward(t, best) - reward)",
        "regret.append(bandit.reward(t, EAT) - reward)",
        "studies/test_bandit.py",
    ),
    Fault(
        "buffer stops when it is full",
        "studies/bandit_agents.py",
        "at = self._num_seen % len(self._rewards)",
        "at = min(self._num_seen, len(self._rewards) - 1)",
        "studies/test_bandit.py",
    ),
    Fault(
        "KL shared as if the buffer was always full",
        "studies/bandit_agents.py",
        "kl_share = self.learning.batch_size / len(self.buffer)",
        "kl_share = self.learning.batch_size / self.learning.capacity",
        "studies/test_bandit.py",
    ),
    Fault(
        "epsilon-greedy never at random",
        "studies/bandit_agents.py",
        "if whim < self.epsilon:",
        "if whim > self.epsilon + 1:",
        "studies/test_bandit.py",
    ),
    Fault(
        "noise outside the sines",
        "studies/regression.py",
        "moved = x + noise",
        "moved = x",
        "studies/test_regression.py",
    ),
    Fault(
        "candidates chosen on the test set",
        "studies/regression.py",
        'scores["validation_nll"] for scores in results[part]',
        'scores["test_nll"] for scores in results[part]',
        "studies/test_regression.py",
    ),
    Fault(
        "parts kept whatever their configuration",
        "studies/study.py",
        'if record.get("config") == _plain(self.config_of(part)) and',
        "if",
        "studies/test_bandit.py",
    ),
    Fault(
        "checksum of mushrooms not compared",
        "data/mushrooms.py",
        "if sha256 is not None and checksum != sha256.lower():",
        "if False:",
        "data/test_mushrooms.py",
    ),
    Fault(
        "chains that forget the energy of their momenta",
        "inference/hmc.py",
        "gain = here.log_density(power) - 0.5 * r.square().sum(1) - energy",
        "gain = here.log_density(power) - energy",
        "inference/test_hmc.py",
    ),
    Fault(
        "chains that accept every trajectory",
        "inference/hmc.py",
        "accepted = draw < probability",
        "accepted = draw < 2.0",
        "inference/test_hmc.py",
    ),
    Fault(
        "a step that is adapted the wrong way",
        "inference/hmc.py",
        "self._gap += rate * (self.target - acceptance - self._gap)",
        "self._gap += rate * (acceptance - self.target - self._gap)",
        "inference/test_hmc.py",
    ),
    Fault(
        "a posterior without the slope of its prior",
        "inference/log_joint.py",
        "return torch.add(self.prior_slope, self.likelihood_slope, alpha=power)",
        "return power * self.likelihood_slope",
        "inference/test_hmc.py",
    ),
    Fault(
        "particles that are weighted by the whole likelihood",
        "inference/annealing.py",
        "log_weights += (rung.power - last.power) *",
        "log_weights += rung.power *",
        "inference/test_hmc.py",
    ),
    Fault(
        "annealing without moves",
        "inference/annealing.py",
        "particles, _ = trajectory(target, particles, rung.step, num_leapfrogs, generator, rung.power, scale)",
        "_, _ = trajectory(target, particles, rung.step, num_leapfrogs, generator, rung.power, scale)",
        "inference/test_hmc.py",
    ),
    Fault(
        "a full covariance without its floor",
        "distributions/full_gaussian.py",
        "covariance.diagonal().add_(floor**2)",
        "covariance.diagonal().add_(0.0)",
        "distributions/test_contract.py",
    ),
    Fault(
        "a full covariance whose KL forgets correlations",
        "distributions/full_gaussian.py",
        "quadratic = ((self.variance +",
        "quadratic = (((2 * self.log_diagonal).exp() +",
        "distributions/test_kl.py",
    ),
    Fault(
        "a mixture without its probabilities",
        "distributions/mixture.py",
        "return torch.logsumexp(each + self.log_weights.unsqueeze(1), 0)",
        "return torch.logsumexp(each, 0)",
        "distributions/test_contract.py",
    ),
    Fault(
        "a mixture that draws from the wrong component",
        "distributions/mixture.py",
        "self.log_weights.exp().cumsum(0)[:-1], chance",
        "self.log_weights.exp().flip(0).cumsum(0)[:-1], chance",
        "distributions/test_contract.py",
    ),
    Fault(
        "inducing points that forget the volume",
        "distributions/inducing.py",
        "    return log_det - 0.5 *",
        "    return -0.5 *",
        "distributions/test_inducing.py",
    ),
    Fault(
        "inducing points whose layers do not follow each other",
        "distributions/inducing.py",
        "            h = features @ kernel\n            drawn",
        "            drawn",
        "distributions/test_inducing.py",
    ),
    Fault(
        "an ELBO of a mixture's first component alone",
        "studies/yardstick_measures.py",
        "            total += share * gain.double().mean().item() / num",
        "            total += (share == shares[0]) * gain.double().mean().item() / num",
        "studies/test_yardstick.py",
    ),
    Fault(
        "predictions of numbers without their noise",
        "studies/yardstick_problems.py",
        "below = torch.special.ndtr((inner - outputs) / self.noise_std).mean(0)",
        "below = ((inner - outputs) > 0).double().mean(0)",
        "studies/test_yardstick.py",
    ),
    Fault(
        "a total variation that counts twice",
        "studies/yardstick_measures.py",
        '"total_variation": 0.5 * (own - true)',
        '"total_variation": (own - true)',
        "studies/test_yardstick.py",
    ),
    Fault(
        "chains whose R-hat is not looked at",
        "studies/yardstick_truth.py",
        "posinf=LARGE).max())",
        "posinf=LARGE).min())",
        "studies/test_yardstick.py",
    ),
    Fault(
        "forgetting that is measured from the first score",
        "studies/sequence_matrix.py",
        "for row in matrix[j:-1] if (score := row[j]) is not None",
        "for row in matrix[j : j + 1] if (score := row[j]) is not None",
        "studies/test_sequence.py",
    ),
    Fault(
        "tasks that all start from the first",
        "studies/sequence.py",
        "source = chain[-1] if chain else None",
        "source = chain[0] if chain else None",
        "studies/test_sequence.py",
    ),
    Fault(
        "earlier heads that are forgotten",
        "runs/assembly.py",
        '        return (*about["kept_heads"], KeptHead(network.split_head()[1], task))',
        "        return (KeptHead(network.split_head()[1], task),)",
        "runs/test_heads.py",
    ),
    Fault(
        "scores that are kept for other weights",
        "studies/sequence_matrix.py",
        'keys = [" ".join(map(str, (weights.sha256, *task))) for weights in later]',
        'keys = [" ".join(map(str, (weights.path, *task))) for weights in later]',
        "studies/test_sequence.py",
    ),
    Fault(
        "changed weights of an earlier task that go unnoticed",
        "studies/sequence_checks.py",
        "if is_source and checksums",
        "if not is_source and checksums",
        "studies/test_sequence.py",
    ),
    Fault(
        "a permutation of its own for each image set",
        "data/splits.py",
        "generator=torch.Generator().manual_seed(seed))",
        "generator=torch.Generator().manual_seed(seed + len(split)))",
        "runs/test_heads.py",
    ),
    Fault(
        "a Fisher information of summed vectors, not of examples",
        "inference/curvature.py",
        "value.unflatten(0, (len(images), -1)) for value in values",
        "value.unflatten(0, (-1, 1)) for value in values",
        "inference/test_curvature.py",
    ),
    Fault(
        "a Fisher information at the labels of one class",
        "inference/curvature.py",
        "labels = likelihood.sample(outputs.detach(), generator)",
        "labels = torch.zeros(len(images), dtype=torch.int64)",
        "inference/test_curvature.py",
    ),
    Fault(
        "a curvature without that of the prior",
        "inference/curvature.py",
        "fisher_diagonal(network, likelihood, data, generator) + of_prior",
        "fisher_diagonal(network, likelihood, data, generator) + 1e-12",
        "inference/test_curvature.py cli/test_sequence.py",
    ),
    Fault(
        "a Laplace approximation with a standard deviation for its precision",
        "distributions/laplace.py",
        "-0.5 * self.precision.log()",
        "-1.0 * self.precision.log()",
        "distributions/test_point.py",
    ),
    Fault(
        "a joined Laplace approximation without its curvature",
        "distributions/independent.py",
        "return Laplace(torch.cat(means), torch.cat(precisions))",
        "return Laplace(torch.cat(means), torch.ones_like(torch.cat(precisions)))",
        "distributions/test_point.py",
    ),
    Fault(
        "noise of labels without its standard deviation",
        "inference/likelihood.py",
        "return outputs + self.log_std.detach().exp() * noise",
        "return outputs + noise",
        "inference/test_curvature.py",
    ),
    Fault(
        "a coreset that is trained on twice",
        "runs/tasks.py",
        "train = coreset if is_of_union else rest",
        "train = coreset if is_of_union else train",
        "runs/test_tasks.py",
    ),
    Fault(
        "a union whose tasks share outputs that should be their own",
        "runs/tasks.py",
        "offsets = [sum(nums[:i]) if has_own_heads else 0 for i in range(len(parts))]",
        "offsets = [0 for i in range(len(parts))]",
        "runs/test_tasks.py",
    ),
    Fault(
        "refined posteriors of which the first is tested always",
        "studies/sequence_matrix.py",
        "self._accuracies(run, own, tested[first:])",
        "self._accuracies(run, own, weights[first:])",
        "cli/test_sequence.py",
    ),
    Fault(
        "a joint training that is tested among the classes of all tasks",
        "studies/sequence_matrix.py",
        'first += num if run.config["head"] == "fresh" else 0',
        "first += 0",
        "cli/test_sequence.py",
    ),
    Fault(
        "a refined posterior that starts at another task",
        "studies/sequence.py",
        'config = {**base, **start, "union": union[:number]}',
        'config = {**base, **start, "union": union}',
        "studies/test_sequence.py",
    ),
    Fault(
        "small images of sums, not means",
        "data/sources.py",
        ".mean((2, 4))",
        ".amax((2, 4))",
        "data/test_sources.py",
    ),
    Fault(
        "images for an error on a straight line, not on one of logarithms",
        "studies/worth_evidence.py",
        "return few * (many / few) ** share",
        "return few + (many - few) * share",
        "studies/test_worth.py",
    ),
    Fault(
        "blocks coded with a network that was trained on them",
        "studies/worth_evidence.py",
        "zip(pairwise(images), nlls[:-1], strict=True)",
        "zip(pairwise(images), nlls[1:], strict=True)",
        "studies/test_worth.py",
    ),
    Fault(
        "a worth in ELBO with the wrong sign",
        "studies/worth_evidence.py",
        "_saved(elbos[TRANSFER_AT_ONE], elbos[SCRATCH_AT_ONE])",
        "_saved(elbos[SCRATCH_AT_ONE], elbos[TRANSFER_AT_ONE])",
        "studies/test_worth.py",
    ),
    Fault(
        "an ELBO of images with dropped pixels",
        "studies/worth.py",
        '"input_dropout": 0.0, ',
        "",
        "studies/test_worth.py",
    ),
    Fault(
        "a source of another seed",
        "studies/worth.py",
        'of_source = {**common, **pair.source, "num_epochs": SOURCE_EPOCHS}',
        'of_source = {**common, **pair.source, "num_epochs": SOURCE_EPOCHS, "seed": 1}',
        "studies/test_worth.py",
    ),
    Fault(
        "null on the command line as a text",
        "cli/words.py",
        "={in_python(value)}",
        "={value}",
        "cli/test_words.py",
    ),
]


def is_caught(fault: Fault, place: Path) -> bool:
    """Put a fault into a copy of the code, and tell whether a test turns red.

    Raises:
        ValueError: the text that the fault replaces is not in the code, or more than once.
    """
    tree = place / fault.file.replace("/", "_") / str(abs(hash(fault)))
    for name in COPIED:
        copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        copy(REPOSITORY / name, tree / name)
    path = tree / "bbb" / fault.file
    text = path.read_text()
    if text.count(fault.right) != 1:
        raise ValueError(f"{fault.name}: {fault.file} holds its text {text.count(fault.right)} times, not once")
    path.write_text(text.replace(fault.right, fault.wrong))
    tests = [f"tests/{name}" for name in fault.tests.split()]
    options = ["-x", "-q", "-p", "no:cacheprovider", "-o", "addopts=-m 'not slow'"]
    run = subprocess.run([sys.executable, "-m", "pytest", *options, *tests], cwd=tree, capture_output=True, check=False)
    shutil.rmtree(tree)
    if run.returncode not in (0, 1):  # neither passed nor failed: the tests could not be run
        raise ValueError(f"{fault.name}: pytest ended with {run.returncode}: {run.stdout.decode()[-300:]}")
    return run.returncode == 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="try the faults whose name holds these words")
    parser.add_argument("--jobs", type=int, default=2, help="faults tried at once (2)")
    options = parser.parse_args()
    chosen = [fault for fault in FAULTS if options.only in fault.name]
    wrong = 0
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(options.jobs) as pool:
        tries = [(fault, pool.submit(is_caught, fault, Path(place))) for fault in chosen]
        for fault, caught in tries:
            try:
                verdict = "caught" if caught.result() else "SURVIVED"
            except ValueError as error:
                verdict = f"NOT TRIED: {error}"
            wrong += verdict != "caught"
            print(f"{verdict:<9} {fault.name} (bbb/{fault.file})", flush=True)
    print(f"{len(chosen) - wrong} of {len(chosen)} faults caught")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
