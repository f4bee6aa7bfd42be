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


if __name__ == "__main__":
    main()
