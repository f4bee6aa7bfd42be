"""The picture of the panel in the README: the last panel of a real run on a terminal of 100 columns.

    python experiments/reproduce/panel.py

Runs ``polyak train --evaluate-every 5000`` on a pseudo-terminal and writes docs/images/panel.svg. About a minute on two
cores; Linux and macOS only.
"""

import io
import os
import pathlib
import pty
import re
import sys
import tempfile

from rich.console import CONSOLE_SVG_FORMAT, Console
from rich.text import Text

ROOT = pathlib.Path(__file__).parents[2]
WORDS = ["train", "--evaluate-every", "5000"]
COLUMNS = 100


def output_of(command):
    """Return the output of a command on a pseudo-terminal."""
    written = io.BytesIO()

    def read(file):
        data = os.read(file, 4096)
        written.write(data)
        return data

    os.environ |= {"COLUMNS": str(COLUMNS), "LINES": "40", "TERM": "xterm-256color"}
    if pty.spawn(command, read):
        raise RuntimeError(f"{command} failed")
    return written.getvalue().decode()


def main():
    """Trains and draws."""
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        output = output_of([sys.executable, "-m", "polyak", *WORDS])
    last = output[output.rindex("╭") :]
    lines = last[: last.index("╯") + 1].replace("\r", "")
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print(Text.from_ansi(lines))
    form = re.sub(r"@font-face \{\{.*?\}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)  # fonts would be downloaded
    picture = console.export_svg(title=" ".join(["polyak", *WORDS]), code_format=form)
    (ROOT / "docs" / "images" / "panel.svg").write_text(picture)


if __name__ == "__main__":
    main()
