"""The contract of all networks: which layers there are, and how inputs flow through them."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Self

from torch import Tensor, nn

from bbb.networks.layers import Layer, Shape

Apply = Callable[[int, Tensor], Tensor]


class Architecture(ABC):
    """A network as a function of weights that it does not hold.

    Sizes, fan-in, the layout of the flat weight vector and the head all follow from ``layers``.
    """

    @property
    @abstractmethod
    def layers(self) -> tuple[Layer, ...]:
        """The layers whose weights the posterior is over, the head last."""

    @abstractmethod
    def forward(self, apply: Apply, x: Tensor) -> Tensor:
        """Run the network.

        It is written once, and serves drawn weights and the local reparameterisation alike. Axes are counted from the
        last one, since draws and replicas are leading axes.

        Args:
            apply: ``apply(i, h)`` runs layer i on ``h (..., *in)``. Its result belongs to the caller, who may overwrite
                it.
            x: inputs ``(..., B, P)``.

        Returns:
            Outputs ``(..., B, C)``.
        """

    @property
    @abstractmethod
    def num_inputs(self) -> int:
        """P, the numbers in one input."""

    @abstractmethod
    def __str__(self) -> str:
        """Put the layers into words, as in ``784-400-400-10 units``."""

    @property
    def names(self) -> tuple[str, ...]:
        """The layers' names, as in an ordinary ``state_dict``."""
        return tuple(str(i) for i in range(len(self.layers)))

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """``(out, *rest)`` of each layer's kernel."""
        return tuple(layer.shape for layer in self.layers)

    @property
    def num_outputs(self) -> int:
        """C, the outputs of the head."""
        return self.layers[-1].shape[0]

    @property
    def fixed(self) -> nn.Module | None:
        """What else is trained, without prior and posterior: layers that are not Bayesian. None where all are."""
        return None

    def copy(self) -> Self:
        """Copy the architecture with the parameters of layers that are not Bayesian."""
        return self

    def expand(self, x: Tensor, num_samples: int) -> Tensor:
        """Give inputs ``(..., B, P)`` an axis of S draws, where :meth:`forward` cannot take a layer that adds one."""
        return x
