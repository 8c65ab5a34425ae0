"""The contract of all networks: their layers, and how inputs flow through them."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor

from bbb.networks.layout import Shape

Apply = Callable[[int, Tensor], Tensor]


class Architecture(ABC):
    """A network as a function of weights that it does not hold.

    Sizes, fan-in, the layout of the flat weight vector and the head all follow from ``shapes``.
    """

    @property
    @abstractmethod
    def shapes(self) -> tuple[Shape, ...]:
        """``(out, *rest)`` of each layer's kernel, the head last. A layer has a bias for each output."""

    @abstractmethod
    def forward(self, apply: Apply, x: Tensor) -> Tensor:
        """Run the network.

        The same code serves drawn weights and the local reparameterisation. Count axes from the last one, since draws
        and replicas are leading axes.

        Args:
            apply: ``apply(i, h)`` runs layer i on ``h (..., in)``. Its result belongs to the caller, who may overwrite
                it.
            x: inputs ``(..., B, P)``.

        Returns:
            Outputs ``(..., B, C)``.
        """

    @property
    @abstractmethod
    def num_inputs(self) -> int:
        """P, the numbers in one input."""

    @property
    def num_outputs(self) -> int:
        """C, the outputs of the head."""
        return self.shapes[-1][0]

    @abstractmethod
    def __str__(self) -> str:
        """Describe the layers, as in ``784-400-400-10 units``."""
