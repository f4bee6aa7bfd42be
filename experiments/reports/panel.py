"""Panel on a terminal during a run: a record and the settings of the run, drawn by rich."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..runs.config import RunConfig
from ..runs.pretrain_config import PretrainConfig

if TYPE_CHECKING:
    from rich.console import RenderableType

WIDTH = 100  # columns at most; on a wider terminal the eye would have far to go
TWO_COLUMNS = 76  # columns from which on the numbers stand in two
NAMES = 10  # columns of a name
CURVE = 36  # columns of the curve of returns, or of the probe
_BLOCKS = "▁▂▃▄▅▆▇█"


def panel(
    config: RunConfig | PretrainConfig,
    resolved: Mapping[str, Any],
    record: Mapping[str, Any],
    *,
    width: int = 80,
    left: str = "",
    speed: float | None = None,
    curve: Sequence[float | None] = (),
) -> "RenderableType":
    """Returns the panel.

    Args:
        config: Config of the run.
        resolved: Numbers that follow from the config (``config.json`` has them), and the ``folder``; those that are
            absent are not shown.
        record: Newest record, empty before the first.
        width: Number of columns; from 76 on the numbers stand in two columns.
        left: Text beside the time gone, such as ``8 s left``.
        speed: Number of steps per second; by default the record's own, a mean since the run began.
        curve: Mean returns, or accuracies of a probe, over the run, drawn as blocks; None where there is none yet.

    >>> from rich.console import Console
    >>> record = {"step": 500, "seconds": 90.5, "return_last": 12.0, "return_mean": 15.25}
    >>> drawn = panel(RunConfig(steps=2000), {}, record, width=76, curve=[9.0, 10.0, 14.0, 15.25])
    >>> Console(width=80, force_terminal=False).print(drawn)
    ╭─ n_step_double_dqn on CartPole-v1, seed 0 ───────────────────────────────╮
    │ ━━━━━━━━━━━                                    25 %    500 / 2,000 steps │
    │ return    last 12.0, mean 15.2      ▁▂▇█                                 │
    │ time      1 min 30 s                loss      from step 1,000 on         │
    │ speed     -                         epsilon   -                          │
    │ compile   -                         episodes  -                          │
    │ replay    -                         learner   -                          │
    ╰──────────────────────────────────────────────────────────────────────────╯
    """
    from rich.console import Group
    from rich.panel import Panel
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    def line(*cells: Any, widths: Sequence[int | None]) -> Table:
        table = Table.grid(expand=True)
        for wide in widths:
            table.add_column(width=wide, ratio=None if wide else 1, no_wrap=True, overflow="ellipsis")
        table.add_row(*cells)
        return table

    def fields(*pairs: tuple[str, str]) -> Table:
        cells = [cell for name, text in pairs for cell in (Text(name, "dim"), Text(text))]
        return line(*cells, widths=[NAMES, None] * len(pairs))

    step, steps = record.get("step", 0), config.steps
    counted = f"{_percent(step / steps):>7}  {step:>{len(f'{steps:,}')},} / {steps:,} steps"
    bar = ProgressBar(total=steps, completed=step, complete_style="cyan", finished_style="green")
    if isinstance(config, PretrainConfig):
        pairs, (headline, result) = _numbers_of_pretraining(resolved, record, left, speed), ("probe", _probes(record))
        title = f"{config.method} on {config.data}, seed {config.seed}"
    else:
        pairs, (headline, result) = _numbers(config, resolved, record, left, speed), ("return", _returns(record))
        title = f"{config.label} on {config.env}, seed {config.seed}"
    drawn = Text(sparkline(curve), "cyan")
    rows = [line(bar, Text(counted), widths=[None, len(counted)])]
    if width >= TWO_COLUMNS:
        half, value = len(pairs) // 2, (width - 4) // 2 - NAMES
        rows += [line(Text(headline, "dim"), Text(result), drawn, widths=[NAMES, value, None])]
        rows += [fields(*both) for both in zip(pairs[:half], pairs[half:], strict=True)]
    else:
        rows += [fields((headline, result)), line("", drawn, widths=[NAMES, None])]
        rows += [fields(pair) for pair in pairs]
    rows += [fields(pair) for pair in _targets(resolved, record)]
    folder = Text(str(resolved["folder"])) if "folder" in resolved else None
    look: dict[str, Any] = {"title_align": "left", "subtitle_align": "left", "border_style": "dim", "width": width}
    return Panel(Group(*rows), title=Text(title, "bold not dim"), subtitle=folder, **look)


def duration(seconds: float) -> str:
    """A time in words, to two units.

    >>> duration(7.6), duration(90.5), duration(7_530), duration(200_000)
    ('8 s', '1 min 30 s', '2 h 05 min', '2 d 07 h')
    """
    whole = round(seconds)
    for unit, name, part, part_name in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min")):
        if whole >= unit:
            return f"{whole // unit} {name} {whole % unit // part:02} {part_name}"
    return f"{whole // 60} min {whole % 60:02} s" if whole >= 60 else f"{whole} s"


def sparkline(values: Sequence[float | None]) -> str:
    """Values as blocks of eight heights, the lowest to the highest; None as a space.

    >>> sparkline([None, 1.0, 2.0, 8.0])
    ' ▁▂█'
    """
    known = [value for value in values if value is not None]
    if not known:
        return ""
    lowest, span = min(known), max(known) - min(known) or 1.0
    heights = [None if value is None else round((value - lowest) / span * (len(_BLOCKS) - 1)) for value in values]
    return "".join(" " if height is None else _BLOCKS[height] for height in heights)


def _numbers(
    config: RunConfig, resolved: Mapping[str, Any], record: Mapping[str, Any], left: str, speed: float | None
) -> list[tuple[str, str]]:
    """Names and numbers, those of the first column first."""
    from rich.filesize import decimal

    capacity = config.loop.replay.replay_capacity
    replay = [f"{_percent(record['replay_size'] / capacity)} of {capacity:,}"] if "replay_size" in record else []
    replay += [decimal(resolved["replay_bytes"])] if "replay_bytes" in resolved else []
    starts = config.loop.cadence.learning_starts
    return [
        *_times(record, left, speed, ",.0f"),
        ("replay", ", ".join(replay) or "-"),
        ("loss", _number(record, "loss", ".3g") if record.get("learner_steps") else f"from step {starts:,} on"),
        ("epsilon", _number(record, "epsilon", ".2f")),
        ("episodes", _number(record, "episodes", ",")),
        ("learner", f"{_number(record, 'learner_steps', ',')} steps" if "learner_steps" in record else "-"),
    ]


def _numbers_of_pretraining(
    resolved: Mapping[str, Any], record: Mapping[str, Any], left: str, speed: float | None
) -> list[tuple[str, str]]:
    images = f"{resolved['training_images']:,}" if "training_images" in resolved else "-"
    return [
        *_times(record, left, speed, ",.1f"),
        ("images", images),
        ("loss", _number(record, "loss", ".3g")),
        ("cosine", _number(record, "prediction_cosine", ".3f")),
        ("spread", _number(record, "projection_spread", ".3f")),
        ("rank", _number(record, "feature_rank/0.01", ".0f")),
    ]


def _times(
    record: Mapping[str, Any], left: str, speed: float | None, form: str
) -> tuple[tuple[str, str], tuple[str, str], tuple[str, str]]:
    time = duration(record["seconds"]) if "seconds" in record else "-"
    speed = record.get("steps_per_second") if speed is None else speed
    compiled = f"{_number(record, 'compile_seconds', '.1f')} s, {_number(record, 'compilations', ',')} programs"
    return (
        ("time", f"{time}, {left}" if left else time),
        ("speed", "-" if speed is None else f"{format(speed, form)} steps/s"),
        ("compile", compiled if "compilations" in record else "-"),
    )


def _number(record: Mapping[str, Any], name: str, form: str) -> str:
    return "-" if record.get(name) is None else format(record[name], form)


def _probes(record: Mapping[str, Any]) -> str:
    few, every = record.get("probe/few_labels"), record.get("probe/linear")
    return "-" if few is None or every is None else f"10 labels {few:.3f}, all {every:.3f}"


def _returns(record: Mapping[str, Any]) -> str:
    last, mean = record.get("return_last"), record.get("return_mean")
    return "-" if last is None or mean is None else f"last {last:.1f}, mean {mean:.1f}"


def _targets(resolved: Mapping[str, Any], record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The rule of each target and its distance from the online parameters; the first is the agent's main one."""
    for number, (name, target) in enumerate(resolved.get("targets", {}).items()):
        distance = record.get(f"target_distance/{name}")
        told = target["rule"] if distance is None else f"{target['rule']}, distance {distance:.3g}"
        yield name if number else "target", told


def _percent(part: float) -> str:
    return f"{min(part, 1.0) * 100:.0f} %"
