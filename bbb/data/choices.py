"""The ways to normalise inputs among which users choose; free of PyTorch, so a configuration is judged at once."""

from typing import Literal

NormalizationName = Literal["auto", "pixels", "standardize", "none"]
