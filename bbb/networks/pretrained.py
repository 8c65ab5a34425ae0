"""Deterministic networks as prior means: the weights of an ordinary ``state_dict``, matched with the layers."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from bbb.networks.architecture import Architecture
from bbb.networks.weights_file import FORMATS, UsersOwn, WeightsError, load_weights


@dataclass(frozen=True)
class PretrainedMean:
    """What a trained network says about the weights of another.

    Attributes:
        mean: ``(D,)``; 0 where nothing matches.
        is_matched: ``(D,)``, where the mean comes from the file.
        report: a line for each layer: where its weights come from.
    """

    mean: Tensor
    is_matched: Tensor
    report: tuple[str, ...]


def load_pretrained(
    path: Path, architecture: Architecture, keep_head: bool | None = None, network: UsersOwn | None = None
) -> PretrainedMean:
    """Read the weights of a trained network, and match them with layers by name and shape.

    A layer takes ``NAME.weight`` and ``NAME.bias`` of its own name if their shapes agree. Otherwise it takes the next
    unused weights of its shape, in the order of the names (a safetensors file keeps no other), with 10 behind 2.

    Args:
        path: a safetensors file of an ordinary ``state_dict``, or the weights file of a posterior, of which the centre
            is taken.
        architecture: the network whose layers are to be matched.
        keep_head: True demands that the head matches; False leaves it out; None takes it if it does.
        network: a user's own network, which reads the weights file of its posterior (see :func:`load_weights`).

    Raises:
        WeightsError: the file cannot be read, holds values that are not finite, or matches no layer, or not the head.
    """
    tensors = _read(path, network)
    if not all(value.isfinite().all() for value in tensors.values()):
        raise WeightsError(f"{path}: holds values that are not finite")
    names = sorted((name.removesuffix(".weight") for name in tensors if name.endswith(".weight")), key=_in_order)
    unused = dict.fromkeys(names)
    layers = list(zip(architecture.names, architecture.layers, strict=True))
    by_name = {name for name, layer in layers if name in unused and _fits(tensors, name, layer.shape, layer.has_bias)}
    means, masks, report = [], [], []
    for i, (name, layer) in enumerate(layers):
        is_head = i == len(architecture.layers) - 1
        fits = [key for key in unused if _fits(tensors, key, layer.shape, layer.has_bias)]
        others = (key for key in fits if key not in by_name)
        key = None if is_head and keep_head is False else name if name in fits else next(others, None)
        if key is None and is_head and keep_head:
            raise WeightsError(f"{path}: has no weights of shape {layer.shape} for the head; use head=fresh")
        if key is None:
            means.append(torch.zeros(layer.dim))
            report.append(f"layer {name}, {' x '.join(map(str, layer.shape))}: nothing matches, prior mean 0")
        else:
            del unused[key]
            parts = [tensors[f"{key}.weight"].flatten()] + ([tensors[f"{key}.bias"]] if layer.has_bias else [])
            means.append(torch.cat(parts).float())
            report.append(f"layer {name}, {' x '.join(map(str, layer.shape))}: from {key}")
        masks.append(torch.full((layer.dim,), key is not None))
    if not any(mask.any() for mask in masks):
        shapes = ", ".join(f"{key} {tuple(tensors[f'{key}.weight'].shape)}" for key in unused)
        raise WeightsError(f"{path}: matches no layer of {architecture}; it holds {shapes or 'no weights'}")
    report += [f"not used: {key}" for key in unused]
    return PretrainedMean(torch.cat(means), torch.cat(masks), tuple(report))


def _read(path: Path, network: UsersOwn | None) -> dict[str, Tensor]:
    """Read the tensors of an ordinary ``state_dict``, or make those of a posterior's centre."""
    try:
        with safe_open(path, framework="pt") as file:
            is_posterior = (file.metadata() or {}).get("format") in [json.dumps(name) for name in FORMATS]
        if not is_posterior:
            return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path}: is not a safetensors file, or is damaged ({error})") from None
    source, _ = load_weights(path, network=network)
    if source.num_replicas is not None:
        raise WeightsError(
            f"{path}: holds {source.num_replicas} replicas; name the weights of a run with num_replicas=1"
        )
    tensors = {}
    for name, (kernel, bias) in zip(source.architecture.names, source.centre_layers(), strict=True):
        tensors[f"{name}.weight"] = kernel[0].detach()
        if bias is not None:
            tensors[f"{name}.bias"] = bias[0].detach()
    return tensors


def _in_order(name: str) -> list[str | int]:
    return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", name)]


def _fits(tensors: dict[str, Tensor], key: str, shape: tuple[int, ...], has_bias: bool) -> bool:
    weight, bias = tensors[f"{key}.weight"], tensors.get(f"{key}.bias")
    is_same = weight.shape == shape and weight.is_floating_point() and (bias is not None) == has_bias
    return is_same and (bias is None or bias.shape == shape[:1])
