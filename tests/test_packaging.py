"""The layout's rules: one folder a part under one import name, and who may know whom.

A file imported under two names (``agents.dqn`` and ``polyak.agents.dqn``) would make two classes of each NamedTuple, so
mapped folders import relatively, and everything else imports ``polyak.*``.
"""

import ast
import graphlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import polyak

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = PYPROJECT["tool"]["setuptools"]["packages"]
PACKAGE_DIR = PYPROJECT["tool"]["setuptools"]["package-dir"]
BARE_NAMES = set(PACKAGE_DIR.values())
PARTS = sorted(name.removeprefix("polyak.") for name in PACKAGE_DIR if name != "polyak")

# What each part may import of polyak: these modules and everything below them.
MAY_KNOW = {
    "updates": [],
    "networks": [],
    "replay": [],
    "agents": ["polyak.updates", "polyak.networks", "polyak.replay.types"],
    "experiments": ["polyak"],
}
# Inside experiments, each may import only itself and what stands before it.
ORDER = ["environments", "loops", "runs", "reports", "api", "commands", "cli"]
# What these two may import of other projects; the standard library is everyone's.
MAY_REQUIRE = {
    "updates": {"jax", "optax", "numpy"},
    "networks": {"jax", "haiku", "numpy"},
}


def mapped_files(part: str) -> list[Path]:
    """The modules of a part: its folder's, and those of the packages inside it, but no scripts."""
    folder = ROOT / PACKAGE_DIR[f"polyak.{part}" if part else "polyak"]
    return [path for path in sorted(folder.rglob("*.py")) if _in_package(path.parent, folder)]


def _in_package(folder: Path, top: Path) -> bool:
    return (folder / "__init__.py").exists() and (folder == top or _in_package(folder.parent, top))


def script_files() -> list[Path]:
    """Python files that are imported by nobody: tests, documentation, and the script folders of experiments."""
    mapped = {path for part in ("", *PARTS) for path in mapped_files(part)}
    folders = [ROOT / "tests", ROOT / "docs", *(ROOT / name for name in BARE_NAMES)]
    return [path for folder in folders for path in sorted(folder.rglob("*.py")) if path not in mapped]


def module_name(path: Path) -> str:
    folder, *rest = path.relative_to(ROOT).with_suffix("").parts
    name = ".".join([next(dotted for dotted, mapped in PACKAGE_DIR.items() if mapped == folder), *rest])
    return name.removesuffix(".__init__")


def imports(path: Path, *, typing: bool = True) -> Iterator[tuple[int, str, int]]:
    """Yields each import of a file as (line, dotted name as it is written, level), lazy ones included.

    Without ``typing``, those under ``if TYPE_CHECKING:`` are left out.
    """
    tree = ast.parse(path.read_text(), filename=str(path))
    unread = set() if typing else {node for guard in ast.walk(tree) if _is_typing(guard) for node in ast.walk(guard)}
    for node in ast.walk(tree):
        if node in unread:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = f"{node.module}." if node.module else ""
            yield from ((node.lineno, base + alias.name, node.level) for alias in node.names)


