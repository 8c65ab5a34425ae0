"""Networks by name; users' files are run by the one who names them."""

import pytest

from bbb.networks import MLP, ModuleArchitecture, NetworkError, build

GOOD = """
import dataclasses
from torch import nn
from bbb.networks import MLP

NUMBER = 3

@dataclasses.dataclass
class Sizes:
    hidden: int = 5

def make(input_shape, num_outputs):
    assert type(input_shape) is tuple
    num = input_shape[0] * input_shape[1]
    return nn.Sequential(nn.Flatten(), nn.Linear(num, Sizes().hidden), nn.ReLU(), nn.Linear(5, num_outputs))

def architecture(input_shape, num_outputs):
    return MLP((6, 4, num_outputs))

def other_sizes(input_shape, num_outputs):
    return MLP((7, 4, num_outputs))

def _private(input_shape, num_outputs):
    return None

def none(input_shape, num_outputs):
    return None

def failing(input_shape, num_outputs):
    raise RuntimeError("no network\\ntoday")

def too_few(input_shape):
    return None
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "my_net.py"
    path.write_text(GOOD)
    return path


def refusal(*args, **kwargs):
    with pytest.raises(NetworkError) as error:
        build(*args, **kwargs)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def test_an_mlp_has_the_hidden_units_that_are_asked_for():
    assert build("mlp", (2, 3, 4), 5, (7, 8)) == MLP((24, 7, 8, 5))
    assert build("mlp", (6,), 5) == MLP((6, 5))


def test_lenet_knows_its_channels_and_what_is_deterministic():
    architecture = build("lenet", (3, 16, 16), 4, deterministic=["conv1"])
    assert architecture.names == ("conv2", "hidden", "head")
    assert architecture.shapes == ((50, 20, 5, 5), (500, 50), (4, 500))
    assert architecture.fixed.get_parameter("conv1.weight").shape == (20, 3, 5, 5)


def test_a_module_and_an_architecture_of_the_users_file(file):
    made = build(f"{file}:make", (2, 3), 4, deterministic=["1"])
    assert isinstance(made, ModuleArchitecture)
    assert (made.name, made.input_shape, made.deterministic) == (f"{file}:make", (2, 3), ("1",))
    assert made.shapes == ((4, 5),)
    assert build(f"{file}:architecture", (2, 3), 4) == MLP((6, 4, 4))


@pytest.mark.parametrize("name", ["resnet", "my_net.py", "my_net:make", "my_net.py:", "my_net.py:a b", "my_net.py:3"])
def test_a_name_that_is_none_is_refused(name):
    assert refusal(name, (6,), 2) == f"network={name}: must be mlp, lenet or FILE.py:FUNCTION, as in my_net.py:make"


def test_a_missing_file_is_refused(tmp_path):
    name = f"{tmp_path / 'nope.py'}:make"
    assert refusal(name, (6,), 2) == f"network={name}: there is no file {tmp_path / 'nope.py'}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def make(:\n", "cannot be run: SyntaxError:"),
        ("import nothing_of_this_name\n", "cannot be run: ModuleNotFoundError: No module named"),
        ("raise ValueError('a\\nb' * 500)\n", "cannot be run: ValueError: a b"),
    ],
)
def test_a_file_that_fails_is_refused(tmp_path, text, words):
    path = tmp_path / "broken.py"
    path.write_text(text)
    message = refusal(f"{path}:make", (6,), 2)
    assert words in message
    assert len(message) < 500


@pytest.mark.parametrize("function", ["nope", "NUMBER"])
def test_a_missing_function_is_refused_with_those_that_are_there(file, function):
    message = refusal(f"{file}:{function}", (2, 3), 2)
    assert f"has no function {function}; it has make, architecture, other_sizes, none, failing, too_few" in message


def test_a_function_that_fails_is_refused(file):
    message = refusal(f"{file}:failing", (2, 3), 2)
    assert message.endswith("called with input_shape=(2, 3) and num_outputs=2 it fails: RuntimeError: no network today")
    assert "it fails: TypeError: " in refusal(f"{file}:too_few", (2, 3), 2)


def test_what_is_no_network_is_refused(file):
    message = refusal(f"{file}:none", (2, 3), 2)
    assert message.endswith("returns NoneType; must return a torch.nn.Module or an Architecture")
    message = refusal(f"{file}:other_sizes", (2, 3), 2)
    assert message.endswith("takes 7 numbers and has 2 outputs; the data need 6 and 2")


@pytest.mark.parametrize("name", ["mlp", "{file}:architecture"])
def test_deterministic_layers_are_those_of_modules(file, name):
    name = name.format(file=file)
    message = refusal(name, (2, 3), 2, deterministic=["0"])
    assert message == f"deterministic=['0']: all layers of network={name} are Bayesian; use []"
