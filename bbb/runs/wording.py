"""The scores of a run in words, with their units."""

from collections.abc import Mapping
from typing import Any

_WORDS = {  # of a result: the name in words, the format with the unit
    "test_error": ("error", "{:.2f} %"),
    "test_rmse": ("RMSE", "{:.4g}"),
    "test_nll": ("NLL", "{:.4f} nats"),
    "test_ece": ("calibration error (ECE)", "{:.2f} %"),
    "test_brier": ("Brier score", "{:.4f}"),
    "test_coverage_50": ("inside the 50 % interval", "{:.1f} %"),
    "test_coverage_90": ("inside the 90 % interval", "{:.1f} %"),
    "test_error_mean_weights": ("error", "{:.2f} %"),
    "test_rmse_mean_weights": ("RMSE", "{:.4g}"),
    "elbo": ("ELBO", "{:.4g} nats per training example"),
    "kl": ("KL from the prior", "{:,.0f} nats"),
    "noise_std": ("standard deviation of the noise", "{:.4g}"),
    "prior_inflation": ("variances of the source's posterior times", "{:.4g}"),
    "source_error": ("error on the source's test set", "{:.2f} %"),
}
_LINES = {  # what the lines are about, and the scores in each
    "test set": (
        *("test_error", "test_rmse", "test_nll", "test_ece", "test_brier", "test_coverage_50", "test_coverage_90"),
    ),
    "with the centre of the posterior in place of draws": ("test_error_mean_weights", "test_rmse_mean_weights"),
    "evidence": ("elbo", "kl"),
    "noise": ("noise_std",),
    "prior": ("prior_inflation",),
    "source": ("source_error",),
}


def in_words(result: Mapping[str, Any]) -> list[str]:
    """Say what a run has reached, a line for each kind of score, and how long it took.

    Args:
        result: as :meth:`bbb.runs.Result.as_dict` gives it.
    """
    lines = []
    for about, names in _LINES.items():
        parts = [f"{_WORDS[name][0]} {_WORDS[name][1].format(result[name])}" for name in names if name in result]
        if parts:
            lines.append(f"{about}: {', '.join(parts)}")
    if replicas := result.get("replicas"):
        main = "test_error" if "test_error" in result else "test_rmse"
        each = ", ".join(_WORDS[main][1].format(replica[main]) for replica in replicas)
        lines.append(f"the {len(replicas)} networks alone: {_WORDS[main][0]} {each}")
    epochs = result["num_epochs"]
    lines.append(f"time: {epochs} epoch{'s' * (epochs != 1)} and the test in {duration(result['seconds'])}")
    return lines


def duration(seconds: float) -> str:
    """Write a time as people do: ``3.2 s``, ``4 min 10 s``, ``2 h 5 min``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
