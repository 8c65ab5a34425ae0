"""Distributions over flat weight vectors: posteriors, priors, the flows on them and the KL between them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
