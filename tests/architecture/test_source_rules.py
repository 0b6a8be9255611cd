"""Rules about our own source that neither ruff nor mypy knows, each shown to bite on a small offender."""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
BANNED_NAME = re.compile(r"(utils?|helpers?|common|misc|base_.*)")
WALL_CLOCK = re.compile(r"\b(time\.time|time_ns|now|utcnow|today)$")
UNSAFE_MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {"eval", "exec", "torch.load", "yaml.load", "os.system", "pickle.load", "pickle.loads"}
UNSAFE_SWITCHES = {"shell", "allow_pickle"}

LIBRARY = sorted(path for folder in ("deepfm", "flows") for path in (ROOT / folder).rglob("*.py"))
EVERY_FILE = sorted(
    [*LIBRARY, *(ROOT / "tests").rglob("*.py"), *(ROOT / "examples").rglob("*.py"), ROOT / "conftest.py"]
)

Check = Callable[[ast.Module], Iterator[str]]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported_modules(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.lineno, node.module
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in {"importlib.import_module", "__import__"}:
            yield from ((node.lineno, str(arg.value)) for arg in node.args if isinstance(arg, ast.Constant))


def unsafe_code(tree: ast.Module) -> Iterator[str]:
    """Whatever can run code that arrives as data (a stored model or configuration must never do that)."""
    for line, module in imported_modules(tree):
        if module.split(".")[0] in UNSAFE_MODULES or module in UNSAFE_CALLS:
            yield f"line {line}: import of {module}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in UNSAFE_CALLS:
                yield f"line {node.lineno}: call of {called}"
            for keyword in node.keywords:
                on = not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False)
                if keyword.arg in UNSAFE_SWITCHES and on:
                    yield f"line {node.lineno}: {keyword.arg} is not False"


def prints(tree: ast.Module) -> Iterator[str]:
    """Calls of print: the library speaks through logging, the command line through its console."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield f"line {node.lineno}: print"


def long_functions(tree: ast.Module) -> Iterator[str]:
    """Functions of more lines than one screen."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MAX_FUNCTION_LINES:
                yield f"line {node.lineno}: {node.name} has {lines} lines"


def great_expectations_imports(tree: ast.Module) -> Iterator[str]:
    """Imports of great_expectations, which costs seconds and hundreds of megabytes."""
    for line, module in imported_modules(tree):
        if module.split(".")[0] == "great_expectations":
            yield f"line {line}: import of {module}"
            return


def wall_clocks(tree: ast.Module) -> Iterator[str]:
    """Reads of the wall clock, which may jump back: what measures a duration uses time.monotonic."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and re.search(
            r"\b(time\.time|time_ns|now|utcnow|today)$", ast.unparse(node.func)
        ):
            yield f"line {node.lineno}: call of {ast.unparse(node.func)}"


def more_than_a_docstring(tree: ast.Module) -> Iterator[str]:
    """Statements of a package's __init__ beyond its docstring."""
    if ast.get_docstring(tree) is None:
        yield "no docstring"
    yield from (f"line {node.lineno}: {ast.unparse(node)}" for node in tree.body[1:])


def offences(paths: list[Path], check: Check) -> list[str]:
    return [
        f"{name_of(path)}, {offence}"
        for path in paths
        for offence in check(ast.parse(path.read_text(encoding="utf-8")))
    ]


def test_nothing_that_runs_code_from_data():
    assert offences(EVERY_FILE, unsafe_code) == []


def test_the_library_does_not_print():
    assert offences(LIBRARY, prints) == []


def test_functions_fit_a_screen():
    assert offences(EVERY_FILE, long_functions) == []


def test_files_stay_whole_and_small():
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in EVERY_FILE}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_FILE_LINES} == {}


def test_no_file_is_a_dumping_ground():
    assert [name_of(path) for path in EVERY_FILE if BANNED_NAME.fullmatch(path.stem)] == []
    folders = {folder for path in EVERY_FILE for folder in path.relative_to(ROOT).parent.parts}
    assert [folder for folder in sorted(folders) if BANNED_NAME.fullmatch(folder)] == []


def test_only_validation_imports_great_expectations():
    importers = {path for path in LIBRARY if offences([path], great_expectations_imports)}
    assert importers == {ROOT / "deepfm/data/validation.py"}


def test_the_wall_clock_tells_when_and_never_how_long():
    # When an entry was made, what a server's or a file's time is compared with, which day it is.
    readers = {name_of(path) for path in LIBRARY if offences([path], wall_clocks)}
    assert readers == {
        "deepfm/doctor/examination.py",
        "deepfm/doctor/bucket.py",
        "deepfm/pipeline.py",
        "deepfm/retention.py",
        "deepfm/promotion.py",
        "deepfm/storage/cache.py",
        "flows/backfill.py",
        "flows/doctor.py",
        "flows/retrain.py",
    }


def test_a_package_init_is_a_docstring():
    # storage hands out its narrow face, so that its callers cannot depend on which store it is.
    inits = [path for path in LIBRARY if path.name == "__init__.py" and path.parent.name != "storage"]
    assert offences(inits, more_than_a_docstring) == []


def test_every_package_has_an_init():
    folders = {path.parent for path in LIBRARY}
    assert [name_of(folder) for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


@pytest.mark.parametrize(
    ("check", "offender"),
    [
        (unsafe_code, "import pickle"),
        (unsafe_code, "from joblib import load"),
        (unsafe_code, "import importlib\nimportlib.import_module('dill')"),
        (unsafe_code, "import torch\ntorch.load('weights')"),
        (unsafe_code, "from torch import load"),
        (unsafe_code, "from yaml import load"),
        (unsafe_code, "eval('1')"),
        (unsafe_code, "def f():\n    exec('1')"),
        (unsafe_code, "import subprocess\nsubprocess.run('ls', shell=True)"),
        (unsafe_code, "import numpy as np\nnp.load('x', allow_pickle=flag)"),
        (prints, "print(1)"),
        (long_functions, "def f():\n" + "    x = 1\n" * MAX_FUNCTION_LINES),
        (great_expectations_imports, "def f():\n    from great_expectations import checkpoint"),
        (wall_clocks, "began = time.time()"),
        (wall_clocks, "import datetime as dt\nwhen = dt.datetime.now(dt.UTC)"),
        (more_than_a_docstring, '"""A package."""\n\nfrom a import b'),
        (more_than_a_docstring, ""),
    ],
)
def test_a_check_finds_its_offender(check: Check, offender: str):
    assert list(check(ast.parse(offender)))


@pytest.mark.parametrize(
    ("check", "innocent"),
    [
        (unsafe_code, "model.eval()\nnp.load('x', allow_pickle=False)\nyaml.safe_load('a')"),
        (unsafe_code, "import subprocess\nsubprocess.run(['ls'], shell=False)"),
        (prints, "console.print(1)"),
        (long_functions, "def f():\n" + "    x = 1\n" * (MAX_FUNCTION_LINES - 1)),
        (great_expectations_imports, "import great_expectations_like"),
        (wall_clocks, "began = time.monotonic()"),
        (more_than_a_docstring, '"""A package."""\n'),
    ],
)
def test_a_check_leaves_the_innocent_alone(check: Check, innocent: str):
    assert not list(check(ast.parse(innocent)))
