"""Weights files: a posterior as safetensors, with the layout in the metadata and a checksum of the content.

Damaged files are refused. Reading a file never executes code from it.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from bbb.data import Normalization
from bbb.distributions import FLOWS, Dropout, Point, PosteriorName, Pruned, flows_of, posterior_name
from bbb.networks.architecture import Architecture
from bbb.networks.bits import BITS
from bbb.networks.build import build
from bbb.networks.heads import HEADS, KeptHead, heads_as_tensors, heads_from, with_head
from bbb.networks.held import KEPT, Kind, filled, tensors_of
from bbb.networks.layers import Shape
from bbb.networks.lenet import num_lenet_weights
from bbb.networks.mlp import MLP
from bbb.networks.module import ModuleArchitecture
from bbb.networks.network import BayesianNetwork
from bbb.system import InputError, write_aside

FORMAT = "bbb-weights-2"  # an MLP on pixels
FORMAT_3 = "bbb-weights-3"  # any network
FORMAT_4 = "bbb-weights-4"  # any network, pruned: a bit for each weight, and the parameters of those that are kept
FORMAT_5 = "bbb-weights-5"  # any network whose posterior is a point, perhaps with dropout or a curvature, pruned or not
FORMAT_6 = "bbb-weights-6"  # any network, pruned or not, with the heads of earlier tasks
FORMATS = (FORMAT, FORMAT_3, FORMAT_4, FORMAT_5, FORMAT_6)
MOST = 10_000_000  # inputs or outputs that a file may claim before anything is made for them
UsersOwn = str | nn.Module | Architecture
_EXTRAS = ("fixed.", "normalization.", "likelihood.", HEADS)  # of tensors that are not the posterior's


class WeightsError(InputError):
    """A weights file that is missing or damaged, or holds a different network than expected."""


def save_weights(
    path: Path,
    network: BayesianNetwork,
    about: Mapping[str, Any] | None = None,
    likelihood: Mapping[str, Tensor] | None = None,
    input_shape: Shape | None = None,
    heads: Sequence[KeptHead] = (),
) -> None:
    """Write a network's posterior to a temporary file, then rename it, so that nobody reads half a file.

    Args:
        path: the file to make or replace.
        network: its posterior, its layers, their fixed weights and the normalization of its inputs are written.
        about: further metadata, such as the classes; the values must fit into JSON.
        likelihood: what a likelihood has learnt, by name.
        input_shape: of one example, for an architecture that does not know it; by default a vector of its inputs.
        heads: of earlier tasks, to be kept beside the network's own.
    """
    flow, num_flows = flows_of(network.posterior)
    posterior = network.posterior
    tensors = tensors_of(posterior)
    tensors |= {f"likelihood.{name}": value for name, value in (likelihood or {}).items()}
    layout = _layout(network, input_shape)
    parameters = posterior.base if isinstance(posterior, Pruned) else posterior
    if isinstance(parameters, Point):
        layout |= {"format": FORMAT_5, "posterior": posterior_name(posterior)}
        layout |= {"dropout": parameters.share} if isinstance(parameters, Dropout) else {}
    if isinstance(posterior, Pruned):
        layout["format"] = FORMAT_5 if isinstance(parameters, Point) else FORMAT_4
    if heads:
        layout |= {"format": FORMAT_6, "posterior": posterior_name(posterior)}
        layout["heads"] = [{**head.task, "num_outputs": head.num_outputs(network.architecture)} for head in heads]
        tensors |= heads_as_tensors(heads)
    if layout["format"] != FORMAT:
        tensors |= {f"normalization.{name}": value for name, value in network.normalization.named_buffers()}
        if network.fixed is not None:
            tensors |= {f"fixed.{name}": value for name, value in network.fixed.state_dict().items()}
    layout |= {"num_replicas": network.num_replicas or 1, "flow": flow, "num_flows": num_flows}
    metadata = {key: json.dumps(value) for key, value in {**(about or {}), **layout}.items()}
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_aside(path, save(tensors, {**metadata, "sha256": _checksum(metadata, tensors)}))


def load_weights(
    path: Path, device: torch.device | None = None, network: UsersOwn | None = None, head: int | None = None
) -> tuple[BayesianNetwork, dict[str, Any]]:
    """Read a network's posterior. Reading never runs code that the file names.

    Args:
        path: a file that :func:`save_weights` wrote.
        device: the device to load the network to.
        network: a user's own network: ``FILE.py:FUNCTION``, which is run, a module or an architecture. It must be given
            again for such a network, since the weights file may come from anyone.
        head: the number of the head to put on the hidden layers, in the order in which they were trained; None for the
            last one.

    Returns:
        The network, and what the file tells about it: ``sizes``, ``flow``, ``num_flows``, ``num_replicas``, what was
        passed as ``about``, ``likelihood``, the tensors that a likelihood has learnt, and ``kept_heads``, the heads of
        earlier tasks. Under one of these heads, what is told of the task is told of theirs.

    Raises:
        WeightsError: the file is missing, damaged, not of this format, or holds values that are not finite; or it holds
            a user's network that was not given, or has no such head.
        bbb.networks.NetworkError: the network that was given cannot be used.
    """
    about, tensors = _read(path)
    try:
        flow, num_flows = about["flow"], int(about["num_flows"])
        num_replicas = int(about.setdefault("num_replicas", 1))
    except (KeyError, TypeError, ValueError, OverflowError):
        raise WeightsError(f"{path}: the layout in its metadata is damaged") from None
    if num_flows < 0 or flow not in (None, *FLOWS) or num_replicas < 1 or (num_flows and num_replicas > 1):
        raise WeightsError(f"{path}: the layout in its metadata is damaged")
    if not all(value.isfinite().all() for value in tensors.values()):
        raise WeightsError(f"{path}: holds values that are not finite")
    own = {name: value for name, value in tensors.items() if not name.startswith(_EXTRAS)}
    is_pruned = about["format"] == FORMAT_4 or (about["format"] in (FORMAT_5, FORMAT_6) and KEPT in own)
    kind = Kind(flow, num_flows, *_posterior_and_dropout(path, about))
    num_held = BITS * own[KEPT].numel() if is_pruned and KEPT in own else sum(map(torch.Tensor.numel, tensors.values()))
    architecture = _architecture(path, about, network, num_held)
    loaded = filled(architecture, own, kind, num_replicas, is_pruned)
    if loaded is None:
        raise WeightsError(
            f"{path}: damaged, its tensors do not have the shape that its layout {architecture} promises"
        )
    extras = _extras(path, loaded, about, tensors)
    if loaded.fixed is not None:
        loaded.fixed.load_state_dict(extras["fixed"])
    about["likelihood"] = extras["likelihood"]
    kept_heads = heads_from(loaded.architecture, about.get("heads", []), extras["heads"], kind)
    if kept_heads is None:
        raise WeightsError(f"{path}: damaged, its heads of earlier tasks are not those that its layout promises")
    about["kept_heads"] = tuple(replace(kept, posterior=kept.posterior.to(device)) for kept in kept_heads)
    if head is not None and not 0 <= head <= len(kept_heads):
        raise WeightsError(f"{path}: has the heads 0 to {len(kept_heads)}, and no head={head}")
    loaded = loaded.to(device)
    if head is None or head == len(kept_heads):
        return loaded, about
    kept = about["kept_heads"][head]
    layout = _with_outputs(about, kept.num_outputs(loaded.architecture))
    return with_head(loaded, kept, _architecture(path, layout, network, num_held)), {**about, **kept.task}


def read_about(path: Path) -> dict[str, Any]:
    """Read what a weights file tells about its network, as in :func:`load_weights`, and make no network.

    Raises:
        WeightsError: the file is missing, damaged or not of this format.
    """
    return _read(path)[0]


def _posterior_and_dropout(path: Path, about: Mapping[str, Any]) -> tuple[PosteriorName, float]:
    """Read which kind of posterior a file holds, and the share that dropout drops."""
    if about["format"] not in (FORMAT_5, FORMAT_6) or (
        about["format"] == FORMAT_6 and about.get("posterior") == "gaussian"
    ):
        return "gaussian", 0.0
    kind, dropout = about.get("posterior"), about.get("dropout", 0.0)
    is_possible = isinstance(dropout, float) and 0.0 <= dropout < 1.0 and not about["num_flows"]
    is_one = about["num_replicas"] == 1
    if kind not in ("point", "dropout", "laplace") or not is_possible or not (is_one or kind == "point"):
        raise WeightsError(f"{path}: the layout in its metadata is damaged")
    return kind, dropout


def _layout(network: BayesianNetwork, input_shape: Shape | None) -> dict[str, Any]:
    """Write down what makes the network: layer sizes, or a name with the shape of the inputs."""
    architecture, normalization = network.architecture, network.normalization
    is_plain = normalization.shift is None and normalization.scale == Normalization().scale
    if isinstance(architecture, MLP) and is_plain:
        return {"format": FORMAT, "sizes": list(architecture.sizes)}
    layout: dict[str, Any] = {"format": FORMAT_3, "kernels": [list(shape) for shape in architecture.shapes]}
    if isinstance(normalization.scale, float):
        layout["scale"] = normalization.scale
    if isinstance(architecture, MLP):
        return {**layout, "network": "mlp", "sizes": list(architecture.sizes)}
    if isinstance(architecture, ModuleArchitecture):
        layout |= {"input_shape": list(architecture.input_shape), "deterministic": list(architecture.deterministic)}
        return {**layout, "network": architecture.name}
    shape = (architecture.num_inputs,) if input_shape is None else input_shape
    return {**layout, "network": type(architecture).__name__, "input_shape": list(shape)}


def _architecture(path: Path, about: Mapping[str, Any], network: UsersOwn | None, num_held: int) -> Architecture:
    """Make the network that a file of so many numbers describes; a user's own only if it is given."""
    try:
        if "sizes" in about:
            return MLP(tuple(int(size) for size in about["sizes"]))
        name, kernels = str(about["network"]), [tuple(map(int, kernel)) for kernel in about["kernels"]]
        input_shape = tuple(map(int, about["input_shape"]))
        deterministic = [str(layer) for layer in about.get("deterministic", [])]
        num_outputs = kernels[-1][0]
        if min(*input_shape, num_outputs) < 1 or max(math.prod(input_shape), num_outputs) > MOST:
            raise ValueError
        if name == "lenet" and num_lenet_weights(input_shape, num_outputs) > num_held:
            raise ValueError
    except (KeyError, IndexError, TypeError, ValueError, OverflowError):
        raise WeightsError(f"{path}: the layout in its metadata is damaged") from None
    if name == "lenet" or (isinstance(network, str) and network not in ("mlp", "lenet")):
        architecture = build("lenet" if name == "lenet" else str(network), input_shape, num_outputs, (), deterministic)
    elif isinstance(network, nn.Module):
        architecture = ModuleArchitecture(network, input_shape, num_outputs, name, deterministic)
    elif isinstance(network, Architecture):
        architecture = network.copy()
    else:
        raise WeightsError(
            f"{path}: holds the weights of network={name}, and no code is run because a file names it; name it yourself"
        )
    if [*architecture.shapes] != kernels:
        given = network if isinstance(network, str) else name
        raise WeightsError(f"{path}: holds kernels of {kernels}, network={given} has {[*architecture.shapes]}")
    return architecture


