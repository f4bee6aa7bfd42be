"""Command ``polyak``, also ``python -m polyak``. Help is printed before anything heavy is imported."""

import os
import sys


def main() -> None:
    """Run the command line on ``sys.argv`` and exit with its status."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        from .help import overview

        print(overview(), end="")
        sys.exit(0)
    if arguments[0] == "--version":
        from . import __version__

        print(__version__)
        sys.exit(0)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a character missing in the encoding prints as "?"
            stream.reconfigure(errors="replace")
    try:
        sys.exit(_run(arguments))
    except KeyboardInterrupt:  # before a run begins; the run itself handles it later
        sys.exit(130)


def _run(arguments: list[str]) -> int:
    if arguments[0] != "agents" and not {"-h", "--help", "--help-all"} & {*arguments}:
        if _trains_lanes(arguments):
            os.environ["XLA_FLAGS"] = lane_flags(os.environ.get("XLA_FLAGS", ""), _cores())
        from .compilation_cache import use_compilation_cache

        use_compilation_cache(os.environ)
        import jax

        # Synchronous dispatch takes a fifth of the time if the result is fetched immediately.
        jax.config.update("jax_cpu_enable_async_dispatch", False)
        try:
            jax.devices()
        except (RuntimeError, AssertionError) as error:
            asked, reason = os.environ.get("JAX_PLATFORMS", ""), f" ({error})" if str(error) else ""
            print(
                f"polyak: JAX_PLATFORMS: got {asked!r}, and JAX has no such device here{reason}. "
                "Unset JAX_PLATFORMS, or install a JAX that has it, as with: pip install 'jax[cuda12]'",
                file=sys.stderr,
            )
            return 2
    from .experiments.cli import run

    if os.getcwd() not in sys.path:  # as with `python -m polyak`: import modules of the working directory
        sys.path.append(os.getcwd())
    return run(arguments)


def _trains_lanes(arguments: list[str]) -> bool:
    """Whether a command trains the lanes of a sweep."""
    resumes = arguments[0] == "resume" and any(os.path.isfile(os.path.join(word, "sweep.json")) for word in arguments)
    return arguments[0] == "sweep" or resumes


def lane_flags(given: str, cores: int) -> str:
    """Return XLA's flags for the lanes of a sweep on CPU: a device with one thread for each core.

    XLA reads them when JAX starts. They do not affect other devices.

    Args:
        given: Flags of the environment, which are kept.
        cores: Number of cores.

    >>> lane_flags("--xla_force_host_platform_device_count=3", cores=8)
    '--xla_force_host_platform_device_count=3 --xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1'
    """
    flags = {
        "--xla_force_host_platform_device_count": cores,
        "--xla_cpu_multi_thread_eigen": "false",
        "intra_op_parallelism_threads": 1,
    }
    return " ".join([*given.split(), *(f"{name}={value}" for name, value in flags.items() if name not in given)])


def _cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    main()
