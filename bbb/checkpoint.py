"""File formats: weights as safetensors, with the layout in the metadata; the state of a training as tensors.

Both hold a checksum of all they hold, so that damage is refused. Nothing here can execute what it reads.
"""

import hashlib
import io
import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from bbb.errors import InputError
from bbb.files import write_aside
from bbb.network import FLOWS, BayesianMLP, num_flow_parameters, num_weights
from bbb.weights import FlowedGaussian, WeightDistribution

FORMAT = "bbb-weights-2"
STATE_FORMAT = "bbb-state-4"
DTYPES = (torch.float32, torch.float64)
_INSTEAD = "start again without resume=True, or put a sound copy in its place"


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
    layout = {"format": FORMAT, "sizes": list(network.sizes), "num_replicas": network.num_replicas or 1}
    layout |= _flavour(network.posterior)
    metadata = {key: json.dumps(value) for key, value in {**(about or {}), **layout}.items()}
    tensors = {name: value.cpu().contiguous() for name, value in network.posterior.state_dict().items()}
    write_aside(path, save(tensors, {**metadata, "sha256": _checksum(metadata, tensors)}))


def load_weights(path: Path, device: torch.device | None = None) -> tuple[BayesianMLP, dict[str, object]]:
    """Read a network's posterior.

    Args:
        path: a file that :func:`save_weights` wrote.
        device: where the network shall live.

    Returns:
        The network, and what the file tells about it: ``sizes``, ``flow``, ``num_flows``, ``num_replicas`` and what was
        passed as ``about``.

    Raises:
        WeightsError: the file is not there, is not of this format, is damaged, or holds values that are not finite.
    """
    about, tensors = _read(path)
    try:
        sizes = [int(size) for size in about["sizes"]]
        flow, num_flows = about["flow"], int(about["num_flows"])
        num_replicas = int(about.setdefault("num_replicas", 1))
    except (KeyError, TypeError, ValueError, OverflowError):
        raise WeightsError(f"{path}: the layout in its metadata is damaged") from None
    wrong = num_flows < 0 or (num_flows and flow not in FLOWS) or len(sizes) < 2 or min(sizes) < 1
    if wrong or num_replicas < 1 or (num_flows and num_replicas > 1):
        raise WeightsError(f"{path}: the layout in its metadata is damaged")
    network = _blank(sizes, num_flows, flow, num_replicas, tensors)
    wanted = {} if network is None else {name: value.shape for name, value in network.posterior.state_dict().items()}
    if wanted != {name: value.shape for name, value in tensors.items()}:
        raise WeightsError(f"{path}: damaged, its tensors do not have the shape that its layout {sizes} promises")
    if not all(value.isfinite().all() for value in tensors.values()):
        raise WeightsError(f"{path}: holds values that are not finite")
    network.posterior.load_state_dict(tensors)
    return network.to(device), about


def _blank(
    sizes: Sequence[int], num_flows: int, flow: str | None, num_replicas: int, tensors: Mapping[str, Tensor]
) -> BayesianMLP | None:
    """Make a network to load tensors into; None where they are too few for it, since it might not fit the memory."""
    needed = 2 * num_weights(sizes) + (num_flows * num_flow_parameters(sizes, flow) if num_flows else 0)
    needed *= num_replicas
    dtypes = {value.dtype for value in tensors.values()}
    if sum(value.numel() for value in tensors.values()) < needed or len(dtypes) != 1 or not dtypes <= {*DTYPES}:
        return None
    network = BayesianMLP.initial(sizes, 1.0, torch.Generator(), num_flows, flow or "planar").to(*dtypes)
    return network if num_replicas == 1 else BayesianMLP.stacked([network] * num_replicas)


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
    torch.save(dict(state), buffer)
    content = buffer.getvalue()
    write_aside(path, f"{STATE_FORMAT} {hashlib.sha256(content).hexdigest()}\n".encode() + content)


def load_state(path: Path, device: torch.device) -> dict[str, object]:
    """Read what :func:`save_state` wrote; refuses anything that could execute code.

    Raises:
        StateError: the file cannot be read, is damaged or is of another version.
    """
    try:
        head, _, content = path.read_bytes().partition(b"\n")
    except OSError as error:
        raise StateError(f"{path}: cannot be read ({error.strerror})") from None
    version, _, checksum = head.partition(b" ")
    if version != STATE_FORMAT.encode():
        raise StateError(f"{path}: damaged, or a checkpoint of another version (wanted {STATE_FORMAT}); {_INSTEAD}")
    if checksum != hashlib.sha256(content).hexdigest().encode():
        raise StateError(f"{path}: damaged, its checksum is not that of its content; {_INSTEAD}")
    try:
        return torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, KeyError, EOFError):  # a checksum is no proof of origin
        raise StateError(f"{path}: not a checkpoint, it holds what is not plain data; {_INSTEAD}") from None


def _read(path: Path) -> tuple[dict[str, object], dict[str, Tensor]]:
    if not Path(path).is_file():
        raise WeightsError(f"{path}: there is no such weights file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
        checksum = metadata.pop("sha256", None)
        about = {key: json.loads(value) for key, value in metadata.items()}
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: is not a weights file, or is damaged ({error})") from None
    if about.get("format") != FORMAT:
        raise WeightsError(f"{path}: not a weights file of this version (wanted format {FORMAT})")
    if checksum != _checksum(metadata, tensors):
        raise WeightsError(f"{path}: damaged, its checksum is not that of its content")
    return about, tensors


def _checksum(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """Compute the SHA-256 of metadata and tensors, in whatever order and with whatever blanks a file holds them."""
    digest = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
