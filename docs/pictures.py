"""Draw the pictures of the documentation into figs/.

    python docs/pictures.py

They show what the code does: the bell curves are those that :func:`bbb.inference.prepare` makes, the densities are
those of trained flows, and the floors are the folders of bbb/ with the first lines of their docstrings. Drawn twice,
a picture has the same bytes.
"""

import argparse
import ast
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle
from matplotlib.textpath import TextPath
from matplotlib.ticker import StrMethodFormatter
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # a clone draws its own code, installed or not; so bbb is imported below

from bbb.distributions import FlowedGaussian, Gaussian, PlanarFlow, gaussian_prior  # noqa: E402
from bbb.inference import prepare  # noqa: E402
from bbb.networks import MLP, BayesianNetwork, initial_network  # noqa: E402

BLUE, SKY, ORANGE, VERMILLION = "#0072B2", "#56B4E9", "#E69F00", "#D55E00"  # Okabe and Ito's palette
POSTERIOR, PRIOR = BLUE, ORANGE
BLACK, GREY, EDGE, PALE = "#222222", "#6B6B6B", "#B9BEC6", "#F5F6F8"
WALL, WINDOW, ROOF = "#E4F0F8", "#FFF7D1", "#FBE3D3"
WIDTH = 10.0  # inches: 800 pixels wide, letters of 12 points are 13 pixels high
DPI = 160
POINTS = 72.0  # in an inch


# --- how a posterior becomes a prior ----------------------------------------------------------------------------------


class Transfer(NamedTuple):
    """Gaussians over the four weights of an example: two in the hidden layer, then two in the head.

    Args:
        source: the posterior of digits 0-4.
        prior: the prior for digits 5-9.
        start: where the posterior of digits 5-9 starts.
    """

    source: Gaussian
    prior: Gaussian
    start: Gaussian


HIDDEN, HEAD = slice(0, 2), slice(2, 4)


def transfer(config: Mapping[str, Any]) -> Transfer:
    """Make a prior and a start of a posterior, as a run does.

    Args:
        config: the configuration of the run on digits 5-9.
    """
    architecture = MLP((1, 1, 1))
    source = Gaussian(torch.tensor([-0.36, 0.3, -0.28, 0.4]), torch.tensor([0.035, 0.055, 0.05, 0.07]).log())
    fresh = initial_network(architecture, config["init_std"], torch.Generator().manual_seed(0))
    head_prior = gaussian_prior(2, config["prior_std"])
    network, prior = prepare(
        BayesianNetwork(architecture, source),
        fresh,
        head_prior,
        config["prior_inflation"],
        config["prior_floor"],
        config["start"],
        config["init_std"],
    )
    return Transfer(source, prior, network.posterior)


def read_config(name: str) -> dict[str, Any]:
    """Read a named configuration of configs/, with the defaults of the keys that it leaves out."""
    texts = [(ROOT / "configs" / f"{stem}.yaml").read_text(encoding="utf-8") for stem in ("default", name)]
    return {key: value for text in texts for key, value in yaml.safe_load(text).items()}


