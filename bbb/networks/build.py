"""Networks by name: those of this project, and those of users' own files."""

import importlib.util
import inspect
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from bbb.networks.architecture import Architecture
from bbb.networks.choices import USERS_OWN
from bbb.networks.layers import Shape
from bbb.networks.lenet import lenet
from bbb.networks.mlp import MLP
from bbb.networks.module import ModuleArchitecture, NetworkError


def build(
    name: str,
    input_shape: Shape,
    num_outputs: int,
    hidden: Sequence[int] = (),
    deterministic: Sequence[str] = (),
) -> Architecture:
    """Build a network for inputs of a shape.

    Args:
        name: ``mlp``, ``lenet``, or ``FILE.py:FUNCTION``, a user's function ``(input_shape, num_outputs)`` that returns
            an :class:`Architecture` or an ordinary module. That file is run.
        input_shape: of one example.
        num_outputs: C.
        hidden: units of the hidden layers of ``mlp``.
        deterministic: names of layers of a module that are not to be Bayesian.

    Raises:
        NetworkError: there is no such network, or it cannot be used.
    """
    if name == "mlp":
        architecture: Architecture = MLP((math.prod(input_shape), *hidden, num_outputs))
    elif name == "lenet":
        architecture = lenet(input_shape, num_outputs, deterministic)
    else:
        architecture = _build_users_own(name, input_shape, num_outputs, deterministic)
    if deterministic and not isinstance(architecture, ModuleArchitecture):
        raise NetworkError(f"deterministic={list(deterministic)}: all layers of network={name} are Bayesian; use []")
    return architecture


def _build_users_own(name: str, input_shape: Shape, num_outputs: int, deterministic: Sequence[str]) -> Architecture:
    made = _call(name, _load_function(name), input_shape, num_outputs)
    if isinstance(made, nn.Module):
        return ModuleArchitecture(made, input_shape, num_outputs, name, deterministic)
    if not isinstance(made, Architecture):
        raise NetworkError(
            f"network={name}: returns {type(made).__name__}; must return a torch.nn.Module or an Architecture"
        )
    num_inputs = math.prod(input_shape)
    if (made.num_inputs, made.num_outputs) != (num_inputs, num_outputs):
        raise NetworkError(
            f"network={name}: takes {made.num_inputs} numbers and has {made.num_outputs} outputs; the data need "
            f"{num_inputs} and {num_outputs}"
        )
    return made


def _load_function(name: str) -> Any:
    """Run the user's file, and return the function in it."""
    parts = USERS_OWN.fullmatch(name)
    if parts is None:
        raise NetworkError(f"network={name}: must be mlp, lenet or FILE.py:FUNCTION, as in my_net.py:make")
    path = Path(parts["file"])
    if not path.is_file():
        raise NetworkError(f"network={name}: there is no file {path}")
    spec = importlib.util.spec_from_file_location(f"users_own_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise NetworkError(f"network={name}: {path} cannot be read as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's code may raise anything
        raise NetworkError(f"network={name}: {path} cannot be run: {_reason(error)}") from None
    function = getattr(module, parts["function"], None)
    if not callable(function):
        functions = [key for key, value in vars(module).items() if inspect.isfunction(value) and key[0] != "_"]
        raise NetworkError(
            f"network={name}: {path} has no function {parts['function']}; it has {', '.join(functions) or 'none'}"
        )
    return function


def _call(name: str, function: Any, input_shape: Shape, num_outputs: int) -> Any:
    try:
        return function(tuple(input_shape), num_outputs)
    except Exception as error:  # the user's code may raise anything
        raise NetworkError(
            f"network={name}: called with input_shape={tuple(input_shape)} and num_outputs={num_outputs} it fails: "
            f"{_reason(error)}"
        ) from None


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split()):.200}"
