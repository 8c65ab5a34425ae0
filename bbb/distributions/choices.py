"""The names by which users choose among distributions; free of PyTorch, so that a configuration is judged at once."""

from typing import Literal

FlowName = Literal["planar", "matrix_planar"]
PriorName = Literal["gaussian", "scale_mixture", "posterior"]