def prior_from_posterior(config: Mapping[str, Any] | None = None) -> Figure:
    """Draw what the hidden layers and the head hand on from digits 0-4 to digits 5-9.

    Args:
        config: the configuration of the run on digits 5-9; None for configs/transfer.yaml.

    Returns:
        A figure that belongs to no window and no global state.
    """
    config = config or read_config("transfer")
    source, prior, start = transfer(config)
    figure, canvas = _canvas(height=5.97)
    box, gap, tall = 2.66, 0.82, 1.6
    columns = [0.19 + i * (box + gap) for i in range(3)]
    hidden, head = 1.22, 3.17  # where the boxes stand
    names = (
        ("posterior of digits 0-4", "learnt", POSTERIOR, "01234", "head"),
        ("prior for digits 5-9", "frozen", PRIOR, "56789", "fresh head"),
        ("posterior of digits 5-9", "where its training starts", POSTERIOR, "56789", "fresh head"),
    )
    for x, (name, state, colour, classes, last) in zip(columns, names, strict=True):
        middle = x + box / 2
        _text(canvas, middle, 5.75, name, size=14, weight="bold", color=_darker(colour))
        _text(canvas, middle, 5.49, state, color=GREY)
        for i, digit in enumerate(classes):
            _text(canvas, middle + 0.36 * (i - 2), 5.13, digit)
        for y, layer in ((head, last), (hidden, "hidden layers")):
            _box(canvas, x, y, box, tall, PALE)
            _text(canvas, x + 0.12, y + tall - 0.2, layer, weight="bold", ha="left")
        for below, above in ((0.96, hidden), (hidden + tall, head), (head + tall, 5.01)):
            _arrow(canvas, (middle, below + 0.03), (middle, above - 0.03), GREY, width=1.5)
        _text(canvas, middle, 0.84, "image")

    curves = (((source, POSTERIOR),), ((source, POSTERIOR), (prior, PRIOR)), ((prior, PRIOR), (start, POSTERIOR)))
    formulas = (
        (r"$N(\mu,\,\sigma^2)$", r"$N(\mu,\,\sigma^2)$"),
        (r"$N(\mu,\,\sigma_p^2),\ \ \sigma_p^2 = c\,\sigma^2 + \sigma_0^2$", r"$N(0,\,\sigma_1^2)$"),
        (r"$N(\mu,\,\min(\sigma_p, s)^2)$", r"$N(0,\,s^2)$"),
    )
    for i, x in enumerate(columns):
        for y, part, formula in zip((hidden, head), (HIDDEN, HEAD), formulas[i], strict=True):
            shown = curves[i][-1:] if i == 1 and part is HEAD else curves[i]  # the prior of a fresh head has no past
            _bells(_panel(figure, x + 0.12, y + 0.49, box - 0.24, tall - 0.89), shown, part)
            _text(canvas, x + box / 2, y + 0.16, formula)

    for y, i, word in ((hidden, 0, "widen"), (hidden, 1, "narrow"), (head, 1, "narrow")):
        x, y = columns[i] + box, y + tall / 2
        _arrow(canvas, (x + 0.06, y), (x + gap - 0.06, y), _darker(PRIOR if i == 0 else POSTERIOR), width=3.0)
        _text(canvas, x + gap / 2, y + 0.21, word, weight="bold")
        _text(canvas, x + gap / 2, y - 0.21, r"same $\mu$" if y < head else "mean 0")
    x, y = columns[0] + box, head + tall / 2
    canvas.plot([x + 0.08, x + 0.42], [y, y], color=GREY, linewidth=3.0)
    canvas.plot([x + 0.55], [y], color=VERMILLION, marker="x", markersize=11, markeredgewidth=3.0)
    _text(canvas, x + gap / 2, y + 0.25, "drop", weight="bold")

    keys = (("c", "prior_inflation"), (r"\sigma_0", "prior_floor"), (r"\sigma_1", "prior_std"), ("s", "init_std"))
    _text(canvas, WIDTH / 2, 0.5, ",   ".join(f"${symbol}$ = {key} = {config[key]:g}" for symbol, key in keys))
    note = "Two weights of each part, as an example. Curves are drawn equally high: compare places and widths."
    _text(canvas, WIDTH / 2, 0.19, note, size=11, color=GREY)
    return figure


def _bells(axes: Axes, curves: Sequence[tuple[Gaussian, str]], part: slice) -> None:
    """Draw the densities of a part of the weights, the last of the curves filled, the others dashed."""
    x = torch.linspace(-0.75, 0.75, 1201)
    for q, colour in curves:
        last = (q, colour) == curves[-1]
        weights = zip(q.mean.detach()[part].tolist(), q.log_std.detach()[part].tolist(), strict=True)
        for mean, log_std in dict.fromkeys(weights):  # weights that are alike are one curve
            log_prob = Gaussian(torch.tensor(mean), torch.tensor(log_std), dim=1).frozen().log_prob(x.unsqueeze(1))
            height = (log_prob - log_prob.max()).exp()
            seen = height > 0.002
            line = (x[seen].numpy(), height[seen].numpy())
            if last:
                axes.fill_between(*line, color=colour, alpha=0.35, linewidth=0)
            axes.plot(*line, color=colour, linewidth=2.0 if last else 1.5, linestyle="-" if last else "--")
    axes.set(xlim=(-0.75, 0.75), ylim=(0.0, 1.05), xticks=[-0.5, 0, 0.5], yticks=[])
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.tick_params(labelsize=10, length=3, pad=2, color=GREY, labelcolor=GREY)
    axes.spines[["top", "left", "right"]].set_visible(False)
    axes.spines["bottom"].set_color(GREY)


