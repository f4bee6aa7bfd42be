"""Displays of one changing text with messages: in place on a terminal, and in the output of a notebook's cell."""

import html
import io
import sys
from typing import TYPE_CHECKING, Any, Protocol, TextIO, cast

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

NOTEBOOK_WIDTH = 90  # columns
_STYLE = "margin:0;white-space:pre;line-height:1.2;font-family:Menlo,Consolas,'DejaVu Sans Mono',monospace"


class Display(Protocol):
    """Place for one text that changes, and for messages."""

    @property
    def width(self) -> int:
        """Number of columns now."""

    @property
    def ascii_only(self) -> bool:
        """Whether it has no characters outside of ASCII."""

    def draw(self, text: "RenderableType") -> None:
        """Replace the text."""

    def say(self, message: str) -> None:
        """Add a message."""

    def close(self, text: "RenderableType") -> None:
        """Leave a last text in place, with the messages since the text before it below; nothing if none was drawn."""


def make_display(stream: "Unfailing") -> Display | None:
    """Display on ``stream``, a terminal, or in a notebook; None where only lines can be written.

    A terminal with ``TERM=dumb`` has lines only. The stream itself is asked, because rich reports a terminal with
    FORCE_COLOR.
    """
    if "IPython" not in sys.modules and not is_terminal(cast(TextIO, stream)):
        return None
    from rich.console import Console

    console = Console(file=cast(TextIO, stream))
    if console.is_jupyter:
        return NotebookDisplay()
    return TerminalDisplay(console) if is_terminal(cast(TextIO, stream)) and console.is_interactive else None


class TerminalDisplay:
    """Text in place at the end of a terminal.

    A message is shown below the text until the next text, which moves it above. The messages at the end of a run, for
    example after Ctrl-C, therefore stay below the last text.
    """

    def __init__(self, console: "Console") -> None:
        """Start without output."""
        from rich.live import Live

        # No thread draws during training. Other output goes above the text, unless stdout is a file or a pipe.
        self._live = Live(console=console, auto_refresh=False, redirect_stdout=is_terminal(sys.stdout))
        self._console = console
        self._text: RenderableType = ""
        self._messages: list[str] = []
        self._drawn: RenderableType = ""
        self._drawn_width = 0

    @property
    def width(self) -> int:
        """Number of columns now."""
        return self._console.width

    @property
    def ascii_only(self) -> bool:
        """Whether it has no characters outside of ASCII."""
        return self._console.options.ascii_only

    def draw(self, text: "RenderableType") -> None:
        """Replace the text, and move the messages above it."""
        self._live.start()
        messages, self._messages, self._text = self._messages, [], text
        self._update()
        for message in messages:
            self._print(message)

    def say(self, message: str) -> None:
        """Add a message below the text."""
        if self._live.is_started:
            self._messages.append(message)
            self._update()
        else:
            self._print(message)

    def close(self, text: "RenderableType") -> None:
        """Leave a last text in place, with the messages below it."""
        if not self._live.is_started:
            return
        messages, self._messages, self._text = self._messages, [], text
        self._update()
        self._live.stop()
        for message in messages:  # printed without line breaks, so that a command in one can be copied
            self._print(message)

    def _print(self, message: str) -> None:
        self._console.print(message, markup=False, emoji=False, highlight=False, soft_wrap=True)

    def _update(self) -> None:
        from rich.console import Group
        from rich.text import Text

        self._erase_wrapped()
        self._drawn, self._drawn_width = Group(self._text, *map(Text, self._messages)), self.width
        self._live.update(self._drawn, refresh=True)

    def _erase_wrapped(self) -> None:
        """Erase the rows that a narrower terminal has added by wrapping lines; rich erases one row for each line."""
        from rich.control import Control
        from rich.segment import ControlType

        if self.width >= self._drawn_width:
            return
        lines = self._console.render_lines(
            self._drawn, self._console.options.update(width=self._drawn_width), pad=False
        )
        lengths = [sum(segment.cell_length for segment in line) for line in lines]
        rows = sum((length - 1) // self.width for length in lengths if length)
        erase, up = (ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1)
        self._console.control(Control(ControlType.CARRIAGE_RETURN, erase, *([up, erase] * rows)))


class NotebookDisplay:
    """Text in place in the output of a notebook's cell, with the messages below it.

    rich's own display in notebooks needs ipywidgets; this one needs IPython alone, which each notebook has.
    """

    width, ascii_only = NOTEBOOK_WIDTH, False

    def __init__(self) -> None:
        """Start without output."""
        self._handle: Any = None

    def draw(self, text: "RenderableType") -> None:
        """Replace the text."""
        from IPython.display import display

        bundle = _as_mime_bundle(text)
        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)

    def say(self, message: str) -> None:
        """Add a message below the text."""
        print(message, flush=True)

    def close(self, text: "RenderableType") -> None:
        """Leave a last text in place."""
        if self._handle is not None:
            self.draw(text)


def _as_mime_bundle(text: "RenderableType") -> dict[str, str]:
    """Text as HTML and as plain text."""
    from rich.console import Console

    console = Console(width=NOTEBOOK_WIDTH, file=io.StringIO(), record=True, force_jupyter=False, color_system="256")
    console.print(text)
    drawn = console.export_html(inline_styles=True, code_format="{code}", clear=False)
    style = html.escape(_STYLE, quote=True)
    return {"text/html": f'<pre style="{style}">{drawn}</pre>', "text/plain": console.export_text()}


class Unfailing:
    """Stream that ignores what is written to it after a write has failed."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream, self._failed = stream, stream is None

    def write(self, text: str) -> int:
        """Write a text."""
        self._attempt("write", text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        self._attempt("flush")

    def _attempt(self, name: str, *arguments: str) -> None:
        if self._failed:
            return
        try:
            getattr(self._stream, name)(*arguments)
        except (OSError, ValueError):  # ValueError: the stream is closed
            self._failed = True

    def __getattr__(self, name: str) -> Any:  # isatty, fileno and encoding, which rich reads
        return getattr(self._stream, name)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal; False for a closed one."""
    try:
        return stream is not None and stream.isatty()
    except (ValueError, AttributeError):  # the stream is closed, or is an Unfailing of None
        return False
