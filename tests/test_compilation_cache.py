"""The command line keeps compiled programs in a folder of the user; a library import changes nothing."""

import importlib.metadata
import os
import pathlib
import subprocess
import sys

import pytest

from polyak.compilation_cache import FIRST, VARIABLE, cache_folder, use_compilation_cache

HOME = pathlib.Path("/home/ada")
VERSION = tuple(int(number) for number in importlib.metadata.version("jaxlib").split(".")[:2])
CHECK = ("check", "polyak.experiments.environments.functional.catch:catch", "--steps", "10", "--num-envs", "2")


@pytest.fixture
def jaxlib(monkeypatch):
    """Function that sets the version of jaxlib, which is new enough at first."""

    def set_version(text):
        monkeypatch.setattr(importlib.metadata, "version", lambda name: text)

    set_version("0.11.0")
    return set_version


@pytest.mark.parametrize(
    ("environ", "platform", "folder"),
    [
        ({}, "linux", "/home/ada/.cache"),
        ({"XDG_CACHE_HOME": "/scratch/ada"}, "linux", "/scratch/ada"),
        ({"XDG_CACHE_HOME": ""}, "linux", "/home/ada/.cache"),
        ({"XDG_CACHE_HOME": "scratch"}, "linux", "/home/ada/.cache"),
        ({}, "darwin", "/home/ada/Library/Caches"),
        ({"XDG_CACHE_HOME": "/scratch/ada"}, "darwin", "/scratch/ada"),
        ({}, "win32", "/home/ada/AppData/Local"),
        ({"LOCALAPPDATA": "/local", "XDG_CACHE_HOME": "/scratch/ada"}, "win32", "/local"),
    ],
)
def test_the_folder_follows_the_platform(environ, platform, folder):
    assert cache_folder(environ, platform, HOME) == pathlib.Path(folder) / "polyak" / "programs"


def test_the_folder_is_private_and_becomes_the_variable(tmp_path, jaxlib):
    environ = {"XDG_CACHE_HOME": str(tmp_path / "new")}
    use_compilation_cache(environ)
    folder = tmp_path / "new" / "polyak" / "programs"
    assert environ[VARIABLE] == str(folder)
    assert os.name == "nt" or folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("named", ["/somewhere/else", ""])
def test_a_variable_that_is_set_is_kept(named, tmp_path, jaxlib):
    environ = {"XDG_CACHE_HOME": str(tmp_path), VARIABLE: named}
    use_compilation_cache(environ)
    assert environ[VARIABLE] == named
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("version", "used"), [("0.9.2", False), ("0.10.2", False), ("0.11.0", True), ("1.0.0.1", True)]
)
def test_old_versions_print_an_error_for_each_program_and_do_not_use_it(version, used, tmp_path, jaxlib):
    environ = {"XDG_CACHE_HOME": str(tmp_path)}
    jaxlib(version)
    use_compilation_cache(environ)
    assert (VARIABLE in environ) == used


def test_a_folder_that_cannot_be_used_leaves_the_variable_unset(tmp_path, monkeypatch, jaxlib):
    (tmp_path / "polyak").write_text("a file in the way")
    environ = {"XDG_CACHE_HOME": str(tmp_path)}
    use_compilation_cache(environ)
    assert VARIABLE not in environ

    environ = {"XDG_CACHE_HOME": str(tmp_path / "read-only")}
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    use_compilation_cache(environ)
    assert VARIABLE not in environ

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    environ = {}
    monkeypatch.setattr(pathlib.Path, "home", homeless)
    use_compilation_cache(environ)
    assert environ == {}


def command(cache, *arguments, **environ):
    """Run a command with ``cache`` as the user's folder for caches, which keeps programs however fast they compile."""
    every = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
    environment = {name: text for name, text in os.environ.items() if name != VARIABLE}
    environment |= {"XDG_CACHE_HOME": str(cache), "PYTHONWARNINGS": "default", **every, **environ}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="XDG_CACHE_HOME is not read there")
@pytest.mark.skipif(VERSION < FIRST, reason="jaxlib is too old")
def test_a_command_keeps_its_programs_and_a_damaged_one_does_not_stop_it(tmp_path):
    first = command(tmp_path, "-m", "polyak", *CHECK)
    assert first.returncode == 0, first.stderr
    programs = [path for path in (tmp_path / "polyak" / "programs").iterdir() if path.name.endswith("-cache")]
    assert programs
    for program in programs:
        program.write_bytes(program.read_bytes()[:100])
    second = command(tmp_path, "-m", "polyak", *CHECK)
    assert second.returncode == 0, second.stderr
    assert "reading persistent compilation cache entry" in second.stderr  # the second command reads what is there


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="XDG_CACHE_HOME is not read there")
def test_jax_switches_it_off_and_a_library_import_does_not_switch_it_on(tmp_path):
    off = command(tmp_path, "-m", "polyak", *CHECK, JAX_ENABLE_COMPILATION_CACHE="false")
    assert off.returncode == 0, off.stderr
    code = "import polyak.experiments, jax; jax.jit(lambda x: x + 1)(1.0); print(jax.config.jax_compilation_cache_dir)"
    library = command(tmp_path, "-c", code)
    assert library.stdout.strip() == "None"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
