"""The choices of studies among which users choose; free of PyTorch, so that a command is judged at once."""

from typing import Literal

ContextsName = Literal["mushroom", "digits8x8", "mnist"]
