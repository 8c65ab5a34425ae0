"""Bayes by Backprop on MNIST: train a Bayesian neural network and keep a record of it.

Examples:
  python experiment.py with blundell                     as in Blundell et al. 2015, on MNIST
  python experiment.py with blundell dataset=digits8x8   on the embedded digits, without a download
  python experiment.py with best num_hidden=800 experiment_name=wide
  python experiment.py with domain_a                     digits 0-4, then
  python experiment.py with transfer fraction=0.01       digits 5-9 with that posterior as the prior
  python experiment.py with blundell resume=True         go on with the last run that was stopped
  torchrun --nproc-per-node=2 experiment.py with best    each minibatch shared by two processes
  python experiment.py print_config with best            every key, its value and its meaning
  python experiment.py grid with blundell grid="{'lr': [0.001, 0.003], 'seed': [1, 2, 3]}"
  python experiment.py sequence with split_mnist         task after task, each posterior the next one's prior
  python experiment.py runs                              what there is: scores, time and what differs
  python experiment.py report                            the same in the browser, with curves: results/report.html
  python experiment.py reproduce                         every figure of the documentation; fast=True at toy size
  python experiment.py demo with pretrained=best         a page: draw a digit, see what the posterior makes of it
  python experiment.py prune with pretrained=best        the scores without 50 to 99 % of the weights
  python experiment.py regression                        what a posterior says beyond the data; fast=True
  python experiment.py yardstick                         how far posteriors are from the true one; fast=True
  python experiment.py bandit dataset=digits8x8          exploration by posterior samples, beside greedy agents

Named configurations are files in configs/, sequences of tasks in configs/sequences/. Results go to
results/<experiment_name>/.
"""

import sys
import warnings
from pathlib import Path
from typing import Any

with warnings.catch_warnings():  # Sacred imports the deprecated pkg_resources; its users cannot fix that
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
    from sacred import SETTINGS
    from sacred.run import Run

from bbb import cli
from bbb.system import refusing_bad_input

THIS_FILE = Path(__file__).resolve()
CONFIGS = THIS_FILE.parent / "configs"
DEFAULT = CONFIGS / "default.yaml"
NAMED = {path.stem: path for path in sorted(CONFIGS.glob("*.yaml")) if path != DEFAULT}
SEQUENCES = {path.stem: path for path in sorted(CONFIGS.glob("sequences/*.yaml"))}

SETTINGS.CAPTURE_MODE = "sys"  # capturing file descriptors would swallow the progress bar
SETTINGS.HOST_INFO.INCLUDE_CPU_INFO = False  # takes a second, each time

ex = cli.ObservedExperiment("bbb", save_git_info=cli.has_commit(), additional_cli_options=cli.sacred_options())
cli.set_up(ex)
ex.add_config(str(DEFAULT))
for config_name, config_path in (*NAMED.items(), *SEQUENCES.items()):
    ex.add_named_config(config_name, str(config_path))


@ex.option_hook
def before_configuration(options: dict[str, Any]) -> None:
    """Refuse Sacred's options that do not fit this experiment."""
    cli.leave_judging_to_settings(options)


@ex.config_hook
def judge(config: dict[str, Any], command_name: str, logger: object) -> dict[str, Any]:
    """Refuse a bad configuration before anything starts."""
    cli.judge(config, command_name)
    return {}


@ex.main
def main(_config: dict[str, Any], _run: Run) -> dict[str, Any] | None:
    """Train on one task and evaluate; the default command."""
    return cli.train(_config, _run)


@ex.command(unobserved=True)
def print_config(_config: dict[str, Any]) -> None:
    """Print every key with its value and its meaning; * marks what differs from the default."""
    cli.print_config(_config, DEFAULT)


@ex.command(unobserved=True)
def grid(_config: dict[str, Any], _run: Run) -> None:
    """Make the runs of grid={KEY: [VALUE, ...], ...}, many at once, and a table of their results; scheduler=ADDRESS."""
    with refusing_bad_input():
        cli.run_grid(_config, cli.Options.of(_run), THIS_FILE)


@ex.command(unobserved=True)
def sequence(_config: dict[str, Any], _run: Run) -> None:
    """Train on tasks one after the other, posterior after posterior, and test on all; seeds=[1, 2]."""
    with refusing_bad_input():
        cli.sequence(_config, cli.Options.of(_run), THIS_FILE)


@ex.command(unobserved=True)
def reproduce(_run: Run) -> None:
    """Make the missing runs of the figures, and draw the figures; fast=True: at toy size; scheduler=ADDRESS."""
    with refusing_bad_input():
        cli.reproduce(cli.Options.of(_run), THIS_FILE)


@ex.command(unobserved=True)
def figures(_run: Run) -> None:
    """Draw the figures whose runs are completed, and print the commands of the missing runs; fast=True."""
    with refusing_bad_input():
        cli.figures(cli.Options.of(_run), THIS_FILE)


@ex.command(unobserved=True)
def demo(_config: dict[str, Any]) -> None:
    """Write results/demo.html, a page to draw digits on; pretrained=NAME, or [NAME, NAME], names the posteriors."""
    with refusing_bad_input():
        cli.demo(_config)


@ex.command(unobserved=True)
def runs(_run: Run) -> None:
    """Print the runs, newest first, with what differs and their scores; with NAME: of that name alone; json=True."""
    with refusing_bad_input():
        cli.list_runs(cli.Options.of(_run), CONFIGS)


@ex.command(unobserved=True)
def report() -> None:
    """Write all runs as one page that opens in a browser, results/report.html."""
    with refusing_bad_input():
        cli.write_report(CONFIGS)


@ex.command(unobserved=True)
def prune(_config: dict[str, Any], _run: Run) -> None:
    """Print the test scores without up to 99 % of the weights; pretrained=NAME; share=0.95 writes what is left."""
    with refusing_bad_input():
        cli.prune(_config, cli.Options.of(_run))


@ex.command(unobserved=True)
def regression(_run: Run) -> None:
    """Fit Bayes by Backprop and a point network to a noisy curve, and draw both beyond the data; fast=True."""
    with refusing_bad_input():
        cli.regression(cli.Options.of(_run))


@ex.command(unobserved=True)
def yardstick(_run: Run) -> None:
    """Measure families of posteriors against the true one of small problems: figure and table; fast=True."""
    with refusing_bad_input():
        cli.yardstick(cli.Options.of(_run))


@ex.command(unobserved=True)
def bandit(_config: dict[str, Any], _run: Run) -> None:
    """Compare the regret of sampling and greedy agents; dataset=mushroom, digits8x8 or mnist; file=FILE; fast=True."""
    with refusing_bad_input():
        cli.bandit(_config, cli.Options.of(_run))


def command_line(argv: list[str]) -> None:
    """Run a command line, ``argv`` with the program's name first; exit with SystemExit if something goes wrong."""
    cli.run_command_line(ex, NAMED, argv, SEQUENCES)


if __name__ == "__main__":
    command_line(sys.argv)
