"""The layers that have weights: what each does with a kernel and a bias that it does not hold."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Shape = tuple[int, ...]
LayerWeights = tuple[Tensor, Tensor | None]
LEAST_VARIANCE = 1e-30  # of an activation: inputs of zeros have none, where the square root has no gradient


class Layer(ABC):
    """A linear map of its input, for any kernel and bias; what weights and local reparameterisation have in common.

    Attributes:
        has_bias: whether there is a bias for each of the outputs.
        num_axes: the axes of one input, behind the batch: 1 for vectors, 3 for images of several channels.
        shares_weights: whether several outputs of one example use the same weights.
    """

    has_bias: bool
    num_axes: int
    shares_weights: bool

    @property
    @abstractmethod
    def shape(self) -> Shape:
        """``(out, *rest)`` of the kernel; to a flow it is a matrix of ``out`` rows."""

    @property
    def fan_in(self) -> int:
        """The inputs of one output."""
        return math.prod(self.shape[1:])

    @property
    def dim(self) -> int:
        """The weights, biases included."""
        return math.prod(self.shape) + self.shape[0] * self.has_bias

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """Rows and columns of the weights as a matrix, with the bias as one more column."""
        return self.shape[0], self.fan_in + self.has_bias

    @abstractmethod
    def apply(self, h: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        """Run the layer under one set of weights, or under R of them.

        Args:
            h: inputs ``(..., B, *in)``, or ``(..., R, B, *in)``.
            kernel: ``(out, *rest)``, or ``(R, out, *rest)``.
            bias: ``(out,)``, or ``(R, out)``; None where there is none.

        Returns:
            ``(..., B, *out)``, or ``(..., R, B, *out)``.
        """

    def gradients(
        self, h: Tensor, kernel: Tensor, bias: Tensor | None, grad: Tensor, out: LayerWeights, with_input: bool
    ) -> Tensor | None:
        """Carry a gradient of the outputs of :meth:`apply` back. Any layer can; a member may know a faster way.

        Args:
            h: as in :meth:`apply`.
            kernel: as in :meth:`apply`.
            bias: as in :meth:`apply`.
            grad: the gradient at the outputs, of their shape.
            out: where the gradients at the kernel and the bias are written.
            with_input: whether the gradient at the inputs is needed.

        Returns:
            The gradient at ``h``; None if it is not needed.
        """
        values = [None if value is None else value.detach().requires_grad_() for value in (h, kernel, bias)]
        with torch.enable_grad():
            outputs = self.apply(*values)  # type: ignore[arg-type]  # the first two are tensors
        needed = [value for value in (values if with_input else values[1:]) if value is not None]
        found = iter(torch.autograd.grad(outputs, needed, grad))
        grad_h = next(found) if with_input else None
        _write(out, next(found), None if bias is None else next(found))
        return grad_h

    @abstractmethod
    def apply_batched(self, h: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        """Run the layer under N sets of weights at once.

        Args:
            h: inputs ``(N, B, *in)``.
            kernel: ``(N, out, *rest)``.
            bias: ``(N, out)``, or None.

        Returns:
            ``(N, B, *out)``.
        """


@dataclass(frozen=True)
class Dense(Layer):
    """A fully connected layer: vectors of ``num_in`` numbers to vectors of ``num_out``."""

    num_out: int
    num_in: int
    has_bias: bool = True
    num_axes = 1
    shares_weights = False

    @property
    def shape(self) -> Shape:
        return self.num_out, self.num_in

    def apply(self, h: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        if kernel.ndim == 2:
            return F.linear(h, kernel, bias)
        outputs = torch.matmul(h, kernel.transpose(-1, -2))
        return outputs if bias is None else outputs + bias.unsqueeze(-2)

    def gradients(
        self, h: Tensor, kernel: Tensor, bias: Tensor | None, grad: Tensor, out: LayerWeights, with_input: bool
    ) -> Tensor | None:
        if kernel.ndim > 2:
            return super().gradients(h, kernel, bias, grad, out, with_input)
        rows, inputs, (out_kernel, out_bias) = grad.flatten(0, -2), h.flatten(0, -2), out
        if out_kernel.dtype == rows.dtype:
            torch.mm(rows.t(), inputs, out=out_kernel)
            if out_bias is not None:
                torch.sum(rows, 0, out=out_bias)
        else:
            _write(out, rows.t() @ inputs, rows.sum(0))
        return (rows @ kernel).view_as(h) if with_input else None

    def apply_batched(self, h: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        if bias is None:
            return torch.bmm(h, kernel.transpose(1, 2))
        return torch.baddbmm(bias.unsqueeze(1), h, kernel.transpose(1, 2))


@dataclass(frozen=True)
class Convolution(Layer):
    """A two-dimensional convolution, as :class:`torch.nn.Conv2d` with zeros as padding.

    Args:
        num_out: channels of the output.
        num_in: channels of the input.
        size: height and width of the kernel.
        stride: rows and columns from one output to the next.
        padding: rows and columns of zeros around the image, or ``same`` or ``valid``.
        dilation: rows and columns from one number of the kernel to the next.
        groups: groups of channels that do not see each other.
        has_bias: whether each output channel has a bias.
    """

    num_out: int
    num_in: int
    size: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] | str = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    has_bias: bool = True
    num_axes = 3
    shares_weights = True

    @property
    def shape(self) -> Shape:
        return self.num_out, self.num_in // self.groups, *self.size

    def apply(self, h: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        if kernel.ndim == 4:
            outputs = self._convolve(h.flatten(0, -4), kernel, bias, self.groups)
            return outputs.unflatten(0, h.shape[:-3])
        draws = h.shape[:-4]  # (..., R)
        kernel, bias = kernel.expand(*draws, *kernel.shape[1:]), None if bias is None else bias.expand(*draws, -1)
        outputs = self.apply_batched(
            h.flatten(0, -5), kernel.flatten(0, -5), None if bias is None else bias.flatten(0, -2)
        )
        return outputs.unflatten(0, draws)

    def gradients(
        self, h: Tensor, kernel: Tensor, bias: Tensor | None, grad: Tensor, out: LayerWeights, with_input: bool
    ) -> Tensor | None:
        if kernel.ndim > 4 or isinstance(self.padding, str):
            return super().gradients(h, kernel, bias, grad, out, with_input)
        grad_h, *grads = torch.ops.aten.convolution_backward(
            grad.flatten(0, -4),
            h.flatten(0, -4),
            kernel,
            None if bias is None else [self.num_out],
            self.stride,
            self.padding,
            self.dilation,
            False,
            [0, 0],
            self.groups,
            [with_input, True, bias is not None],
        )
        _write(out, *grads)
        return grad_h.view_as(h) if with_input else None

    def apply_batched(self, h: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        num = len(kernel)
        channels = h.transpose(0, 1).flatten(1, 2)  # (B, N C, H, W): N groups that do not see each other
        flat_bias = None if bias is None else bias.flatten()
        outputs = self._convolve(channels, kernel.flatten(0, 1), flat_bias, num * self.groups)
        return outputs.unflatten(1, (num, self.num_out)).transpose(0, 1)

    def _convolve(self, h: Tensor, kernel: Tensor, bias: Tensor | None, groups: int) -> Tensor:
        return F.conv2d(h, kernel, bias, self.stride, self.padding, self.dilation, groups)


def _write(out: LayerWeights, grad_kernel: Tensor, grad_bias: Tensor | None) -> None:
    out_kernel, out_bias = out
    out_kernel.copy_(grad_kernel)
    if out_bias is not None and grad_bias is not None:
        out_bias.copy_(grad_bias)
