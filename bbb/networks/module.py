"""Ordinary PyTorch modules as architectures: their Linear and Conv2d layers are run with weights from outside."""

import copy
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm

from bbb.networks.architecture import Apply, Architecture
from bbb.networks.layers import Convolution, Dense, Layer, Shape
from bbb.system import InputError


class NetworkError(InputError):
    """A network that cannot be used; the message says which layer is in the way, and what to do."""


class ModuleArchitecture(Architecture):
    """A module whose Linear and Conv2d layers take their weights from a posterior.

    The module is copied, in float32. In the copy each such layer gives up its parameters and runs with those that it is
    handed, in whatever free code the module's ``forward`` is written. Layers that are named as deterministic keep their
    parameters: they are trained as in any network, without prior and posterior.

    Draws and replicas are further rows of the batch as the module sees it, so its ``forward`` must treat the examples
    of a batch one by one.

    Args:
        module: an ordinary module, for inputs ``(B, *input_shape)``.
        input_shape: of one example, such as ``(1, 28, 28)``.
        num_outputs: C; the module must return ``(B, C)``.
        name: what users call the network.
        deterministic: names of layers, or of modules that hold them, that are not to be Bayesian.

    Raises:
        NetworkError: a layer can be neither Bayesian nor kept, a name does not exist, or the module does not map such
            inputs to C outputs, one example at a time.
    """

    def __init__(
        self,
        module: nn.Module,
        input_shape: Shape,
        num_outputs: int,
        name: str = "module",
        deterministic: Sequence[str] = (),
    ) -> None:
        self.name, self.input_shape, self.deterministic = name, tuple(input_shape), tuple(deterministic)
        self.module = copy.deepcopy(module).train().float()
        self._apply: Apply | None = None
        self._rows: torch.Size = torch.Size()  # draws, replicas and batch, as the module's rows
        bayesian = self._find_bayesian()
        called = self._try_out(bayesian, num_outputs)
        self._layers = tuple(_layer(bayesian[path]) for path in called)
        self.paths = tuple(called)
        for i, path in enumerate(called):
            layer = bayesian[path]
            layer.forward = partial(self._run, i)
            layer.register_parameter("weight", None)
            layer.register_parameter("bias", None)

    @property
    def layers(self) -> tuple[Layer, ...]:
        return self._layers

    @property
    def names(self) -> tuple[str, ...]:
        return self.paths

    @property
    def num_inputs(self) -> int:
        return torch.Size(self.input_shape).numel()

    @property
    def fixed(self) -> nn.Module | None:
        return self.module if next(self.module.parameters(), None) is not None else None

    def copy(self) -> "ModuleArchitecture":
        """Copy the architecture with the parameters of its deterministic layers."""
        other = copy.copy(self)
        for path in self.paths:  # a bound method would keep the copy's layers tied to this architecture
            del other.module.get_submodule(path).forward
        other.module = copy.deepcopy(self.module)
        for architecture in (self, other):
            for i, path in enumerate(self.paths):
                architecture.module.get_submodule(path).forward = partial(architecture._run, i)
        return other

    def expand(self, x: Tensor, num_samples: int) -> Tensor:
        return x.expand(num_samples, *x.shape)

    def forward(self, apply: Apply, x: Tensor) -> Tensor:
        rows = x.shape[:-1]
        self._apply, self._rows = apply, rows
        try:
            outputs = self.module(x.reshape(-1, *self.input_shape))
        finally:
            self._apply = None
        return outputs.unflatten(0, rows)

    def __str__(self) -> str:
        kernels = (" x ".join(map(str, layer.shape)) for layer in self.layers)
        return f"{self.name} with kernels of {', '.join(kernels)}"

    def _run(self, number: int, h: Tensor) -> Tensor:
        if self._apply is None:
            raise RuntimeError("a layer of a Bayesian network runs within the network's forward")
        layer = self._layers[number]
        if h.ndim < layer.num_axes + 1:
            raise NetworkError(f"network={self.name}: layer {self.paths[number]} is run without a batch of examples")
        # Rows need not be examples: a layer may be applied to each of several vectors of an example.
        extra = h.shape[1 : h.ndim - layer.num_axes]
        spread = h.unflatten(0, self._rows)
        if extra:
            spread = spread.flatten(len(self._rows) - 1, len(self._rows) - 1 + len(extra))
        outputs = self._apply(number, spread)
        outputs = outputs.flatten(0, len(self._rows) - 1)
        return outputs.unflatten(0, (h.shape[0], *extra)) if extra else outputs

    def _find_bayesian(self) -> dict[str, nn.Module]:
        """Find the layers to be Bayesian, by name, and refuse what cannot be used."""
        bayesian, kept = {}, set()
        for path, layer in self.module.named_modules():
            own = [parameter for parameter in layer._parameters.values() if parameter is not None]
            where = f"network={self.name}: layer {path or 'of the module itself'} ({type(layer).__name__})"
            is_kept = next((d for d in self.deterministic if path == d or path.startswith(f"{d}.")), None)
            if is_kept is not None:
                kept.add(is_kept)
            if isinstance(layer, _InstanceNorm) and layer.track_running_stats:
                raise NetworkError(
                    f"{where}: keeps running means, which are neither weights nor trained; use it with "
                    "track_running_stats=False"
                )
            if isinstance(layer, _NormBase) and not isinstance(layer, _InstanceNorm):
                raise NetworkError(
                    f"{where}: mixes the examples of a batch; use torch.nn.LayerNorm or GroupNorm, named in "
                    "deterministic, or no normalisation"
                )
            if isinstance(layer, _DropoutNd):
                raise NetworkError(f"{where}: the posterior is the noise of this network; leave dropout out")
            if any(isinstance(parameter, nn.parameter.UninitializedParameter) for parameter in own):
                raise NetworkError(f"{where}: has no sizes yet; use a layer that is not lazy")
            if is_kept is not None or not own:
                continue
            is_plain = type(layer) in (nn.Linear, nn.Conv2d) and {*layer._parameters} == {"weight", "bias"}
            if not is_plain or getattr(layer, "padding_mode", "zeros") != "zeros":
                raise NetworkError(
                    f"{where}: cannot be Bayesian; use torch.nn.Linear or Conv2d with zeros as padding, or keep it: "
                    f"deterministic=['{path}']"
                )
            bayesian[path] = layer
        missing = [name for name in self.deterministic if name not in kept]
        if missing:
            names = ", ".join(path for path, _ in self.module.named_modules() if path)
            raise NetworkError(f"deterministic={missing[0]!r}: network={self.name} has no such layer; it has {names}")
        self._refuse_shared(bayesian)
        return bayesian

    def _refuse_shared(self, bayesian: dict[str, nn.Module]) -> None:
        """Refuse a parameter that two layers share, one of them Bayesian: each would have its own in the posterior."""
        owners: dict[nn.Parameter, str] = {}
        for path, layer in self.module.named_modules():
            for parameter in layer._parameters.values():
                if parameter is None:
                    continue
                other = owners.setdefault(parameter, path)
                if other == path or not {path, other} & bayesian.keys():
                    continue
                if {path, other} <= bayesian.keys():
                    raise NetworkError(
                        f"network={self.name}: {other} and {path}: two layers share their weights; use one layer twice "
                        "instead"
                    )
                fixed, drawn = (path, other) if other in bayesian else (other, path)
                raise NetworkError(
                    f"network={self.name}: layer {drawn} is to be Bayesian and shares its weights with {fixed}, which "
                    f"is deterministic; name both in deterministic, or give each its own weights"
                )

    def _try_out(self, bayesian: dict[str, nn.Module], num_outputs: int) -> list[str]:
        """Run the module on made-up examples; returns the names of the Bayesian layers in the order of their calls.

        A layer that is run several times stands where it is run last.
        """
        called: dict[str, None] = {}
        last: list[str] = []
        rows: dict[str, list[int]] = {path: [] for path in bayesian}

        def note(layer: nn.Module, inputs: tuple[Tensor, ...], outputs: object, path: str) -> None:
            last[:] = [path]
            if path in bayesian:
                called.pop(path, None)
                called[path] = None
                rows[path].append(inputs[0].shape[0])

        with_weights = [
            (p, m) for p, m in self.module.named_modules() if any(v is not None for v in m._parameters.values())
        ]
        hooks = [layer.register_forward_hook(partial(note, path=path)) for path, layer in with_weights]
        x = torch.rand(2, *self.input_shape, generator=torch.Generator().manual_seed(0))
        try:
            with torch.no_grad():
                outputs, alone = self.module(x), self.module(x[:1])
        except Exception as error:  # the user's code may raise anything
            reason = " ".join(str(error).split())
            raise NetworkError(
                f"network={self.name}: fails on inputs of shape {tuple(x.shape)}: {type(error).__name__}: {reason:.200}"
            ) from None
        finally:
            for hook in hooks:
                hook.remove()
        if not isinstance(outputs, Tensor) or outputs.shape != (2, num_outputs):
            shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise NetworkError(
                f"network={self.name}: returns {shape} for inputs of shape {tuple(x.shape)}; must be {(2, num_outputs)}"
            )
        if not torch.allclose(outputs[:1], alone, rtol=1e-4, atol=1e-5):
            raise NetworkError(f"network={self.name}: the output of an example depends on the others of its batch")
        for path, found in rows.items():
            half = len(found) // 2  # the first run has two examples, the second one
            if found != [2] * half + [1] * half:
                raise NetworkError(
                    f"network={self.name}: layer {path}: the examples must be the first axis of its input"
                )
        unused = [path for path in bayesian if path not in called]
        if unused:
            raise NetworkError(f"network={self.name}: layer {unused[0]} is never run; remove it")
        if not called or last[0] not in called:
            raise NetworkError(f"network={self.name}: its last layer with weights must be Bayesian")
        num_head = _layer(bayesian[last[0]]).shape[0]
        if num_head != num_outputs:
            raise NetworkError(
                f"network={self.name}: its last layer, {last[0]}, has {num_head} outputs; must have {num_outputs}"
            )
        return list(called)


def _layer(module: nn.Module) -> Layer:
    has_bias = module.bias is not None
    if isinstance(module, nn.Linear):
        return Dense(module.out_features, module.in_features, has_bias)
    if isinstance(module, nn.Conv2d):
        size, stride, dilation = ((int(a), int(b)) for a, b in (module.kernel_size, module.stride, module.dilation))
        padding = (
            module.padding if isinstance(module.padding, str) else (int(module.padding[0]), int(module.padding[1]))
        )
        return Convolution(
            module.out_channels, module.in_channels, size, stride, padding, dilation, module.groups, has_bias
        )
    raise TypeError(f"{type(module).__name__} is no layer that can be Bayesian")
