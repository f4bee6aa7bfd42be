"""The ``polyak`` command; ``python -m polyak`` is the same."""


def main() -> None:
    """Placeholder entry until the command line lands."""


if __name__ == "__main__":
    main()
