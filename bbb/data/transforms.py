"""Operations on pixels: scaling, rotation, input noise."""

import math

import torch
from torch import Tensor

ROTATED_AT_ONCE = 5_000  # images; bounds memory
PIXEL_SCALE = 126.0  # Blundell et al. 2015, section 5.1: "preprocess the pixels by dividing values by 126"


def to_float(images: Tensor) -> Tensor:
    """Scale pixels from 0..255 to 0..2.02 as Blundell et al. 2015 do; pixels are scaled only here."""
    return images * (1.0 / PIXEL_SCALE)


def rotate_images(images: Tensor, degrees: float) -> Tensor:
    """Turn every image about its centre, counter-clockwise, with bilinear interpolation and empty corners.

    Args:
        images: square images, flattened ``(N, P)``.
        degrees: the angle.

    Returns:
        ``(N, P)``.
    """
    if degrees == 0.0:
        return images
    from torchvision.transforms import InterpolationMode, functional  # here, since it takes seconds to import

    side = math.isqrt(images.shape[1])
    parts = images.view(-1, 1, side, side).split(ROTATED_AT_ONCE)
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
    return (x * keep).mul_(1.0 / (1.0 - share))
