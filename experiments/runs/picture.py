"""Figure that Jupyter shows as the value of a cell, without ``matplotlib.pyplot`` and without a window system."""

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


class Picture(Figure):
    """Figure of matplotlib, which draws with Agg and has its own PNG for Jupyter.

    Args:
        width: Width in inches.
        height: Height in inches.

    >>> Picture(2, 1)._repr_png_()[1:4]
    b'PNG'
    """

    def __init__(self, width: float, height: float) -> None:
        super().__init__(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(self)

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()
