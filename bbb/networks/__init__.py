"""Networks as functions of weights that they do not hold, and files for the posteriors over those weights."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
