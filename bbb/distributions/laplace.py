"""The diagonal Laplace approximation: a point that knows how sure the data are of each weight."""

import torch
from torch import Tensor

from bbb.distributions.gaussian import Gaussian
from bbb.distributions.point import Point


class Laplace(Point):
    r"""A point at the maximum of the posterior, with the curvature there (MacKay 1992).

    .. math:: p(w | D) \approx N(\mu, \mathrm{diag}(\lambda)^{-1})

    It predicts with the mean alone, as a :class:`Point` does, and is trained as one. The curvature makes it the prior
    of a next task, the Gaussian of :meth:`widened`. Training under this prior is elastic weight consolidation
    (Kirkpatrick et al. 2017, arXiv 1612.00796), in its form with one penalty for all earlier tasks (Huszár 2017, arXiv
    1712.03847). As with any point, -log p of the mean stands in place of the KL.

    Args:
        mean: mu, ``(D,)``.
        precision: lambda, ``(D,)``, above 0; None as long as it was not measured, which is kept as zeros.

    Attributes:
        precision: a buffer ``(D,)``.
    """

    precision: Tensor

    def __init__(self, mean: Tensor, precision: Tensor | None = None) -> None:
        super().__init__(mean)
        if precision is not None and precision.shape != mean.shape:
            raise ValueError(
                f"precision: has shape {tuple(precision.shape)}; must have that of the mean, {tuple(mean.shape)}"
            )
        self.register_buffer("precision", torch.zeros_like(mean) if precision is None else precision)

    @property
    def makes_a_prior(self) -> bool:
        """Whether the precision was measured."""
        return bool((self.precision > 0.0).all())

    def gaussian(self) -> Gaussian:
        """Return the approximation as a distribution, N(mean, 1 / precision).

        Raises:
            ValueError: the precision was not measured.
        """
        if not self.makes_a_prior:
            raise ValueError("precision: is not above 0 for all weights; measure the curvature first")
        return Gaussian(self.mean.detach().clone(), -0.5 * self.precision.log())

    def widened(self, inflation: float = 1.0, floor: float = 0.0) -> Gaussian:  # type: ignore[override]  # a point is no prior
        """Make the prior of the next task: the approximation, with larger variances and without gradients."""
        return self.gaussian().widened(inflation, floor)

    def selected(self, kept: Tensor) -> "Laplace":
        return Laplace(self.mean.detach()[kept], self.precision[kept])

    def split(self, num_first: int) -> tuple["Laplace", "Laplace"]:
        means = self.mean.detach().tensor_split([num_first], dim=-1)
        precisions = self.precision.tensor_split([num_first], dim=-1)
        first, rest = (Laplace(m.clone(), p.clone()) for m, p in zip(means, precisions, strict=True))
        return first, rest
