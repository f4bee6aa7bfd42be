"""Panel of a run: a record and the settings of the run, drawn by rich."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..runs.config import RunConfig
from ..runs.pretrain_config import PretrainConfig
from ..runs.records import WINDOW

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

WIDTH = 100  # columns at most, so that a wide terminal can be read at a glance
TWO_COLUMNS = 76  # columns from which on the numbers stand in two
NAMES = 10  # columns of a name
CURVE = 36  # columns at most of the curve of returns, or of the probe
_BLOCKS = "▁▂▃▄▅▆▇█"
_SCALE = 8  # columns at most of a number beside the curve

Field = tuple[str, str]  # name and text


class Numbers(NamedTuple):
    """Texts of a panel.

    Attributes:
        title: Title.
        headline: Result so far, beside which the curve stands.
        pairs: Fields, those of the first of two columns first.
        long: Fields that take a line each.
        form: Format of the numbers beside the curve.
    """

    title: str
    headline: Field
    pairs: list[Field]
    long: list[Field]
    form: str


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
    """Draw the panel.

    Args:
        config: Config of the run.
        resolved: Numbers that follow from the config (``config.json`` has them), and the ``folder``; a panel without
            them shows less.
        record: Newest record, empty before the first; with ``evaluated_at``, the step of its evaluation.
        width: Number of columns; from 76 on the numbers stand in two columns.
        left: Time left, such as ``8 s``, or the state of the run.
        speed: Number of steps per second; by default the record's own, a mean since the run began.
        curve: Mean returns, or accuracies of a probe, over the run, drawn as blocks between the lowest and the highest
            value; None where there is none yet.

    >>> from rich.console import Console
    >>> record = {"step": 500, "seconds": 90.5, "return_mean_20": 15.25, "length_mean_20": 15.25}
    >>> drawn = panel(RunConfig(steps=2000), {}, record, width=76, curve=[9.0, 9.0, 10.0, 10.0, 14.0, 15.25])
    >>> Console(width=80, force_terminal=False).print(drawn)
    ╭─ n_step_double_dqn on CartPole-v1, seed 0 ───────────────────────────────╮
    │ ━━━━━━━━━━━                                    25 %    500 / 2,000 steps │
    │ return    15.2 (last 20 episodes)   9.0 ▁▂█ 15.2                         │
    │ window    - (last 5,000 steps)      episodes  -                          │
    │ time      1 min 30 s                length    15 steps (last 20)         │
    │ left      -                         epsilon   -                          │
    │ speed     -                         loss      from step 1,000 on         │
    │ compile   -                         learner   -                          │
    │ replay    -                                                              │
    ╰──────────────────────────────────────────────────────────────────────────╯
    """
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    if isinstance(config, PretrainConfig):
        found = _pretraining_numbers(config, resolved, record, left, speed)
    else:
        found = _training_numbers(config, resolved, record, left, speed)
    pairs, two = found.pairs, width >= TWO_COLUMNS
    columns = (width - 4) // 2 if two else width - 4 - NAMES
    drawn = Text(sparkline(curve, columns, found.form), "cyan")
    if two:
        half, value = len(pairs) // 2, (width - 4) // 2 - NAMES
        rows = [_line(*_cells(found.headline), drawn, widths=[NAMES, value, None])]
        rows += [_fields(*both) for both in zip(pairs[:half], pairs[half:], strict=True)]
    else:
        rows = [_fields(found.headline), _line("", drawn, widths=[NAMES, None]), *map(_fields, pairs)]
    targets = _targets(resolved, record, ", " if two else "\n")
    rows += [_fields(pair, wraps=not two) for pair in (*found.long, *targets)]
    folder = Text(str(resolved["folder"])) if "folder" in resolved else None
    title = Text(found.title, "bold not dim")
    title.truncate(width - 6, overflow="ellipsis")  # rich would widen the panel
    look: dict[str, Any] = {"title_align": "left", "subtitle_align": "left", "border_style": "dim", "width": width}
    bar = _bar(record.get("step", 0), config.steps)
    return Panel(Group(bar, *rows), title=title, subtitle=folder, **look)


def _bar(step: int, steps: int) -> "Table":
    from rich.progress_bar import ProgressBar
    from rich.text import Text

    counted = f"{_percent(step / steps):>7}  {step:>{len(f'{steps:,}')},} / {steps:,} steps"
    bar = ProgressBar(total=steps, completed=step, complete_style="cyan", finished_style="green")
    return _line(bar, Text(counted), widths=[None, len(counted)])


def _fields(*pairs: Field, wraps: bool = False) -> "Table":
    return _line(*(cell for pair in pairs for cell in _cells(pair)), widths=[NAMES, None] * len(pairs), wraps=wraps)


def _cells(pair: Field) -> "tuple[Text, Text]":
    from rich.text import Text

    return Text(pair[0], "dim"), Text(pair[1])


def _line(*cells: Any, widths: Sequence[int | None], wraps: bool = False) -> "Table":
    from rich.table import Table

    table = Table.grid(expand=True)
    for wide in widths:
        table.add_column(width=wide, ratio=None if wide else 1, no_wrap=not wraps, overflow="ellipsis")
    table.add_row(*cells)
    return table


def duration(seconds: float) -> str:
    """Time in words, to two units.

    >>> duration(7.6), duration(90.5), duration(7_530), duration(200_000)
    ('8 s', '1 min 30 s', '2 h 05 min', '2 d 07 h')
    """
    whole = round(seconds)
    for unit, name, part, part_name in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min")):
        if whole >= unit:
            return f"{whole // unit} {name} {whole % unit // part:02} {part_name}"
    return f"{whole // 60} min {whole % 60:02} s" if whole >= 60 else f"{whole} s"


def sparkline(values: Sequence[float | None], columns: int, form: str = ".1f") -> str:
    """Values as blocks of eight heights, between their lowest and their highest number; empty without values.

    Args:
        values: At most ``CURVE`` values; None for a space.
        columns: Number of columns for ``CURVE`` values and the two numbers; with fewer than 54, values are left out.
        form: Format of the two numbers.

    >>> sparkline([None, 1.0, 2.0, 8.0], columns=54)
    '1.0 ▁▂█ 8.0'
    """
    known = [value for value in values if value is not None]
    if not known:
        return ""
    lowest, highest = min(known), max(known)
    count = max(min(columns - 2 * _SCALE - 2, CURVE), 1)  # blocks of a whole run
    kept = [values[number * CURVE // count] for number in range(-(-len(values) * count // CURVE))]
    scale = (len(_BLOCKS) - 1) / (highest - lowest or 1.0)
    blocks = [" " if value is None else _BLOCKS[round((value - lowest) * scale)] for value in (*kept[:-1], values[-1])]
    return f"{_short(lowest, form)} {''.join(blocks).lstrip()} {_short(highest, form)}"


def _training_numbers(
    config: RunConfig, resolved: Mapping[str, Any], record: Mapping[str, Any], left: str, speed: float | None
) -> Numbers:
    from rich.filesize import decimal

    capacity = config.loop.replay.replay_capacity
    replay = [f"{_percent(record['replay_size'] / capacity)} of {capacity:,}"] if "replay_size" in record else []
    replay += [decimal(resolved["replay_bytes"])] if "replay_bytes" in resolved else []
    starts, length = config.loop.cadence.learning_starts, _number(record, "length_mean_20", ",.0f")
    pairs = [
        ("window", f"{_number(record, 'return_mean_window', '.1f')} (last {_count(WINDOW * config.log_every)} steps)"),
        *_times(record, left, speed, ",.0f"),
        ("episodes", _number(record, "episodes", ",")),
        ("length", f"{length} steps (last 20)" if record.get("length_mean_20") is not None else "-"),
        ("epsilon", _number(record, "epsilon", ".2f")),
        ("loss", _number(record, "loss", ".3g") if record.get("learner_steps") else f"from step {starts:,} on"),
        ("learner", f"{_number(record, 'learner_steps', ',')} steps" if "learner_steps" in record else "-"),
    ]
    long = [("replay", ", ".join(replay) or "-")]
    if config.loop.loop != "host":
        long.append(("loop", resolved.get("loop", "-")))
    if config.evaluate_every is not None:
        long.insert(0, ("evaluated", _evaluation(record)))
    headline = ("return", f"{_number(record, 'return_mean_20', '.1f')} (last 20 episodes)")
    return Numbers(f"{config.label} on {config.env}, seed {config.seed}", headline, pairs, long, ".1f")


def _pretraining_numbers(
    config: PretrainConfig, resolved: Mapping[str, Any], record: Mapping[str, Any], left: str, speed: float | None
) -> Numbers:
    images = f"{resolved['training_images']:,}" if "training_images" in resolved else "-"
    few, every = record.get("probe/few_labels"), record.get("probe/linear")
    probes = "-" if few is None or every is None else f"10 labels {few:.3f}, all {every:.3f}"
    pairs = [
        *_times(record, left, speed, ",.1f"),
        ("loss", _number(record, "loss", ".3g")),
        ("cosine", _number(record, "prediction_cosine", ".3f")),
        ("spread", _number(record, "projection_spread", ".3f")),
        ("rank", _number(record, "feature_rank/0.01", ".0f")),
    ]
    title = f"{config.method} on {config.data}, seed {config.seed}"
    return Numbers(title, ("probe", probes), pairs, [("images", images)], ".3f")


def _times(record: Mapping[str, Any], left: str, speed: float | None, form: str) -> list[Field]:
    speed = record.get("steps_per_second") if speed is None else speed
    compiled = f"{_number(record, 'compile_seconds', '.1f')} s, {_number(record, 'compilations', ',')} programs"
    return [
        ("time", duration(record["seconds"]) if "seconds" in record else "-"),
        ("left", left or "-"),
        ("speed", "-" if speed is None else f"{format(speed, form)} steps/s"),
        ("compile", compiled if "compilations" in record else "-"),
    ]


def _evaluation(record: Mapping[str, Any]) -> str:
    mean, error = record.get("greedy_return"), record.get("greedy_standard_error")
    if mean is None:
        return "-"
    spread = "" if error is None else f" ± {error:.1f}"
    return f"{mean:.1f}{spread} at step {record['evaluated_at']:,}"


def _number(record: Mapping[str, Any], name: str, form: str) -> str:
    return "-" if record.get(name) is None else format(record[name], form)


def _targets(resolved: Mapping[str, Any], record: Mapping[str, Any], separator: str) -> Iterator[Field]:
    """Rule of each target and its distance from the online parameters; the first is the agent's main one."""
    for number, (name, target) in enumerate(resolved.get("targets", {}).items()):
        distance = record.get(f"target_distance/{name}")
        text = target["rule"] if distance is None else f"{target['rule']}{separator}distance {distance:.3g}"
        yield name if number else "target", text


def _count(number: int) -> str:
    """Number in at most 7 characters.

    >>> _count(5_000), _count(1_250_000)
    ('5,000', '1.25M')
    """
    return f"{number:,}" if number < 1_000_000 else f"{number / 1_000_000:.4g}M"


def _short(value: float, form: str) -> str:
    """Number in at most ``_SCALE`` characters.

    >>> _short(187.34, ".1f"), _short(-123456.0, ".1f")
    ('187.3', '-1.2e+05')
    """
    text = format(value, form)
    return text if len(text) <= _SCALE else f"{value:.2g}"


def _percent(part: float) -> str:
    return f"{min(part, 1.0) * 100:.0f} %"
