"""Persistent compilation cache of the command line: programs of JAX that an earlier command has compiled.

The module imports nothing heavy. It sets JAX's own environment variable before JAX is imported, so that the processes
which a command starts use the same folder.
"""

import importlib.metadata
import os
import pathlib
import sys
from collections.abc import Mapping, MutableMapping

VARIABLE = "JAX_COMPILATION_CACHE_DIR"
FIRST = (0, 11)  # earlier versions of jaxlib print an error for each program that they load on a CPU


def cache_folder(environ: Mapping[str, str], platform: str, home: pathlib.Path) -> pathlib.Path:
    """Folder for compiled programs in the user's folder for caches, by the convention of the platform.

    Args:
        environ: Environment variables. A relative ``XDG_CACHE_HOME`` is ignored, as its specification requires.
        platform: Platform, as in ``sys.platform``.
        home: Folder of the user.

    >>> home = pathlib.PurePosixPath("/home/ada")
    >>> str(cache_folder({}, "linux", home)), str(cache_folder({}, "darwin", home))
    ('/home/ada/.cache/polyak/programs', '/home/ada/Library/Caches/polyak/programs')
    """
    folder = home / ".cache"
    if platform == "win32":
        folder = home / "AppData" / "Local"
        if environ.get("LOCALAPPDATA"):
            folder = pathlib.Path(environ["LOCALAPPDATA"])
    elif os.path.isabs(environ.get("XDG_CACHE_HOME", "")):
        folder = pathlib.Path(environ["XDG_CACHE_HOME"])
    elif platform == "darwin":
        folder = home / "Library" / "Caches"
    return folder / "polyak" / "programs"


def use_compilation_cache(environ: MutableMapping[str, str]) -> None:
    """Set ``JAX_COMPILATION_CACHE_DIR`` to the folder of the user, unless it is set.

    If the folder cannot be made or written to, or jaxlib is older than 0.11, the variable stays unset, and programs are
    compiled in each process.

    Args:
        environ: Environment variables, which are changed; JAX reads them when it is imported.
    """
    version = importlib.metadata.version("jaxlib").split(".")
    if VARIABLE in environ or (int(version[0]), int(version[1])) < FIRST:
        return
    try:
        folder = cache_folder(environ, sys.platform, pathlib.Path.home())
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # JAX executes what it finds there
    except (OSError, RuntimeError):  # RuntimeError without a home
        return
    if os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        environ[VARIABLE] = str(folder)
