"""Bayesian deep transfer learning: variational posteriors over weights, and what they are worth as priors.

The rooms, from the mathematics up: :mod:`bbb.recursion` and :mod:`bbb.flows` (planar flows), :mod:`bbb.weights`
(distributions over weights), :mod:`bbb.network` (the MLP they parameterise), :mod:`bbb.priors`, :mod:`bbb.objective`
(the ELBO), :mod:`bbb.data`, :mod:`bbb.evaluation`, :mod:`bbb.training`, :mod:`bbb.checkpoint` and :mod:`bbb.pipeline`
(one experiment from settings to result). Nothing in this package knows of Sacred; ``experiment.py`` does.
"""
