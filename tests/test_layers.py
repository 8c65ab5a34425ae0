"""The layers of bbb/: imports run down the floors, floors meet at their faces, and Sacred stays at the top."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Each helper below takes the folder that holds bbb/, and returns what breaks its law, one line each.


def module_name(root: Path, path: Path) -> str:
    """bbb/data/sources.py is bbb.data.sources, bbb/data/__init__.py is bbb.data."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def floors(root: Path) -> list[Path]:
    return sorted(path.parent for path in root.glob("bbb/*/*.py") if path.name == "__init__.py")


def imports(root: Path, path: Path) -> Iterator[tuple[int, str, str | None]]:
    """Every import of a file, also inside functions: the line, the module, and the name taken from it."""
    package = module_name(root, path).split(".")
    if path.stem != "__init__":
        package.pop()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*start, *([node.module] if node.module else [])])
            yield from ((node.lineno, module, alias.name) for alias in node.names)


def face(floor: Path) -> dict[str, str]:
    """The names that a floor's __init__.pyi offers, and the module that each comes from."""
    tree = ast.parse((floor / "__init__.pyi").read_text())
    return {
        alias.asname or alias.name: node.module or ""
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def past_the_face(root: Path) -> list[str]:
    """Imports of another floor's inside, of a name that is not in its face, or of a floor's own face."""
    broken = []
    faces = {f"bbb.{floor.name}": face(floor) for floor in floors(root)}
    for path in sorted([*root.glob("bbb/**/*.py"), root / "experiment.py"]):
        own = ".".join(module_name(root, path).split(".")[:2])
        for line, module, name in imports(root, path):
            if name and f"{module}.{name}" in faces:  # from bbb import data
                module, name = f"{module}.{name}", None
            floor = ".".join(module.split(".")[:2])
            if floor not in faces:
                continue
            if own == floor:
                wrong = module == floor  # the own face: a circle that no contract sees
            else:
                wrong = module != floor or (name is not None and name not in faces[floor])
            if wrong:
                broken.append(f"{path.relative_to(root)}:{line}: {module} {name or ''}".rstrip())
    return broken


def defined_names(path: Path) -> set[str]:
    """The names that a module itself defines at its top level."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {leaf.id for target in targets for leaf in ast.walk(target) if isinstance(leaf, ast.Name)}
    return names


def hidden_names(floor: Path) -> set[str]:
    """Names that type checkers do not see in a floor's face: neither ``X as X`` nor in ``__all__``."""
    tree = ast.parse((floor / "__init__.pyi").read_text())
    aliases = [alias for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    shown = {alias.name for alias in aliases if alias.asname == alias.name}
    for node in tree.body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]:
            shown |= set(ast.literal_eval(node.value))
    return {alias.asname or alias.name for alias in aliases} ^ shown


def false_faces(root: Path) -> list[str]:
    """Names in a floor's __init__.pyi that their module does not define, or that type checkers do not see."""
    broken = []
    for floor in floors(root):
        for name, module in face(floor).items():
            path = floor / f"{module}.py"
            if not path.is_file() or name not in defined_names(path):
                broken.append(f"{floor.name}: {name} is not defined in {module}")
        broken += [f"{floor.name}: {name} is not re-exported" for name in sorted(hidden_names(floor))]
    return broken


def heavy_faces(root: Path) -> list[str]:
    """Floors whose __init__.py is more than a docstring and lazy_loader's two lines: every import of them would pay."""
    broken = []
    for floor in floors(root):
        _, *statements = ast.parse((floor / "__init__.py").read_text()).body
        texts = [ast.unparse(node) for node in statements]
        light = len(texts) == 2 and "import lazy_loader" in texts[0] and "attach_stub(__name__, __file__)" in texts[1]
        if not light:
            broken.append(f"{floor.name}: {texts}")
    return broken


def no_purpose(root: Path) -> list[str]:
    """Packages whose docstring does not begin with one line that is one sentence."""
    broken = []
    for path in sorted(root.glob("bbb/**/*.py")):
        if path.name == "__init__.py":
            line, *rest = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n")
            one_sentence = line.endswith(".") and not any(end in line for end in (". ", "! ", "? "))
            if not one_sentence or (rest and rest[0]):
                broken.append(f"{path.relative_to(root)}: {line}")
    return broken


def folders_without_init(root: Path) -> list[str]:
    """Folders of modules that are no package."""
    folders = {path.parent for path in root.glob("bbb/**/*.py")}
    return sorted(str(folder.relative_to(root)) for folder in folders if not (folder / "__init__.py").is_file())


def sacred_elsewhere(root: Path) -> list[str]:
    """Imports of Sacred outside experiment.py and bbb/cli."""
    return [
        f"{path.relative_to(root)}:{line}"
        for path in sorted(root.glob("bbb/**/*.py"))
        if root / "bbb" / "cli" not in path.parents
        for line, module, _ in imports(root, path)
        if module.split(".")[0] == "sacred"
    ]


def import_contracts(root: Path, config: Path) -> subprocess.CompletedProcess[str]:
    """Hold the imports of bbb/ against the contracts in a configuration, in a process that has not imported bbb."""
    code = (
        "import sys; from importlinter.cli import lint_imports; "
        "sys.exit(lint_imports(config_filename=sys.argv[1], no_cache=True, no_logo=True))"
    )
    command = [sys.executable, "-c", code, str(config)]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


LAWS = [past_the_face, false_faces, heavy_faces, no_purpose, folders_without_init, sacred_elsewhere]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law_of_the_floors_holds(law):
    assert law(ROOT) == []


def test_every_folder_is_a_floor():
    assert [floor.name for floor in floors(ROOT)] == sorted(
        ["cli", "pages", "studies", "runs", "inference", "networks", "distributions", "data", "system"]
    )


def test_contracts_of_import_linter_are_kept():
    result = import_contracts(ROOT, ROOT / "pyproject.toml")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "3 kept, 0 broken" in result.stdout