# --- what planar flows do to a Gaussian -------------------------------------------------------------------------------

RADIUS, THICKNESS = 2.0, 0.4


def ring(w: Tensor) -> Tensor:
    """Evaluate the logarithm of an unnormalised density on a ring, at points ``(S, 2)``: ``(S,)``."""
    return -0.5 * ((torch.linalg.vector_norm(w, dim=1) - RADIUS) / THICKNESS).square()


def fit(num_flows: int, num_steps: int, seed: int = 2) -> Gaussian | FlowedGaussian:
    """Bend a 2-D Gaussian to the ring by maximising its ELBO.

    Args:
        num_flows: K, the number of planar maps.
        num_steps: steps of Adam; over the first half of them the ring is sharpened, lest parts of it are left out.
        seed: of the maps' directions and of the draws.
    """
    generator = torch.Generator().manual_seed(seed)
    q = Gaussian(torch.zeros(2), torch.zeros(2))
    if num_flows:
        q = FlowedGaussian(q, [PlanarFlow.identity(2, num_flows, 1.0, generator)], [2])
    optimizer = torch.optim.Adam(q.parameters(), lr=0.03)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    for step in range(num_steps):
        w, log_q = q.rsample_and_log_prob(256, generator)
        sharpness = min(1.0, 0.1 + 2.0 * step / num_steps)
        optimizer.zero_grad()
        (log_q - sharpness * ring(w)).mean().backward()
        optimizer.step()
        schedule.step()
    return q.frozen()


def square(extent: float, num_points: int = 301) -> Tensor:
    """Lay a grid of points ``(num_points ** 2, 2)`` over the square from -extent to extent."""
    side = torch.linspace(-extent, extent, num_points)
    return torch.cartesian_prod(side, side)


def kl_to_ring(q: Gaussian | FlowedGaussian, extent: float = 6.0) -> float:
    """Evaluate KL(q || ring) in nats, as a sum over a grid that holds all but the tails of both."""
    grid = square(extent)
    log_q, log_ring = q.log_prob(grid), ring(grid)
    log_q, log_ring = log_q - log_q.logsumexp(0), log_ring - log_ring.logsumexp(0)
    return float((log_q.exp() * (log_q - log_ring)).sum())


def planar_flow(counts: Sequence[int] = (0, 1, 2, 3, 8), num_steps: int = 1500) -> Figure:
    """Draw the densities of 2-D Gaussians that planar maps bend to a ring.

    Args:
        counts: K, the number of maps, of each panel.
        num_steps: steps of training.

    Returns:
        A figure that belongs to no window and no global state.
    """
    figure, canvas = _canvas(height=3.22)
    side, gap, bottom, extent = 1.86, 0.12, 0.93, 3.4
    left = (WIDTH - len(counts) * side - (len(counts) - 1) * gap) / 2
    colours = LinearSegmentedColormap.from_list("density", ["white", SKY, BLUE, "#00263E"])
    grid = square(extent)
    for i, num_flows in enumerate(counts):
        x = left + i * (side + gap)
        axes = _panel(figure, x, bottom, side, side)
        q = fit(num_flows, num_steps)
        density = q.log_prob(grid).exp().view(round(len(grid) ** 0.5), -1).T  # rows are the second weight
        bounds = (-extent, extent, -extent, extent)
        axes.imshow(density.numpy(), cmap=colours, origin="lower", extent=bounds, interpolation="bilinear", vmin=0.0)
        for radius in (RADIUS - THICKNESS, RADIUS + THICKNESS):
            axes.add_patch(Circle((0, 0), radius, fill=False, edgecolor=ORANGE, linewidth=1.5, linestyle="--"))
        axes.set(xticks=[], yticks=[], aspect="equal")
        axes.spines[:].set_color(EDGE)
        maps = {0: "no map", 1: "1 map"}.get(num_flows, f"{num_flows} maps")
        _text(canvas, x + side / 2, bottom + side + 0.22, maps, size=14, weight="bold", color=_darker(BLUE))
        _text(canvas, x + side / 2, bottom - 0.19, f"KL {kl_to_ring(q):.2f} nats")
    meaning = r"Maps $f(z) = z + \hat{u}\,\tanh(w \cdot z + b)$ bend a Gaussian over two weights to the dashed ring."
    _text(canvas, WIDTH / 2, 0.44, meaning)
    note = "Each density is exact, and dark where it is greatest. KL(q ‖ ring) is a sum over a grid."
    _text(canvas, WIDTH / 2, 0.17, note, size=11, color=GREY)
    return figure


