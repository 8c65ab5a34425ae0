"""The command line: its words, its signals, what it prints, and Sacred's record of what it does."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
