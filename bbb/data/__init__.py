"""Examples as tensors: where they come from, how they are split, and what is done to their pixels."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