def _is_typing(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def resolved_imports(path: Path, *, typing: bool = True) -> Iterator[tuple[int, str]]:
    """Yields each import of a mapped file as (line, absolute dotted name)."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for line, name, level in imports(path, typing=typing):
        assert level <= len(package), f"{path}:{line}: the relative import leaves polyak"
        yield line, ".".join([*package[: len(package) - level + 1], name]) if level else name


def is_below(name: str, top: str) -> bool:
    return name == top or name.startswith(f"{top}.")


def where(path: Path, line: int, name: str) -> str:
    return f"{path.relative_to(ROOT)}:{line}: {name}"


def run_python(code: str, cwd: Path, **env: str) -> str:
    """Runs code in a fresh interpreter that starts in ``cwd``, and returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=os.environ | env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class TestLayout:
    def test_packages_are_the_folders_on_disk(self) -> None:
        on_disk = set()
        for init in ROOT.rglob("__init__.py"):
            folder = init.parent.relative_to(ROOT)
            if folder.parts and not folder.parts[0].startswith(".") and folder.parts[0] not in ("build", "dist"):
                top, *rest = folder.parts
                on_disk.add(".".join(["polyak", *([] if top == "package" else [top]), *rest]))
        assert sorted(PACKAGES) == sorted(on_disk)
        assert len(PACKAGES) == len(set(PACKAGES))

    def test_each_top_level_package_is_mapped_to_its_folder(self) -> None:
        tops = {name for name in PACKAGES if name.count(".") < 2}
        assert {name: name.removeprefix("polyak.") if "." in name else "package" for name in tops} == PACKAGE_DIR

    def test_the_root_and_the_tests_are_no_packages(self) -> None:
        assert not (ROOT / "__init__.py").exists()
        assert not (ROOT / "tests" / "__init__.py").exists()
        # It would shadow the installed package whenever Python starts in the clone.
        assert not (ROOT / "polyak").exists()

    def test_the_parts_are_public(self) -> None:
        functions = {"compare", "evaluate", "export", "load", "load_exported", "resume", "train"}
        functions |= {"load_pretrained", "pretrain", "register_agent", "sweep"}
        assert sorted(set(polyak.__all__) - {"__version__", *functions}) == PARTS

    def test_ruff_bans_every_bare_name(self) -> None:
        banned = PYPROJECT["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"]
        assert set(banned) == BARE_NAMES

    def test_the_version_is_told_once(self) -> None:
        assert polyak.__version__ == PYPROJECT["project"]["version"]


class TestImports:
    def test_mapped_folders_import_relatively(self) -> None:
        forbidden = BARE_NAMES | {"polyak"}
        wrong = [
            where(path, line, name)
            for part in ("", *PARTS)
            for path in mapped_files(part)
            for line, name, level in imports(path)
            if level == 0 and name.split(".")[0] in forbidden
        ]
        assert wrong == [], "import relatively inside the mapped folders"

    def test_everything_else_imports_polyak(self) -> None:
        files = script_files()
        assert Path(__file__).resolve() in files
        wrong = [
            where(path, line, name)
            for path in files
            for line, name, level in imports(path)
            if level > 0 or name.split(".")[0] in BARE_NAMES
        ]
        assert wrong == [], "import polyak.* outside of the mapped folders"

    def test_documentation_imports_polyak(self) -> None:
        bare = "|".join(sorted(BARE_NAMES))
        statement = rf"(?:from (?:{bare})(?:\.\w+)* import\b|import (?:{bare})(?:\.\w+)*(?: as \w+)?\s*$)"
        in_text, in_doctest = re.compile(rf"^\s*(?:>>> )?{statement}"), re.compile(rf"^\s*>>> {statement}")
        files = [(path, in_text) for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))]
        files += [(path, in_doctest) for part in ("", *PARTS) for path in mapped_files(part)]
        wrong = [
            where(path, number, line.strip())
            for path, pattern in files
            for number, line in enumerate(path.read_text().splitlines(), start=1)
            if pattern.match(line)
        ]
        assert wrong == [], "examples import polyak.*"

    @pytest.mark.parametrize("part", PARTS)
    def test_who_may_know_whom(self, part: str) -> None:
        allowed = [f"polyak.{part}", *MAY_KNOW[part]]
        wrong = [
            where(path, line, name)
            for path in mapped_files(part)
            for line, name in resolved_imports(path)
            if is_below(name, "polyak") and not any(is_below(name, top) for top in allowed)
        ]
        assert wrong == [], f"polyak.{part} may know {MAY_KNOW[part] or 'no other part'}"

    @pytest.mark.parametrize("layer", ORDER)
    def test_experiments_are_layers(self, layer: str) -> None:
        tops = [f"polyak.experiments.{name}" for name in ORDER]
        allowed = tops[: ORDER.index(layer) + 1]
        files = [path for path in mapped_files("experiments") if is_below(module_name(path), allowed[-1])]
        assert files
        wrong = [
            where(path, line, name)
            for path in files
            for line, name in resolved_imports(path)
            if is_below(name, "polyak.experiments") and not any(is_below(name, top) for top in allowed)
        ]
        assert wrong == [], f"experiments.{layer} may know {ORDER[: ORDER.index(layer)] or 'no other layer'}"

    def test_every_module_of_experiments_is_in_a_layer(self) -> None:
        below = {module_name(path).removeprefix("polyak.experiments") for path in mapped_files("experiments")}
        assert {name.split(".")[1] for name in below if name} == set(ORDER)

    @pytest.mark.parametrize("part", sorted(MAY_REQUIRE))
    def test_what_stands_alone_requires_little(self, part: str) -> None:
        allowed = MAY_REQUIRE[part] | set(sys.stdlib_module_names) | {"polyak"}
        wrong = [
            where(path, line, name)
            for path in mapped_files(part)
            for line, name in resolved_imports(path)
            if name.split(".")[0] not in allowed
        ]
        assert wrong == [], f"polyak.{part} may require {sorted(MAY_REQUIRE[part])}"

    def test_no_module_imports_itself_over_others(self) -> None:
        # What is imported for annotations alone never runs; it is held to who may know whom all the same.
        files = {module_name(path): path for part in ("", *PARTS) for path in mapped_files(part)}
        graph: dict[str, set[str]] = {}
        for module, path in files.items():
            graph[module] = set()
            for _, name in resolved_imports(path, typing=False):
                while name and name not in files:  # The longest prefix that is a module; what is left is an attribute.
                    name = name.rpartition(".")[0]
                if name and name != module:
                    graph[module].add(name)
        assert set(graph) >= {f"polyak.{part}" for part in PARTS}
        order = list(graphlib.TopologicalSorter(graph).static_order())  # CycleError names the cycle.
        assert len(order) == len(graph)


