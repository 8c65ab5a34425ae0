"""The names of distributions in a configuration. No PyTorch here, so that a configuration is checked quickly."""

from typing import Literal

FlowName = Literal["planar", "matrix_planar"]
PosteriorName = Literal["gaussian", "point", "dropout", "laplace"]
PriorName = Literal["gaussian", "scale_mixture", "ard", "posterior", "pretrained"]
