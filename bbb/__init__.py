"""Bayesian deep transfer learning: variational posteriors over weights, and what they are worth as priors.

The floors, from the top down; imports run down this list and never up:

- :mod:`bbb.cli`: words, signals, printing, the record; the only floor that knows Sacred.
- :mod:`bbb.studies`: many runs, and what they show.
- :mod:`bbb.runs`: one run, from settings to a result on disk.
- :mod:`bbb.inference`: learn a posterior, judge it, hand it on as a prior.
- :mod:`bbb.networks`: functions of their weights.
- :mod:`bbb.distributions`: posteriors, priors and flows over flat weight vectors.
- :mod:`bbb.data`: examples as tensors.
- :mod:`bbb.system`: the computer, and the mistakes that users must mend.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
