"""Which of the processes of a run this one is; free of PyTorch, so that it can be asked before anything is loaded."""

import os


def rank() -> int:
    """Return the number of this process among those that ``torchrun`` started; 0 without it."""
    return int(os.environ.get("RANK", "0"))
