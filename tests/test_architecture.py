"""The house rules that a reader cannot keep in mind: layers, sizes, where heavy libraries and printing may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "bendi"
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60
MAX_PARAMETERS = 6
MAX_METHODS = 15
# (place, rule): why it may be longer.
ALLOWED: dict[tuple[str, str], str] = {}
HEAVY = {
    "xllamacpp": {"engines/worker.py"},
    "pynvml": {"hardware/nvidia.py", "energy/nvml.py"},
    "matplotlib": {"report/drawing.py"},
    "zeus_apple_silicon": {"energy/apple.py"},
}
MAY_IMPORT_LATE = {"cli/main.py", "engines/registry.py", "hardware/detect.py"}
NAMES_THAT_SAY_NOTHING = {"utils", "util", "common", "helpers", "manager", "misc"}


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def place(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def imported(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name.split(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.module:
        return {node.module.split(".")[0]}
    return set()


def test_layers() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", modules(), ids=place)
def test_sizes(path: Path) -> None:
    too_big = []
    lines = path.read_text("utf-8").count("\n")
    if lines > MAX_FILE_LINES:
        too_big.append(f"{place(path)}: {lines} lines, {MAX_FILE_LINES} allowed")
    tree = parsed(path)
    for function in functions(tree):
        length = (function.end_lineno or 0) - function.lineno + 1
        if length > MAX_FUNCTION_LINES and (f"{place(path)}:{function.name}", "lines") not in ALLOWED:
            too_big.append(f"{function.name}: {length} lines, {MAX_FUNCTION_LINES} allowed")
        arguments = function.args
        names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
        count = len([name for name in names if name not in ("self", "cls")])
        if count > MAX_PARAMETERS and (f"{place(path)}:{function.name}", "parameters") not in ALLOWED:
            too_big.append(f"{function.name}: {count} parameters, {MAX_PARAMETERS} allowed")
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            methods = sum(isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef) for item in node.body)
            if methods > MAX_METHODS:
                too_big.append(f"class {node.name}: {methods} methods, {MAX_METHODS} allowed")
    assert not too_big


@pytest.mark.parametrize("path", modules(), ids=place)
def test_imports_stand_at_the_top(path: Path) -> None:
    if place(path) in MAY_IMPORT_LATE:
        return
    late = [
        f"{function.name}: {sorted(names)}"
        for function in functions(parsed(path))
        for node in ast.walk(function)
        # A module that exists on one platform only cannot be imported at the top.
        if (names := imported(node) - {"resource", "fcntl", "msvcrt", "winreg"})
    ]
    assert not late


def test_heavy_libraries_have_one_home() -> None:
    for library, homes in HEAVY.items():
        users = {place(path) for path in modules() if any(library in imported(node) for node in ast.walk(parsed(path)))}
        assert users <= homes, f"{library} is imported by {users - homes}"


def test_only_the_terminal_prints() -> None:
    for path in modules():
        calls = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.Call)]
        prints = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]
        assert not prints, f"{place(path)} line {prints[0].lineno} prints: use cli/output.py"


def test_every_package_says_what_it_knows() -> None:
    for path in SOURCE.rglob("__init__.py"):
        assert ast.get_docstring(parsed(path)), f"{place(path)} has no docstring"
        assert len(path.relative_to(SOURCE).parts) <= 2, f"{place(path)} is nested too deep"


def test_names_say_something() -> None:
    assert not {path.stem for path in modules()} & NAMES_THAT_SAY_NOTHING


def test_importing_bendi_loads_nothing_heavy() -> None:
    code = (
        "import sys, bendi, bendi.cli.main; bendi.cli.main.main(['--help']); "
        "heavy = {'xllamacpp', 'matplotlib', 'numpy', 'httpx', 'rich', "
        "'prompt_toolkit', 'sqlite3', 'argparse', 'tomlkit'}; "
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_public_names_exist() -> None:
    import bendi

    assert set(bendi._HOME) | {"__version__"} == set(bendi.__all__)
    for name in bendi.__all__:
        assert getattr(bendi, name) is not None
