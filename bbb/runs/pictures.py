"""The test images that a run got most wrong, as a bounded number of small pictures."""

import base64
import io
import math
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib.image import imsave
from torch import Tensor

from bbb.data import Split

NUM_WORST = 4  # pictures of each class
MAX_PICTURES = 40
MAX_BYTES = 16_000  # of all pictures of a run, before base64
MAX_SIDE = 32  # pixels


def worst(log_probs: Tensor, predicted: Tensor, test: Split) -> list[dict[str, Any]]:
    """Show of each class the test images whose label has the least probability, as small pictures.

    Of many classes, those with the most errors come first. Examples that are no images are not shown.
    """
    if not _is_image(test.input_shape):
        return []
    nll = -log_probs.gather(1, test.labels.unsqueeze(1)).squeeze(1)
    num_classes = log_probs.shape[1]
    num_each = max(1, min(NUM_WORST, MAX_PICTURES // num_classes))
    index: list[int] = []
    for label in range(num_classes):
        members = (test.labels == label).nonzero().squeeze(1)
        index += members[nll[members].topk(min(num_each, len(members))).indices].tolist()
    if len(index) > MAX_PICTURES:
        index = sorted(index, key=lambda i: -nll[i].item())[:MAX_PICTURES]
    pictures, room = [], MAX_BYTES
    for i in index:
        png = _png(test.images[i].view(test.input_shape))
        room -= len(png)
        if room < 0:
            break
        pictures.append(
            {
                "index": i,
                "label": int(test.labels[i]),
                "predicted": int(predicted[i]),
                "prob": float(f"{math.exp(-nll[i].item()):.4g}"),
                "png": base64.b64encode(png).decode(),
            }
        )
    return pictures


def _is_image(shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 or (len(shape) == 3 and shape[0] in (1, 3))


def _png(image: Tensor) -> bytes:
    """Draw an image ``(H, W)`` or ``(1 or 3, H, W)``, of bytes or of any floats, as a small PNG file."""
    pixels = image.detach().cpu().float().view(-1, *image.shape[-2:])
    if image.dtype != torch.uint8:
        low, high = pixels.min(), pixels.max()
        pixels = 255.0 * (pixels - low) / (high - low).clamp(min=1e-12)
    if max(pixels.shape[-2:]) > MAX_SIDE:
        scale = MAX_SIDE / max(pixels.shape[-2:])
        height, width = (max(1, round(scale * side)) for side in pixels.shape[-2:])
        pixels = F.adaptive_avg_pool2d(pixels, (height, width))
    shown = pixels.round().to(torch.uint8).permute(1, 2, 0).expand(-1, -1, 3).contiguous().numpy()
    file = io.BytesIO()
    nothing: dict[str, Any] = {"Software": None}  # about matplotlib, which would double the smallest files
    imsave(file, shown, format="png", metadata=nothing, pil_kwargs={"optimize": True})
    return file.getvalue()
