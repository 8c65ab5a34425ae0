from .runs import Posterior as Posterior
from .runs import Prior as Prior
from .runs import fit as fit
from .runs import load as load
