"""Learning a posterior, judging it, and handing it on as the prior of the next task."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
