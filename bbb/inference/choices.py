"""The ways to train among which users choose; free of PyTorch, so that a configuration is judged at once."""

from typing import Literal

BetaType = Literal["blundell", "standard", "soenderby", "none"]
Estimator = Literal["weights", "local"]
Head = Literal["fresh", "keep", "auto"]
LrSchedule = Literal["constant", "cosine"]
OptimizerName = Literal["adam", "sgd"]
Precision = Literal["float32", "tf32", "bfloat16"]
Start = Literal["prior", "narrow", "random"]