class TestInterpreter:
    def test_importing_polyak_is_light(self) -> None:
        code = "import polyak, sys; print([name for name in ('jax', 'numpy', 'haiku') if name in sys.modules])"
        assert run_python(code, ROOT).strip() == "[]"

    def test_no_part_is_imported_under_its_bare_name(self) -> None:
        # Started in the clone, where the bare names can be imported.
        code = f"""
import importlib, sys
for module in {sorted(module_name(path) for part in PARTS for path in mapped_files(part))}:
    importlib.import_module(module)
print(sorted(name for name in sys.modules if name.split(".")[0] in {BARE_NAMES}))
"""
        assert run_python(code, ROOT).strip() == "[]"

    def test_updates_works_when_its_folder_alone_is_copied(self, tmp_path: Path) -> None:
        shutil.copytree(ROOT / "updates", tmp_path / "elsewhere_updates", ignore=_LEFT_OUT)
        code = """
import importlib, sys
import jax.numpy as jnp
updates = importlib.import_module("elsewhere_updates")
moved = updates.incremental_update({"w": jnp.asarray([1.0])}, {"w": jnp.asarray([0.0])}, 0.25)
print(updates.__file__, moved["w"].tolist())
print([name for name in sys.modules if name.split(".")[0] in ("polyak", "haiku", "rlax", "gymnasium")])
"""
        first, second = run_python(code, tmp_path).splitlines()
        assert first == f"{tmp_path / 'elsewhere_updates' / '__init__.py'} [0.25]"
        assert second == "[]"


_LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.egg-info")


def _has_build_backend() -> bool:
    try:
        return int(importlib.metadata.version("setuptools").split(".")[0]) >= 77
    except importlib.metadata.PackageNotFoundError:
        return False


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree with polyak installed under ``site``: building in the checkout would leave files there."""
    if importlib.util.find_spec("pip") is None:
        pytest.skip("pip is not installed in this environment")
    clone = tmp_path_factory.mktemp("clone")
    for folder in BARE_NAMES:
        shutil.copytree(ROOT / folder, clone / folder, ignore=_LEFT_OUT)
    for name in ("pyproject.toml", PYPROJECT["project"]["readme"], *PYPROJECT["project"]["license-files"]):
        shutil.copy(ROOT / name, clone / name)
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--disable-pip-version-check"]
    if _has_build_backend():
        command.append("--no-build-isolation")  # Nothing is fetched.
    done = subprocess.run(
        [*command, "--target", str(clone / "site"), str(clone)], capture_output=True, text=True, timeout=300
    )
    if "No matching distribution found for setuptools" in done.stderr:
        pytest.skip("the build backend is not installed and cannot be fetched; install setuptools>=77")
    assert done.returncode == 0, done.stderr
    return clone


@pytest.mark.slow
class TestPlainInstall:
    """An install that copies, as users make it; the other tests run on an editable one."""

    def test_all_modules_import_from_the_clone(self, clone: Path) -> None:
        files_of_all = [path for part in ("", *PARTS) for path in mapped_files(part)]
        modules = sorted(module_name(path) for path in files_of_all if path.name != "__main__.py")
        code = f"""
import importlib, sys
import polyak
for module in {modules}:
    importlib.import_module(module)
print("\\n".join(sorted(m.__file__ for name, m in sys.modules.items() if name.split(".")[0] == "polyak")))
print(polyak.__version__)
"""
        *files, version = run_python(code, clone, PYTHONPATH=str(clone / "site")).splitlines()
        assert len(files) == len(modules)
        assert [file for file in files if not Path(file).is_relative_to(clone / "site")] == []
        assert version == PYPROJECT["project"]["version"]

    def test_it_holds_the_modules_and_nothing_else(self, clone: Path) -> None:
        site = clone / "site" / "polyak"
        installed = {path.relative_to(site).as_posix() for path in site.rglob("*.py")}
        expected = {
            "/".join(path.relative_to(ROOT).parts[0 if part else 1 :])
            for part in ("", *PARTS)
            for path in mapped_files(part)
        }
        assert installed == expected
        assert (site / "py.typed").exists()
        assert BARE_NAMES.isdisjoint(path.name for path in (clone / "site").iterdir())

    def test_the_command_is_installed(self, clone: Path) -> None:
        for command in PYPROJECT["project"]["scripts"]:
            assert (clone / "site" / "bin" / command).exists()
