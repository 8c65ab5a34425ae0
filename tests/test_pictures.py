"""The pictures of the documentation: they show what the code does, and the same code draws the same bytes."""

import importlib.util
import itertools
from pathlib import Path

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import FancyBboxPatch, Rectangle
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]


def load_pictures():
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "docs" / "pictures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pictures = load_pictures()


def texts(figure):
    return pictures.describe(figure).splitlines()


@pytest.fixture(autouse=True)
def _one_thread():
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the script does: the flows are too small to share
    yield
    torch.set_num_threads(num_threads)


BOXES = FancyBboxPatch, Rectangle
DRAWN = {
    "prior_from_posterior": pictures.prior_from_posterior,
    "planar_flow": lambda: pictures.planar_flow(counts=(0, 2), num_steps=20),
    "floors": pictures.floors,
}


def test_every_picture_is_tested():
    assert DRAWN.keys() == pictures.PICTURES.keys()


@pytest.mark.parametrize("name", DRAWN)
def test_picture_is_a_png_with_the_same_bytes_when_drawn_twice(name, tmp_path):
    for copy in ("once.png", "twice.png"):
        pictures.save(DRAWN[name](), tmp_path / copy, dpi=30)
    once, twice = ((tmp_path / copy).read_bytes() for copy in ("once.png", "twice.png"))
    assert once.startswith(b"\x89PNG")
    assert once == twice


@pytest.mark.parametrize("name", DRAWN)
def test_texts_stay_in_the_picture_and_in_their_boxes_and_off_each_other(name):
    figure = DRAWN[name]()
    renderer = FigureCanvasAgg(figure).get_renderer()
    written = [text for axes in figure.axes for text in axes.texts]
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in written]
    for text, box in boxes:
        assert figure.bbox.contains(box.x0, box.y0), text
        assert figure.bbox.contains(box.x1, box.y1), text
    edges = [patch.get_window_extent(renderer) for patch in figure.axes[0].patches if isinstance(patch, BOXES)]
    crossing = [text for text, a in boxes for b in edges if a.overlaps(b) and not b.x0 < a.x0 < a.x1 < b.x1]
    assert crossing == []
    overlapping = [(one, other) for (one, a), (other, b) in itertools.combinations(boxes, 2) if a.overlaps(b)]
    assert overlapping == []


def test_hidden_layers_are_widened_and_the_head_is_fresh():
    config = {"prior_inflation": 4.0, "prior_floor": 0.1, "prior_std": 0.3, "init_std": 0.02, "start": "narrow"}
    source, prior, start = pictures.transfer(config)
    assert torch.equal(prior.mean[:2], source.mean[:2])
    torch.testing.assert_close(prior.log_std[:2].exp() ** 2, 4.0 * source.log_std[:2].exp() ** 2 + 0.01)
    assert prior.mean[2:].tolist() == [0.0, 0.0]
    torch.testing.assert_close(prior.log_std[2:].exp(), torch.full((2,), 0.3))
    assert torch.equal(start.mean, prior.mean)
    torch.testing.assert_close(start.log_std.exp(), torch.full((4,), 0.02))


def test_prior_shows_the_values_of_the_configuration():
    config = pictures.read_config("transfer") | {"prior_floor": 0.125}
    (legend,) = (text for text in texts(pictures.prior_from_posterior(config)) if "prior_floor" in text)
    assert "prior_floor = 0.125" in legend
    assert f"init_std = {config['init_std']:g}" in legend


def test_density_under_a_flow_integrates_to_one():
    q = pictures.fit(num_flows=3, num_steps=50)
    grid, area = pictures.square(8.0, num_points=161), 0.1**2
    assert float(q.log_prob(grid).exp().sum() * area) == pytest.approx(1.0, abs=1e-3)  # the error of the grid


def test_more_maps_come_closer_to_the_ring():
    no_map, two_maps = (pictures.kl_to_ring(pictures.fit(num_flows, num_steps=200)) for num_flows in (0, 2))
    assert 0.0 < two_maps < 0.7 * no_map


def test_floors_show_every_floor_and_module_and_the_purposes_from_the_top_down():
    shown = texts(pictures.floors())
    folders = [init.parent for init in ROOT.glob("bbb/*/__init__.py")]
    modules = [path.stem for folder in folders for path in folder.glob("*.py") if path.stem != "__init__"]
    assert {folder.name for folder in folders} <= set(shown)
    assert all(shown.count(module) >= modules.count(module) for module in modules)
    for folder in folders:
        first_line = (folder / "__init__.py").read_text(encoding="utf-8").splitlines()[0]
        assert first_line.strip('".') in " ".join(shown)
    assert (
        shown.index("experiment.py") < shown.index("inference") < shown.index("distributions") < shown.index("system")
    )


@pytest.mark.parametrize("name", ["prior_from_posterior", "floors"])  # no number of theirs depends on the machine
def test_picture_in_figs_is_that_of_the_code(name):
    with Image.open(ROOT / "figs" / f"{name}.png") as picture:
        drawn = picture.text["Description"].splitlines()
    assert drawn == texts(DRAWN[name]()), "draw it again: python docs/pictures.py"


@pytest.fixture
def small_root(tmp_path):
    floor = tmp_path / "bbb" / "cellar"
    floor.mkdir(parents=True)
    (floor / "__init__.py").write_text('"""Where coal is kept.\n\nMore.\n"""\n')
    (floor / "coal.py").write_text("")
    (tmp_path / "pyproject.toml").write_text('[[tool.importlinter.contracts]]\nid = "floors"\nlayers = ["cellar"]\n')
    return tmp_path


def test_floors_are_read_from_the_contract_and_the_folders(small_root):
    assert pictures.read_floors(small_root) == [("cellar", "Where coal is kept", ("coal",))]


def test_a_floor_that_the_contract_leaves_out_is_refused(small_root):
    attic = small_root / "bbb" / "attic"
    attic.mkdir()
    (attic / "__init__.py").write_text('"""Old things."""\n')
    with pytest.raises(ValueError, match=r"layers=.*'attic'"):
        pictures.read_floors(small_root)


def test_a_floor_without_a_docstring_is_refused(small_root):
    (small_root / "bbb" / "cellar" / "__init__.py").write_text("")
    with pytest.raises(ValueError, match="has no docstring"):
        pictures.read_floors(small_root)
