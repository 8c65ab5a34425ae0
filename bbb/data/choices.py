"""The data sets that users choose among; free of PyTorch, so that a configuration is judged at once."""

from typing import Literal

DatasetName = Literal["mnist", "fashion_mnist", "kmnist", "digits8x8"]