# --- the floors -------------------------------------------------------------------------------------------------------


class Floor(NamedTuple):
    """A folder of the package.

    Args:
        name: of the folder.
        purpose: the first line of its docstring.
        modules: the names of the files in it.
    """

    name: str
    purpose: str
    modules: tuple[str, ...]


def read_floors(root: Path = ROOT) -> list[Floor]:
    """Read the floors of bbb/ from the top down: names from the contract on imports, the rest from the folders.

    Args:
        root: the folder of pyproject.toml and bbb/.

    Raises:
        ValueError: the contract does not list all floors, or a floor has no docstring.
    """
    tools = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    contracts = tools["importlinter"]["contracts"]
    names = next(contract["layers"] for contract in contracts if contract["id"] == "floors")
    folders = {init.parent.name: init.parent for init in root.glob("bbb/*/__init__.py")}
    if set(names) != set(folders):
        raise ValueError(f"layers={names}: pyproject.toml must list the floors {sorted(folders)}")
    storeys = []
    for name in names:
        modules = sorted(path.stem for path in folders[name].glob("*.py") if not path.stem.startswith("_"))
        storeys.append(Floor(name, read_purpose(folders[name] / "__init__.py"), tuple(modules)))
    return storeys


def read_purpose(path: Path) -> str:
    """Read the first line of a module's docstring.

    Raises:
        ValueError: it has none.
    """
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if not docstring:
        raise ValueError(f"{path}: has no docstring; its first line must say what it is for")
    return docstring.splitlines()[0].rstrip(".:")


def floors(storeys: Sequence[Floor] | None = None, roof: Path = ROOT / "experiment.py") -> Figure:
    """Draw the package as a building: the floors with their purposes and, as windows, their modules.

    Args:
        storeys: from the top down; None for those of bbb/.
        roof: the module that stands above them all.

    Returns:
        A figure that belongs to no window and no global state.
    """
    storeys = read_floors() if storeys is None else storeys
    name_font, text_font = FontProperties(family="monospace", weight="bold", size=13), FontProperties(size=12)
    window_font = FontProperties(family="monospace", size=11)
    left, right, ground = 0.3, WIDTH - 0.85, 0.15
    inner = left + 1.66, right - 0.14  # of purposes and windows
    line_height, row_height = 0.23, 0.36
    contents = []
    for storey in storeys:
        lines = _wrap(storey.purpose.split(), inner[1] - inner[0], text_font)
        rows = _rows(storey.modules, inner[1] - inner[0], window_font)
        contents.append((storey, lines, rows, 0.2 + line_height * len(lines) + row_height * len(rows)))
    top = ground + sum(height for *_, height in contents)
    figure, canvas = _canvas(height=top + 0.87)
    gable = ((left - 0.15, top), (right + 0.15, top), (right - 1.2, top + 0.8), (left + 1.2, top + 0.8))
    canvas.add_patch(Polygon(gable, facecolor=ROOF, edgecolor=_darker(VERMILLION), linewidth=1.5, joinstyle="round"))
    _text(canvas, (left + right) / 2, top + 0.54, roof.name, font=name_font)
    _text(canvas, (left + right) / 2, top + 0.25, read_purpose(roof), font=text_font)
    y = top
    for storey, lines, rows, height in contents:
        wall = {"facecolor": WALL, "edgecolor": _darker(BLUE), "linewidth": 1.5}
        canvas.add_patch(Rectangle((left, y - height), right - left, height, **wall))
        _text(canvas, left + 0.15, y - 0.22, storey.name, ha="left", color=_darker(BLUE), font=name_font)
        for i, line in enumerate(lines):
            _text(canvas, inner[0], y - 0.22 - line_height * i, line, ha="left", font=text_font)
        for i, row in enumerate(rows):
            bottom = y - 0.13 - line_height * len(lines) - row_height * (i + 1) + 0.06
            for module, x, width in row:
                _box(canvas, inner[0] + x, bottom, width, 0.28, WINDOW, edge=ORANGE, rounding=0.04)
                _text(canvas, inner[0] + x + width / 2, bottom + 0.135, module, font=window_font)
        y -= height
    canvas.plot([left - 0.2, right + 0.2], [ground, ground], color=GREY, linewidth=3.0, solid_capstyle="round")
    _arrow(canvas, (right + 0.4, top), (right + 0.4, ground), VERMILLION, width=4.0)
    _text(canvas, right + 0.65, (ground + top) / 2, "imports run down", rotation=270, size=13)
    return figure


