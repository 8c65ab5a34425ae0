"""The multilayer perceptron."""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from torch import Tensor

from bbb.networks.architecture import Apply, Architecture
from bbb.networks.layers import Dense, Layer


@dataclass(frozen=True)
class MLP(Architecture):
    """Fully connected layers with ReLU units between them.

    Args:
        sizes: units of each layer from input to output, such as ``(784, 400, 400, 10)``.

    Raises:
        ValueError: fewer than two sizes, or one below 1.
    """

    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", tuple(self.sizes))
        if len(self.sizes) < 2 or min(self.sizes) < 1:
            raise ValueError(f"sizes={self.sizes}: must be at least two positive numbers, from input to output")

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        return tuple(Dense(num_out, num_in) for num_in, num_out in pairwise(self.sizes))

    def forward(self, apply: Apply, x: Tensor) -> Tensor:
        h = apply(0, x)
        for i in range(1, len(self.sizes) - 1):
            h = apply(i, h.relu_())
        return h

    @property
    def names(self) -> tuple[str, ...]:
        """As in ``torch.nn.Sequential(Linear, ReLU, Linear, ...)``."""
        return tuple(str(2 * i) for i in range(len(self.layers)))

    @property
    def num_inputs(self) -> int:
        return self.sizes[0]

    def __str__(self) -> str:
        return f"{'-'.join(map(str, self.sizes))} units"
