"""The names of training options in a configuration. No PyTorch here, so that a configuration is checked quickly."""

from typing import Literal

BetaType = Literal["blundell", "standard", "soenderby", "none"]
Estimator = Literal["weights", "local"]
Head = Literal["fresh", "keep", "auto"]
LikelihoodName = Literal["categorical", "gaussian"]
LrSchedule = Literal["constant", "cosine"]
OptimizerName = Literal["adam", "sgd"]
Precision = Literal["float32", "tf32", "bfloat16"]
Start = Literal["prior", "narrow", "random"]
