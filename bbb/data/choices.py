"""The names of the data sets. No PyTorch here, so that a configuration is checked quickly."""

from typing import Literal

DatasetName = Literal["mnist", "fashion_mnist", "kmnist", "digits8x8"]
