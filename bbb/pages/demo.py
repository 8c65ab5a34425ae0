"""The page to draw on: what it holds of a posterior, so that a browser can draw weights and run the network itself."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bbb.data import DataError, Split, load
from bbb.distributions import FlowedGaussian, mean_and_std, posterior_name
from bbb.inference import Categorical
from bbb.networks import MLP, read_about
from bbb.pages.examples import Examples
from bbb.pages.halves import LARGEST, as_text, rounded_weights
from bbb.pages.operations import operations
from bbb.pages.page import asset, make_page, write_page
from bbb.runs import Posterior, find_weights
from bbb.runs import load as load_posterior
from bbb.system import InputError

MOST = 2  # posteriors side by side
SCRIPTS = ("network.js", "drawing.js", "panel.js", "demo.js")
EMBEDDED = "digits8x8"  # what the examples are of where the posterior's own data set cannot be read


class DemoError(InputError):
    """A posterior that the page cannot show."""


def write_demo(names: Sequence[str], path: Path, data_dir: Path) -> list[str]:
    """Write the page on which a person draws and sees what one or two posteriors make of it.

    Args:
        names: of the posteriors: an experiment, a run's folder or a weights file each.
        path: of the page.
        data_dir: folder of the data sets, for the examples.

    Returns:
        What the user should know, one line each: where the examples are from, if not from the posterior's data set.

    Raises:
        DemoError: a posterior cannot be shown, or two of them take images of different sizes.
        bbb.system.InputError: there is no such posterior, its file is damaged, or the page cannot be written.
    """
    if not 1 <= len(names) <= MOST:
        raise DemoError(f"pretrained={[*names]}: names {len(names)} posteriors; the page shows one or two side by side")
    shown = [_Shown(name) for name in names]
    sides = [one.side for one in shown]
    if len({*sides}) > 1:
        sizes = " and ".join(f"{side} x {side}" for side in sides)
        raise DemoError(f"pretrained={[*names]}: take images of {sizes} pixels; name posteriors of images of one size")
    examples, notes = _examples(shown[0], data_dir)
    data = {
        "side": sides[0],
        "worker": asset("worker.js"),
        "examples": examples.record(),
        "posteriors": [one.record(examples) for one in shown],
    }
    title = f"Draw a digit: {', '.join(names)}"
    page = make_page(title, asset("demo.html"), [asset("demo.css")], [asset(name) for name in SCRIPTS], {"data": data})
    write_page(path, page)
    return notes


class _Shown:
    """A posterior that the page can show.

    Args:
        name: what the user calls it.

    Raises:
        DemoError: the page cannot show it.
    """

    def __init__(self, name: str) -> None:
        path = find_weights(name)
        self.name, self.about = name, read_about(path)
        network = self.about.get("network", "mlp")
        if network not in ("mlp", "lenet"):
            raise self._refusal(f"is of network={network}", "it runs mlp and lenet")
        self.posterior: Posterior = load_posterior(path)
        if not isinstance(self.posterior.likelihood, Categorical):
            raise self._refusal("predicts numbers (likelihood=gaussian)", "it shows the probabilities of classes")
        distribution = self.posterior.network.posterior
        if posterior_name(distribution) == "dropout":
            raise self._refusal("drops units (posterior=dropout)", "it draws weights from Gaussians, or a point")
        if isinstance(distribution, FlowedGaussian):
            raise self._refusal("has normalizing flows", "it draws weights from Gaussians; train with num_flows=0")
        if self.posterior.network.fixed is not None:
            raise self._refusal("has deterministic layers", "it draws the weights of all layers")
        self.mean, self.std = mean_and_std(distribution)
        if max(self.mean.abs().max(), self.std.max()) > LARGEST:
            raise self._refusal(f"has weights beyond {LARGEST:g}", "it keeps them in half precision")
        self.operations = operations(self.posterior.network.architecture)
        self.side = self._side()

    @property
    def dataset(self) -> str | None:
        """The data set of its training; None if the file does not tell."""
        dataset = self.about.get("dataset")
        return dataset if isinstance(dataset, str) else None

    def record(self, examples: Examples) -> dict[str, Any]:
        """Collect what the page needs: the weights, the layers, and what makes inputs of pixels."""
        if self.posterior.takes_bytes:
            black, white = 0.0, 255.0
        elif examples.raw_range is not None and examples.dataset == self.dataset:
            black, white = examples.raw_range
        else:
            raise self._refusal(
                "was trained on floats", "it needs their data set, which tells what is black and white; show it alone"
            )
        if self.about.get("permutation") is not None:
            raise self._refusal("was trained on permuted pixels", "it shows images as they are")
        network = self.posterior.network
        shift, scale = network.normalization.shift, network.normalization.scale
        rotation = self.about.get("rotation")
        return {
            "name": self.name,
            "about": self._words(),
            "rotation": rotation if isinstance(rotation, int | float) else 0,
            "classes": [str(label) for label in self.posterior.classes],
            "operations": self.operations,
            "replicas": network.num_replicas or 1,
            "mean": as_text(rounded_weights(network, self.mean.reshape(-1, network.posterior.dim))),
            "std": as_text(self.std),
            "shift": shift.tolist() if isinstance(shift, Tensor) else 0.0,
            "scale": scale.tolist() if isinstance(scale, Tensor) else scale,
            "black": black,
            "white": white,
        }

    def _side(self) -> int:
        """Tell how many pixels an image is wide and high."""
        num = self.posterior.network.architecture.num_inputs
        shape = self.posterior.input_shape or (1, math.isqrt(num), num // max(1, math.isqrt(num)))
        if len(shape) != 3 or shape[0] != 1 or shape[1] != shape[2] or math.prod(shape) != num:
            what = " x ".join(map(str, shape)) if self.posterior.input_shape else str(num)
            raise self._refusal(f"takes inputs of {what} numbers", "it draws grey square images")
        return shape[1]

    def _words(self) -> str:
        """Describe the network in words."""
        network = self.posterior.network
        parts = [str(network.architecture) if isinstance(network.architecture, MLP) else "LeNet-5"]
        parts += [f"{network.posterior.dim:,} weights"]
        if network.num_replicas:
            parts += [f"{network.num_replicas} replicas"]
        return ", ".join([*parts, *([self.dataset] if self.dataset else [])])

    def _refusal(self, what: str, limit: str) -> DemoError:
        return DemoError(f"pretrained={self.name!r}: {what}, which the page cannot show; {limit}")


def _examples(first: _Shown, data_dir: Path) -> tuple[Examples, list[str]]:
    """Find images for the example buttons: of the first posterior's data set, else the embedded digits."""
    side, dataset = first.side, first.dataset
    why = f"{first.name} does not tell its data set"
    if dataset is not None:
        try:
            _, test = load(dataset, data_dir)
            if _fits(test, side):
                return Examples(test, side, dataset), []
            why = f"dataset={dataset} does not hold grey images of {side} x {side} pixels"
        except DataError as error:
            why = str(error).partition(";")[0]
    _, digits = load(EMBEDDED)
    return Examples(_resized(digits, side), side, EMBEDDED), [f"the examples are of {EMBEDDED}: {why}"]


def _fits(test: Split, side: int) -> bool:
    return test.has_classes and test.input_shape in ((1, side, side), (side * side,))


def _resized(digits: Split, side: int) -> Split:
    """Bring square images to another size, with the room around them that MNIST's have."""
    of_images = math.isqrt(digits.images.shape[1])
    if of_images == side:
        return digits
    margin = 4 * side // 28
    images = digits.images.float().view(-1, 1, of_images, of_images)
    inner = nn.functional.interpolate(images, side - 2 * margin, mode="bilinear", align_corners=False)
    padded = nn.functional.pad(inner, [margin] * 4).round().to(torch.uint8)
    return Split(padded.flatten(1), digits.labels, (1, side, side))
