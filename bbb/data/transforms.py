"""Operations on pixels: scaling, rotation, input noise and shifts."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

ROTATED_AT_ONCE = 5_000  # images; bounds memory
PIXEL_SCALE = 126.0  # Blundell et al. 2015, section 5.1: "preprocess the pixels by dividing values by 126"


class Normalization(nn.Module):
    """The one place where raw inputs become those of a network: x = (raw - shift) * scale.

    Args:
        shift: ``(P,)``, or None for 0.
        scale: ``(P,)``, or a number; by default pixels 0..255 become 0..2.02, as in Blundell et al. 2015.
    """

    shift: Tensor | None

    def __init__(self, shift: Tensor | None = None, scale: Tensor | float = 1.0 / PIXEL_SCALE) -> None:
        super().__init__()
        self.register_buffer("shift", shift, persistent=False)
        self.scale: Tensor | float
        if isinstance(scale, Tensor):
            self.register_buffer("scale", scale, persistent=False)
        else:
            self.scale = scale

    def forward(self, images: Tensor) -> Tensor:
        """Normalise raw inputs ``(..., P)``: bytes, or floats."""
        return images * self.scale if self.shift is None else (images - self.shift) * self.scale


def standardization(images: Tensor, input_shape: tuple[int, ...]) -> Normalization:
    """Give inputs the mean 0 and the standard deviation 1: of each channel for images, else of each number.

    Args:
        images: the training set's, ``(N, P)``.
        input_shape: of one example; three numbers are channels, height and width.
    """
    channels = input_shape[0] if len(input_shape) == 3 else images.shape[1]
    by_channel = images.double().unflatten(1, (channels, -1))
    std, mean = torch.std_mean(by_channel, (0, 2), correction=0)
    scale = torch.where(std > 0, 1.0 / std, 1.0)  # what never changes stays as it is, at 0
    repeats = images.shape[1] // channels
    return Normalization(mean.float().repeat_interleave(repeats), scale.float().repeat_interleave(repeats))


def rotate_images(images: Tensor, degrees: float, channels: int = 1) -> Tensor:
    """Turn every image about its centre, counter-clockwise, with bilinear interpolation and empty corners.

    Args:
        images: square images, flattened ``(N, P)``.
        degrees: the angle.
        channels: of each image.

    Returns:
        ``(N, P)``.
    """
    if degrees == 0.0:
        return images
    from torchvision.transforms import InterpolationMode, functional  # here, since it takes seconds to import

    side = math.isqrt(images.shape[1] // channels)
    parts = images.view(-1, channels, side, side).split(ROTATED_AT_ONCE)
    turned = [functional.rotate(part, degrees, InterpolationMode.BILINEAR) for part in parts]
    return torch.cat(turned).flatten(1)


def drop_pixels(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Set a random share of the inputs to zero and scale up the rest, as dropout does (Srivastava et al. 2014).

    Sixteen random bits decide each pixel, so one random integer serves four pixels. This is many times faster than one
    Bernoulli draw per pixel.

    Args:
        x: inputs ``(B, P)``.
        share: probability of dropping a pixel, in [0, 1), rounded to a multiple of 2^-16.
        generator: source of the mask, on the device of x.
    """
    if share == 0.0:
        return x
    bits = torch.empty(math.ceil(x.numel() / 4), dtype=torch.int64, device=x.device)
    bits.random_(-(2**63), None, generator=generator)
    keep = bits.view(torch.int16)[: x.numel()].view_as(x) >= round(share * 2**16) - 2**15
    return (x * keep.to(x.dtype)).mul_(1.0 / (1.0 - share))


def shift_images(images: Tensor, pixels: int, input_shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Move each image by a random whole number of pixels along each axis; what comes in from outside is 0.

    Args:
        images: raw images, flattened ``(B, P)``.
        pixels: both moves are uniform on -pixels..pixels.
        input_shape: of one image; height and width come last.
        generator: source of the moves, on the device of the images.

    Returns:
        ``(B, P)``.
    """
    if pixels == 0:
        return images
    num, (height, width) = len(images), input_shape[-2:]
    padded = nn.functional.pad(images.view(num, -1, height, width), [pixels] * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (B, C, moves down, moves right, H, W): a view
    down, right = torch.randint(2 * pixels + 1, (2, num), generator=generator, device=images.device)
    return windows[torch.arange(num, device=images.device), :, down, right].flatten(1)
