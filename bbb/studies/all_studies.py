"""The studies with commands of their own, in the order in which ``reproduce`` makes them."""

from bbb.studies.bandit_study import BanditStudy
from bbb.studies.regression import RegressionStudy
from bbb.studies.study import Study
from bbb.studies.yardstick import YardstickStudy


def all_studies(fast: bool) -> list[Study]:
    """List the studies that are not made of runs.

    Args:
        fast: at toy size.
    """
    return [RegressionStudy(fast), YardstickStudy(fast), BanditStudy(fast=fast)]
