"""A network as a list of operations that a browser can run."""

from typing import Any

from torch import nn

from bbb.networks import MLP, Architecture, Convolution, Dense, Layer, ModuleArchitecture


def operations(architecture: Architecture) -> list[dict[str, Any]]:
    """Write a network down as the operations that a browser runs one after another.

    Raises:
        ValueError: it has another operation than those of ``mlp`` and ``lenet``.
    """
    if isinstance(architecture, MLP):
        found = [_operation(layer) for layer in architecture.layers]
        return [part for each in found[:-1] for part in (each, {"kind": "relu"})] + found[-1:]
    if not isinstance(architecture, ModuleArchitecture):
        raise ValueError(f"architecture: cannot write down {architecture}")
    layers, found = iter(architecture.layers), []
    for module in architecture.module.children():
        if isinstance(module, nn.Linear | nn.Conv2d):
            found.append(_operation(next(layers)))
        elif isinstance(module, nn.MaxPool2d) and (module.stride, module.padding) == (module.kernel_size, 0):
            found.append({"kind": "pool", "size": module.kernel_size})
        elif isinstance(module, nn.ReLU):
            found.append({"kind": "relu"})
        elif not isinstance(module, nn.Flatten):
            raise ValueError(f"architecture: cannot write down {module}")
    return found


def _operation(layer: Layer) -> dict[str, Any]:
    if isinstance(layer, Dense):
        return {"kind": "dense", "out": layer.num_out, "in": layer.num_in, "bias": layer.has_bias}
    plain = Convolution(layer.shape[0], layer.shape[1], (layer.shape[2], layer.shape[3]), has_bias=layer.has_bias)
    if layer != plain:
        raise ValueError(f"architecture: cannot write down {layer}")
    return {"kind": "convolution", "out": plain.num_out, "in": plain.num_in, "size": plain.size, "bias": plain.has_bias}
