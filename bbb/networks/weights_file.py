"""Weights files: a posterior as safetensors, with the layout in the metadata and a checksum of the content.

Damaged files are refused. Reading a file never executes code from it.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from bbb.distributions import FLOWS, FlowName, flows_of, num_flow_parameters
from bbb.networks.layout import num_weights
from bbb.networks.mlp import MLP
from bbb.networks.network import BayesianNetwork, initial_network
from bbb.system import InputError, write_aside

FORMAT = "bbb-weights-2"
DTYPES = (torch.float32, torch.float64)


class WeightsError(InputError):
    """A weights file that is missing or damaged, or holds a different network than expected."""


def save_weights(path: Path, network: BayesianNetwork, about: Mapping[str, Any] | None = None) -> None:
    """Write a network's posterior to a temporary file, then rename it, so that nobody reads half a file.

    Args:
        path: the file to make or replace.
        network: an MLP; its posterior and its layer sizes are written.
        about: further metadata, such as the classes; the values must fit into JSON.
    """
    if not isinstance(network.architecture, MLP):
        raise ValueError(f"network: the file format holds an MLP, not a network of {network.architecture}")
    flow, num_flows = flows_of(network.posterior)
    layout = {"format": FORMAT, "sizes": list(network.architecture.sizes), "num_replicas": network.num_replicas or 1}
    layout |= {"flow": flow, "num_flows": num_flows}
    metadata = {key: json.dumps(value) for key, value in {**(about or {}), **layout}.items()}
    tensors = {name: value.cpu().contiguous() for name, value in network.posterior.state_dict().items()}
    write_aside(path, save(tensors, {**metadata, "sha256": _checksum(metadata, tensors)}))


def load_weights(path: Path, device: torch.device | None = None) -> tuple[BayesianNetwork, dict[str, Any]]:
    """Read a network's posterior.

    Args:
        path: a file that :func:`save_weights` wrote.
        device: the device to load the network to.

    Returns:
        The network, and what the file tells about it: ``sizes``, ``flow``, ``num_flows``, ``num_replicas`` and what was
        passed as ``about``.

    Raises:
        WeightsError: the file is missing, damaged, not of this format, or holds values that are not finite.
    """
    about, tensors = _read(path)
    try:
        sizes = [int(size) for size in about["sizes"]]
        flow, num_flows = about["flow"], int(about["num_flows"])
        num_replicas = int(about.setdefault("num_replicas", 1))
    except (KeyError, TypeError, ValueError, OverflowError):
        raise WeightsError(f"{path}: the layout in its metadata is damaged") from None
    wrong = num_flows < 0 or flow not in (None, *FLOWS) or len(sizes) < 2 or min(sizes) < 1
    if wrong or num_replicas < 1 or (num_flows and num_replicas > 1):
        raise WeightsError(f"{path}: the layout in its metadata is damaged")
    network = _blank(MLP(tuple(sizes)), num_flows, flow, num_replicas, tensors)
    wanted = {} if network is None else {name: value.shape for name, value in network.posterior.state_dict().items()}
    if network is None or wanted != {name: value.shape for name, value in tensors.items()}:
        raise WeightsError(f"{path}: damaged, its tensors do not have the shape that its layout {sizes} promises")
    if not all(value.isfinite().all() for value in tensors.values()):
        raise WeightsError(f"{path}: holds values that are not finite")
    network.posterior.load_state_dict(tensors)
    return network.to(device), about


def _blank(
    architecture: MLP, num_flows: int, flow: FlowName | None, num_replicas: int, tensors: Mapping[str, Tensor]
) -> BayesianNetwork | None:
    """Make a network to load tensors into; None if they are too few for it, since it might exceed the memory."""
    shapes, flow = architecture.shapes, flow or "planar"
    needed = num_replicas * (2 * num_weights(shapes) + num_flows * num_flow_parameters(shapes, flow))
    dtypes = {value.dtype for value in tensors.values()}
    if sum(value.numel() for value in tensors.values()) < needed or len(dtypes) != 1 or not dtypes <= {*DTYPES}:
        return None
    network = initial_network(architecture, 1.0, torch.Generator(), num_flows, flow).to(dtypes.pop())
    return network if num_replicas == 1 else BayesianNetwork.stacked([network] * num_replicas)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
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
    """Compute the SHA-256 of metadata and tensors, whatever their order and white space in the file."""
    digest = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
