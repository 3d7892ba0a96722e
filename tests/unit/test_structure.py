"""The shape of the project itself: sizes, names, the direction of imports, what a quick start costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from alexnet.cli import app
from alexnet.config import Recipe
from alexnet.config_io import diff_recipes, known_keys, load_recipe, recipe_names

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "alexnet"
MODULES = sorted(PACKAGE.rglob("*.py"))
MAX_MODULE_LINES = 600
MAX_FUNCTION_LINES = 60

# What a part may import, itself aside. `alexnet.errors`, `alexnet.config` and `alexnet._version` are everybody's,
# except that models/ and ops/ take nothing but the errors: they are meant to be usable with torch alone.
MAY_IMPORT = {
    "errors": set(),
    "_version": set(),
    "config": set(),
    "recipe_files": set(),
    "config_io": {"recipe_files"},
    "ops": set(),
    "runtime": {"ops"},
    "models": {"ops"},
    "data": {"ops", "runtime"},
    "evaluation": {"data", "models", "ops", "runtime"},
    "visualize": {"data", "evaluation", "models", "ops", "runtime"},
    "reporting": {"config_io", "data", "evaluation", "models", "ops", "runtime", "visualize"},
    "training": {"config_io", "data", "evaluation", "models", "ops", "reporting", "runtime"},
    "benchmark": {"data", "models", "ops", "reporting", "runtime", "training"},
    "doctor": {"config_io", "data", "evaluation", "models", "ops", "reporting", "runtime", "training"},
    "weights": {"data", "models", "ops", "reporting", "runtime", "training"},
    "hub": {"config_io", "data", "evaluation", "models", "ops", "runtime", "training", "weights"},
    "serve": {"data", "evaluation", "models", "ops", "reporting", "runtime", "training", "visualize"},
    "reproduce": {
        *("config_io", "data", "doctor", "evaluation", "models", "ops", "reporting", "runtime", "training"),
        "visualize",
    },
    "exporting": {
        *("data", "evaluation", "models", "ops", "reporting", "runtime", "serve", "training", "visualize", "weights"),
    },
    "commands": {
        *("benchmark", "config_io", "data", "doctor", "evaluation", "exporting", "hub", "models", "reporting"),
        *("reproduce", "runtime", "serve", "training", "visualize", "weights"),
    },
    "cli": {"commands", "config_io", "runtime", "training"},
    "__main__": {"cli"},
}
# The predictor and the report open checkpoints by their path, and a checkpoint may be on the Hub; they do so inside a
# function. Others name their type.
LAZILY = {
    "evaluation": {"training"},
    "reporting": {"training"},
    "training": {"hub"},
    "visualize": {"training"},
}


def name_of(path):
    return str(path.relative_to(ROOT))


def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def part_of(path):
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imported_parts(nodes):
    """The parts of the package that import statements among `nodes` name."""
    for node in nodes:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written out"
            names = [node.module or ""]
            if node.module == "alexnet":
                names = [f"alexnet.{alias.name}" for alias in node.names]
        for name in names:
            if name.startswith("alexnet."):
                yield name.split(".")[1]


def top_level_nodes(tree):
    """All nodes that run when the module is imported: not in a function, not for type checkers only."""
    stack = list(tree.body)
    while stack:
        node = stack.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        stack.extend(ast.iter_child_nodes(node))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_is_short_enough_to_read(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= MAX_MODULE_LINES
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= MAX_FUNCTION_LINES, f"{node.name} has {length} lines"


def test_no_module_is_named_for_nothing():
    vague = {"utils", "util", "common", "misc", "helpers", "tools"}
    assert [name_of(path) for path in MODULES if path.stem in vague] == []


@pytest.mark.parametrize("path", [path for path in MODULES if path != PACKAGE / "__init__.py"], ids=name_of)
def test_imports_point_one_way(path):
    part = part_of(path)
    shared = {"errors"} if part in ("models", "ops", "errors", "_version") else {"errors", "config", "_version"}
    allowed = MAY_IMPORT[part] | shared | {part}
    tree = tree_of(path)
    assert set(imported_parts(top_level_nodes(tree))) <= allowed
    assert set(imported_parts(ast.walk(tree))) <= allowed | LAZILY.get(part, set())


@pytest.mark.parametrize("path", sorted((PACKAGE / "models").glob("*.py")), ids=name_of)
def test_models_need_nothing_but_torch(path):
    for node in ast.walk(tree_of(path)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            first = name.split(".")[0]
            assert first in {"torch", "alexnet"} or first in sys.stdlib_module_names, name


def test_text_reaches_a_terminal_through_one_module():
    """Names from files may hold what a terminal obeys: `alexnet.runtime.text` writes it out."""
    printing = set()
    for path in MODULES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                printing.add(path.relative_to(PACKAGE).as_posix())
    # The second prints JSON in ASCII, the last a page of the documentation.
    assert printing == {"runtime/text.py", "commands/output.py", "doctor/catalogue.py"}


def public_functions(nodes, prefix=""):
    """Public functions and methods; a class with such methods counts too, one of mere fields documents those."""
    for node in nodes:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.name.startswith("_"):
            continue
        if isinstance(node, ast.FunctionDef):
            decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
            if not decorators & {"property", "override"} and node.name != "extra_repr":
                yield prefix + node.name, node
        else:
            methods = list(public_functions(node.body, f"{node.name}."))
            if methods:
                yield node.name, node
            yield from methods


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_everything_public_has_a_docstring(path):
    tree = tree_of(path)
    assert ast.get_docstring(tree) or not tree.body, "the module has none"
    assert [name for name, node in public_functions(tree.body) if not ast.get_docstring(node)] == []


@pytest.mark.parametrize(
    "path",
    sorted(
        path
        for pattern in ("alexnet/**/*", "tests/**/*.py", "Makefile", "*.toml", "*.txt", "LICENSE", "*.md", "docs/*.md")
        for path in ROOT.glob(pattern)
        if path.is_file() and path.suffix in (".py", ".toml", ".txt", ".md", "") and "__pycache__" not in path.parts
    ),
    ids=name_of,
)
def test_text_is_plain_ascii(path):
    assert path.read_bytes().isascii()


# ---------------------------------------------------------------- the command line


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['alexnet', '--help']\n"
        "from alexnet.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print('heavy:', {'torch', 'numpy', 'pydantic', 'matplotlib', 'rich', 'PIL', 'sklearn'} & set(sys.modules))"
    )
    result = run_python(code)
    assert "heavy: set()" in result.stdout, result.stdout + result.stderr


def test_importing_the_package_does_not_import_torch():
    result = run_python("import sys, alexnet; print('torch' in sys.modules)")
    assert result.stdout.strip() == "False", result.stderr


def test_every_public_name_is_there():
    code = "import alexnet; print([name for name in alexnet.__all__ if getattr(alexnet, name, None) is None])"
    result = run_python(code)
    assert result.stdout.strip() == "[]", result.stderr


def commands():
    import typer.main

    group = typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from ((f"{name} {inner}", item) for inner, item in command.commands.items())
        else:
            yield name, command


@pytest.mark.parametrize(("name", "command"), list(commands()), ids=[name for name, _ in commands()])
def test_every_command_and_option_explains_itself(name, command):
    assert command.help, name
    for parameter in command.params:
        assert getattr(parameter, "help", None), parameter.name


def test_the_documentation_has_every_command_and_option():
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    sections = {part.partition("\n")[0].strip(): part for part in page.split("\n## ")}
    for name, command in commands():
        section = sections[f"alexnet {name}"]
        for parameter in command.params:
            for option in parameter.opts:
                if option.startswith("--") and option != "--help":
                    assert option in section, f"{name} {option}"


# ---------------------------------------------------------------- recipes


def test_every_key_of_a_recipe_is_set_by_a_recipe_or_a_test():
    differences = [diff_recipes(Recipe(), load_recipe(name)) for name in recipe_names()]
    set_somewhere = {key.rpartition(".")[2] for difference in differences for key, _, _ in difference}
    tests = "\n".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)
    )
    names = {key.rpartition(".")[2] for key in known_keys()}
    assert sorted(name for name in names - set_somewhere if name not in tests) == []