def _wrap(words: Sequence[str], width: float, font: FontProperties) -> list[str]:
    """Break words into lines no wider than so many inches."""
    lines: list[str] = []
    for word in words:
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and _width(longer, font) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _rows(modules: Sequence[str], width: float, font: FontProperties) -> list[list[tuple[str, float, float]]]:
    """Set windows in rows no wider than so many inches: for each its module, where it starts and how wide it is."""
    rows: list[list[tuple[str, float, float]]] = [[]]
    x = 0.0
    for module in modules:
        own = _width(module, font) + 0.16
        if x + own > width:
            rows.append([])
            x = 0.0
        rows[-1].append((module, x, own))
        x += own + 0.09
    return rows


def _width(text: str, font: FontProperties) -> float:
    """Measure a text in inches; letters that are fitted to pixels need some more than their outlines."""
    return 1.04 * TextPath((0.0, 0.0), text, prop=font).get_extents().width / POINTS


# --- drawing ----------------------------------------------------------------------------------------------------------


def _canvas(height: float) -> tuple[Figure, Axes]:
    """Make a white figure with axes all over it, whose unit is the inch."""
    figure = Figure(figsize=(WIDTH, height), facecolor="white")
    axes = _panel(figure, 0.0, 0.0, WIDTH, height)
    axes.set(xlim=(0.0, WIDTH), ylim=(0.0, height))
    axes.axis("off")
    return figure, axes


def _panel(figure: Figure, x: float, y: float, width: float, height: float) -> Axes:
    """Add axes at a place in inches."""
    in_all = figure.get_figheight()
    axes = figure.add_axes((x / WIDTH, y / in_all, width / WIDTH, height / in_all))
    axes.patch.set_alpha(0.0)
    return axes


def _text(canvas: Axes, x: float, y: float, words: str, font: FontProperties | None = None, **style: Any) -> None:
    font = font or FontProperties(size=style.pop("size", 12), weight=style.pop("weight", "normal"))
    canvas.text(x, y, words, font=font, **{"ha": "center", "va": "center", "color": BLACK} | style)


def _box(
    canvas: Axes,
    x: float,
    y: float,
    width: float,
    height: float,
    colour: str,
    edge: str = EDGE,
    rounding: float = 0.1,
) -> None:
    style = f"round,pad=0,rounding_size={rounding}"
    canvas.add_patch(FancyBboxPatch((x, y), width, height, style, facecolor=colour, edgecolor=edge, linewidth=1.2))


def _arrow(canvas: Axes, start: tuple[float, float], end: tuple[float, float], colour: Any, width: float) -> None:
    style = f"-|>,head_length={2.0 + 1.2 * width},head_width={1.2 + 0.8 * width}"
    ends = {"shrinkA": 0, "shrinkB": 0, "joinstyle": "miter", "capstyle": "butt"}
    canvas.add_patch(FancyArrowPatch(start, end, arrowstyle=style, color=colour, linewidth=width, **ends))


def _darker(colour: str) -> tuple[float, ...]:
    """Darken a colour for letters and arrows on white."""
    return tuple(0.75 * part for part in to_rgb(colour))


# --- the files --------------------------------------------------------------------------------------------------------

PICTURES = {"prior_from_posterior": prior_from_posterior, "planar_flow": planar_flow, "floors": floors}


def save(figure: Figure, path: Path, dpi: int = DPI) -> None:
    """Write a figure as PNG, with its texts in the file, and without the version that would change its bytes."""
    figure.savefig(path, dpi=dpi, facecolor="white", metadata={"Software": None, "Description": describe(figure)})


def describe(figure: Figure) -> str:
    """List the texts of a picture, one a line: what a test compares with the code of today."""
    return "\n".join(text.get_text() for axes in figure.axes for text in axes.texts)


def main() -> None:
    """Draw all pictures into figs/, or into another folder."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / "figs")
    folder = parser.parse_args().folder
    torch.set_num_threads(1)  # the flows are small, and their sums shall not depend on the number of cores
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        save(draw(), folder / f"{name}.png")


if __name__ == "__main__":
    main()
