"""Measure everything that a GPU is to show: times, and that what is fast is right.

    python -m tests.benchmarks.gpu                          all parts, in about a quarter of an hour
    python -m tests.benchmarks.gpu --parts epochs --full    600 epochs of ``blundell``, every one of them
    python -m tests.benchmarks.gpu --parts steps --only replicas
    python -m tests.benchmarks.gpu --device cpu             a rehearsal of all parts at toy size; times nothing

| part | shows |
|---|---|
| ``epochs`` | the seconds of 600 epochs of ``blundell``, with validation and checkpoints |
| ``steps`` | captured steps against a captured step of an ordinary network, 16 replicas against one, precisions |
| ``graph`` | how far the weights of captured and eager steps are apart |
| ``scores`` | what tf32 and bfloat16 do to error and NLL |
| ``resume`` | how far the weights of a run that was stopped and resumed are from those of one that was not |
"""

import dataclasses
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from bbb.inference import Precision
from bbb.networks import MLP, initial_network
from bbb.runs import WEIGHTS, assemble, load_progress, run
from bbb.system import StoppedError, find_device, refusing_bad_input, set_up
from tests.benchmarks.contenders import INIT_STD, OURS, made_up_images, training
from tests.benchmarks.gpu_contenders import NUM_EPOCHS, Size, contenders, size_on
from tests.benchmarks.report import chosen_by, parser, print_surroundings, rules_of, surroundings, table, write_json
from tests.benchmarks.whole_runs import settings_of, watch
from tests.tasks import seeded

PRECISIONS: tuple[Precision, ...] = ("float32", "tf32", "bfloat16")


def time_steps(size: Size, arguments: Any) -> Any:
    """Time steps in pairs; a rehearsal makes a block of each."""
    chosen, floors = contenders(size)
    chosen = chosen_by(chosen, arguments.only)
    if size.captures:
        return table(chosen, floors, rules_of(arguments))
    for contender in {**floors, **chosen}.values():
        contender.make()()
    return f"a block of each of {len(floors) + len(chosen)} contenders was made"


def time_epochs(size: Size, arguments: Any) -> Any:
    """Time epochs of ``blundell``, as the pipeline makes them, and extrapolate to 600."""
    num_epochs, _ = size.epochs
    seconds = watch("blundell", {**size.changes, "num_epochs": num_epochs})["seconds"]
    whole = sum(seconds) if num_epochs == NUM_EPOCHS else seconds[0] + (NUM_EPOCHS - 1) * median(seconds[1:])
    print(f"{num_epochs} epochs measured: {sum(seconds):.1f} s, the first {seconds[0]:.2f} s")
    if num_epochs != NUM_EPOCHS:
        print(f"{NUM_EPOCHS} epochs extrapolated: {whole:.0f} s")
    return {"seconds": seconds, "whole": whole}


def compare_graph(size: Size, arguments: Any) -> Any:
    """Compare the weights after captured steps with those after eager ones, and eager ones with their repeat."""
    if not size.captures:
        return "left out: there are no CUDA graphs on a CPU"

    def weights(captured: bool, **how: Any) -> dict[str, Tensor]:
        network = initial_network(MLP(size.sizes), INIT_STD, seeded(1)).to(size.device)
        plan = dataclasses.replace(OURS, num_epochs=1, cuda_graph=captured, **how)
        torch.manual_seed(1)
        list(training(network, made_up_images(size.steps).to(size.device), "scale_mixture", plan).fit())
        return network.posterior.state_dict()

    results = {}
    for name, how in {"weights": {}, "local": {"estimator": "local", "beta_type": "standard"}}.items():
        eager = weights(False, **how)
        results[name] = {
            "captured": difference(weights(True, **how), eager),
            "repeat": difference(weights(False, **how), eager),
        }
        print(f"{name}, {size.steps} steps: captured against eager {results[name]['captured']:.3g}, ", end="")
        print(f"eager against its repeat {results[name]['repeat']:.3g}", flush=True)
    return results


def score_precisions(size: Size, arguments: Any) -> Any:
    """Score short runs in each precision, for two seeds."""
    results = {}
    for precision in PRECISIONS if size.captures else ("float32", "bfloat16"):
        set_up(None, precision)
        for seed in (1, 2):
            changes = {**size.changes, "num_epochs": size.epochs[1], "precision": precision, "seed": seed}
            result = run(assemble(settings_of("blundell", changes), size.device))
            results[f"{precision}, seed {seed}"] = dataclasses.asdict(result)
            print(
                f"{precision}, seed {seed}: test error {result.test_error:.2f} %, NLL {result.test_nll:.4f}", flush=True
            )
    set_up(None)
    return results


def stop_and_resume(size: Size, arguments: Any) -> Any:
    """Stop a run in the middle of an epoch and resume it; compare its weights with those of a run in one go."""
    changes = {**size.changes, "num_epochs": 2}
    assembly = assemble(settings_of("blundell", changes), size.device)
    steps_done = 0

    def on_step(step: int, num_steps: int) -> None:
        nonlocal steps_done
        steps_done = step

    with tempfile.TemporaryDirectory() as whole, tempfile.TemporaryDirectory() as parts:
        run(assembly, Path(whole), on_step=on_step)
        half = steps_done * 3 // 4
        try:
            run(assembly, Path(parts), on_step=on_step, should_stop=lambda: steps_done == half)
        except StoppedError:
            run(assembly, Path(parts), load_progress(Path(parts), size.device))
        apart = difference(*(load_file(Path(folder) / WEIGHTS) for folder in (whole, parts)))
    print(f"stopped after {half} steps, resumed, against one go: {apart:.3g}")
    return apart


def difference(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """Return the largest difference of two sets of tensors."""
    return max(float((ours[name] - value).abs().max()) for name, value in theirs.items())


PARTS = {
    "epochs": time_epochs,
    "steps": time_steps,
    "graph": compare_graph,
    "scores": score_precisions,
    "resume": stop_and_resume,
}


def main(words: list[str] | None = None) -> None:
    """Read the arguments, and print what each part shows."""
    arguments = parser(__doc__, "--only", "--pairs", "--turns", "--json")
    arguments.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu for a rehearsal")
    arguments.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    arguments.add_argument("--full", action="store_true", help="time all 600 epochs")
    chosen = arguments.parse_args(words)
    device = find_device(chosen.device)
    about = surroundings(None)
    if device.type == "cuda":
        about |= {"gpu": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
    print_surroundings(about)
    size, results = size_on(device, chosen.full), {}
    for part in chosen.parts:
        print(f"\n{part}", flush=True)
        results[part] = PARTS[part](size, chosen)
        if isinstance(results[part], str):
            print(results[part])
        write_json(chosen.json, about, **results)  # after each part, so that a later one may fail


if __name__ == "__main__":
    with refusing_bad_input():
        main()