def _with_outputs(about: Mapping[str, Any], num_outputs: int) -> dict[str, Any]:
    """Describe the same network with a head of another size."""
    layout = dict(about)
    if "sizes" in about:
        layout["sizes"] = [*about["sizes"][:-1], num_outputs]
    if "kernels" in about:
        *hidden, head = about["kernels"]
        layout["kernels"] = [*hidden, [num_outputs, *head[1:]]]
    return layout


def _extras(
    path: Path, network: BayesianNetwork, about: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> dict[str, dict[str, Tensor]]:
    """Sort the tensors that are not the posterior's, and give the network its normalization."""
    groups = {
        prefix[:-1]: {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        for prefix in _EXTRAS
    }
    wanted = {} if network.fixed is None else {name: value.shape for name, value in network.fixed.state_dict().items()}
    if wanted != {name: value.shape for name, value in groups["fixed"].items()}:
        raise WeightsError(f"{path}: damaged, the weights of its deterministic layers are not those of the network")
    shift, scale = groups["normalization"].get("shift"), groups["normalization"].get("scale", about.get("scale"))
    for value in (shift, scale):
        if isinstance(value, Tensor) and value.shape != (network.architecture.num_inputs,):
            raise WeightsError(f"{path}: damaged, its normalization does not fit its inputs")
    if not isinstance(scale, Tensor | float | None) or (isinstance(scale, float) and not math.isfinite(scale)):
        raise WeightsError(f"{path}: the layout in its metadata is damaged")
    if scale is None and shift is not None:
        raise WeightsError(f"{path}: damaged, its normalization does not fit its inputs")
    if scale is not None:
        network.normalization = Normalization(shift, scale)
    return groups


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
    if about.get("format") not in FORMATS:
        raise WeightsError(f"{path}: not a weights file of this version (wanted format {' or '.join(FORMATS)})")
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
