"""The rank of this process in a run. No PyTorch here, so that the rank is known before anything is loaded."""

import os


def rank() -> int:
    """Return the number of this process among those that ``torchrun`` started; 0 without it."""
    return int(os.environ.get("RANK", "0"))
