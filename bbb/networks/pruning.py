"""Pruning of a network: its kernels lose weights, its biases none."""

from bbb.distributions import FlowedGaussian, Gaussian, Point, Pruned, prune
from bbb.networks.layout import kernel_mask
from bbb.networks.network import BayesianNetwork
from bbb.system import InputError


class PruningError(InputError):
    """A posterior that cannot be pruned, or a share that is none."""


def check_prunable(network: BayesianNetwork) -> Gaussian | Point:
    """Return the posterior of a network whose weights can be ranked.

    Raises:
        PruningError: it has flows, stands for replicas, or is pruned already; the message is one line.
    """
    posterior = network.posterior
    if network.num_replicas is not None:
        raise PruningError(
            f"holds {network.num_replicas} replicas, each of which would lose other weights; prune a run with "
            "num_replicas=1"
        )
    if isinstance(posterior, FlowedGaussian):
        raise PruningError(
            "has normalizing flows, under which a weight has no signal-to-noise ratio of its own; prune a run with "
            "num_flows=0"
        )
    if isinstance(posterior, Pruned):
        raise PruningError("is pruned already; prune the posterior that it was made of")
    if not isinstance(posterior, Gaussian | Point):
        raise PruningError(f"is a {type(posterior).__name__}; only Gaussian posteriors and points can be pruned")
    return posterior


def pruned_network(network: BayesianNetwork, share: float) -> BayesianNetwork:
    """Remove a share of a network's weights: those with the lowest signal-to-noise ratio |mean| / std.

    All weights of all kernels are ranked together (Blundell et al. 2015, section 5.1, arXiv 1505.05424). Points, with
    dropout or without, have no std, and their weights are ranked by |mean|. Biases are few and stay. Layers without a
    posterior are not touched.

    Args:
        network: the network.
        share: of the weights of the kernels, in [0, 1).

    Returns:
        The same network with another posterior, a copy.

    Raises:
        PruningError: as in :func:`check_prunable`; or the share is not in [0, 1).
    """
    posterior = check_prunable(network)
    if not 0.0 <= share < 1.0:
        raise PruningError(f"share={share}: must be at least 0 and less than 1")
    kernels = kernel_mask(network.architecture.layers).to(posterior.device)
    return network.with_posterior(prune(posterior, share, kernels))
