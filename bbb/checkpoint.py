"""File formats: weights as safetensors, with the layout in the metadata; the state of a training as tensors.

Nothing here can execute what it reads.
"""

import io
import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from bbb.errors import InputError
from bbb.network import FLOWS, BayesianMLP, num_weights
from bbb.runs import write_aside
from bbb.weights import FlowedGaussian, WeightDistribution

FORMAT = "bbb-weights-1"
STATE_FORMAT = "bbb-state-2"


class WeightsError(InputError):
    """A weights file that is not there, is damaged, or holds another network than is wanted."""


class StateError(InputError):
    """A checkpoint that is damaged or of another version."""


def save_weights(path: Path, network: BayesianMLP, about: Mapping[str, object] | None = None) -> None:
    """Write a network's posterior, aside and then renamed, so that no half-written file is ever seen.

    Args:
        path: the file to make or replace.
        network: its posterior and its layer sizes are written.
        about: whatever else a reader should know, such as the classes; values must be fit for JSON.
    """
    layout = {"format": FORMAT, "sizes": list(network.sizes), **_flavour(network.posterior)}
    metadata = {key: json.dumps(value) for key, value in {**(about or {}), **layout}.items()}
    tensors = {name: value.cpu().contiguous() for name, value in network.posterior.state_dict().items()}
    write_aside(path, save(tensors, metadata))


def load_weights(path: Path, device: torch.device | None = None) -> tuple[BayesianMLP, dict[str, object]]:
    """Read a network's posterior.

    Args:
        path: a file that :func:`save_weights` wrote.
        device: where the network shall live.

    Returns:
        The network, and what the file tells about it: ``sizes``, ``flow``, ``num_flows`` and what was passed as
        ``about``.

    Raises:
        WeightsError: the file is not there, is not of this format, is damaged, or holds values that are not finite.
    """
    about, tensors = _read(path)
    try:
        sizes = [int(size) for size in about["sizes"]]
        flow, num_flows = about["flow"], int(about["num_flows"])
    except (KeyError, TypeError, ValueError):
        raise WeightsError(f"{path}: the layout in its metadata is damaged") from None
    if num_flows and flow not in FLOWS:
        raise WeightsError(f"{path}: the layout in its metadata is damaged")
    misfit = WeightsError(f"{path}: damaged, its tensors do not have the shape that its layout {sizes} promises")
    mean = tensors.get("base.mean" if num_flows else "mean", torch.empty(0))
    if len(sizes) < 2 or min(sizes) < 1 or mean.shape != (num_weights(sizes),) or num_flows > len(mean):
        raise misfit
    network = BayesianMLP.initial(sizes, 1.0, torch.Generator(), num_flows, flow or "planar").to(mean.dtype)
    wanted = {name: value.shape for name, value in network.posterior.state_dict().items()}
    if wanted != {name: value.shape for name, value in tensors.items()}:
        raise misfit
    if not all(value.isfinite().all() for value in tensors.values()):
        raise WeightsError(f"{path}: holds values that are not finite")
    network.posterior.load_state_dict(tensors)
    return network.to(device), about


def _flavour(posterior: WeightDistribution) -> dict[str, object]:
    """The flows of a posterior, as ``flow`` and ``num_flows``."""
    if isinstance(posterior, FlowedGaussian):
        name = next(name for name, kind in FLOWS.items() if isinstance(posterior.flows[0], kind))
        return {"flow": name, "num_flows": len(posterior.flows[0].b)}
    return {"flow": None, "num_flows": 0}


def save_state(path: Path, state: Mapping[str, object]) -> None:
    """Write the state of a training, aside and then renamed.

    Args:
        path: the file to make or replace.
        state: tensors, numbers, strings, lists and dictionaries.
    """
    buffer = io.BytesIO()
    torch.save({"format": STATE_FORMAT, **state}, buffer)
    write_aside(path, buffer.getvalue())


def load_state(path: Path, device: torch.device) -> dict[str, object]:
    """Read what :func:`save_state` wrote; refuses anything that could execute code.

    Raises:
        StateError: the file is damaged or of another version.
    """
    if not zipfile.is_zipfile(path):  # older formats are pickles, which PyTorch would read with a warning
        raise StateError(f"{path}: cannot be read, is it damaged?")
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StateError(f"{path}: cannot be read, is it damaged? ({reason})") from None
    if not isinstance(state, dict) or state.get("format") != STATE_FORMAT:
        raise StateError(f"{path}: not a checkpoint of this version (wanted format {STATE_FORMAT})")
    return state


def _read(path: Path) -> tuple[dict[str, object], dict[str, Tensor]]:
    if not Path(path).is_file():
        raise WeightsError(f"{path}: there is no such weights file")
    try:
        with safe_open(path, framework="pt") as file:
            about = {key: json.loads(value) for key, value in (file.metadata() or {}).items()}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path}: is not a weights file, or is damaged ({error})") from None
    if about.get("format") != FORMAT:
        raise WeightsError(f"{path}: not a weights file of this version (wanted format {FORMAT})")
    return about, tensors
