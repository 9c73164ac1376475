# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""report.html: one file that needs nothing else, for people who decide."""

import base64
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import contextmanager
from contextlib import suppress
from io import StringIO
from pathlib import Path
import re
from typing import Any

import cv2
from jinja2 import Environment
from jinja2 import FileSystemLoader
import numpy as np

from adamtl_ros import drawing
from adamtl_ros.bag.compare import agreement_of
from adamtl_ros.bag.compare import Plan
from adamtl_ros.bag.reading import Bag
from adamtl_ros.bag.reading import RecordedFrame
from adamtl_ros.bag.reading import RecordedFrames
from adamtl_ros.runtime.engine import Engine
from adamtl_ros.runtime.settings import Settings

CELL = 224
"""Width of a picture in pixels."""

# matplotlib writes colours, and the page's style decides which they are, light or dark.
_COLOURS = {
    '#010203': '--ink', '#010204': '--muted', '#010205': '--line', '#010206': '--accent',
    '#010207': '--second', '#010208': '--soft'}
INK, MUTED, LINE, ACCENT, SECOND, SOFT = _COLOURS

_UNITS = {
    'miou': ('mIoU', 3), 'mae': ('MAE', 3), 'f': ('F', 3),
    'f_strict': ('F', 3), 'mean_deg': ('mean °', 1), 'mae_m': ('MAE m', 3),
    'rmse_m': ('RMSE m', 3), 'abs_rel': ('rel.', 3)}


def pictures(
        bag: Bag, engine: Engine, plan: Plan, figures: dict[str, Any],
        shown: Mapping[float | None, Mapping[int, dict[str, np.ndarray]]]
) -> list[dict[str, Any]]:
    """
    Return the worst frames at the recommended budget, the worst first, with their pictures.

    shown: by budget, what was published for its worst frames; dense they are computed again.
    """
    budget = figures['recommendation'].get('shown_budget')
    row = next((row for row in figures['rows']
                if row['mode'] == 'adaptive' and row['budget'] == budget), None)
    if row is None:
        return []
    worst = {each['frame']: each for each in row['worst']}
    found = []
    frames = RecordedFrames(plan.topic, plan.known)
    for message in bag.messages((plan.topic, *frames.infos)):
        if message.topic in frames.infos:
            with suppress(ValueError):  # which was told
                frames.calibrate(message)
            continue
        frame = frames.read(message, decoded=frames.number + 1 in worst)
        if isinstance(frame, RecordedFrame) and frame.number in worst:
            number = frame.number
            dense = engine.infer(
                frame.image, Settings(mode='static', tasks=plan.tasks), frame.camera).outputs
            adaptive = shown[budget][number]
            cells: list[tuple[str, list[str]]] = [
                ('picture', [_jpeg(frame.image), _jpeg(frame.image)])]
            for task in plan.tasks:
                cells.append((task, [_jpeg(drawing.colourise(task, outputs[task]))
                                     for outputs in (dense, adaptive)]))
            found.append({
                'frame': number, 'stamp': f'{frame.stamp / 1e9:.3f}',
                'agreement': worst[number]['agreement'],
                'tasks': _agreements(dense, adaptive), 'cells': cells})
        if frames.number >= max(worst, default=-1):
            break
    return sorted(found, key=lambda each: (each['agreement'], each['frame']))


def _agreements(
        dense: dict[str, np.ndarray], adaptive: dict[str, np.ndarray]) -> dict[str, float]:
    from adamtl_ros.runtime.agreement import agreement
    return {task: agreement(task, adaptive[task], dense[task]) for task in dense}


def _jpeg(picture: np.ndarray) -> str:
    """Return a uint8 (h, w, 3) RGB picture as a data URI of CELL pixels of width."""
    height = max(1, round(CELL * picture.shape[0] / picture.shape[1]))
    small = cv2.resize(picture, (CELL, height), interpolation=cv2.INTER_AREA)
    data = cv2.imencode(
        '.jpg', cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
    return 'data:image/jpeg;base64,' + base64.b64encode(data.tobytes()).decode()


@contextmanager
def _plot(
        name: str, rows: int = 1, width: float = 5.8, height: float = 3.1,
) -> Iterator[tuple[Any, list[str]]]:
    """Give axes to draw in, and a list that then holds the SVG."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError(
            f'the report needs matplotlib ({error}): pip install matplotlib, or '
            'sudo apt-get install python3-matplotlib') from None
    style: dict[Any, Any] = {
        'svg.fonttype': 'none', 'svg.hashsalt': name, 'font.size': 10,
        'text.color': INK, 'axes.labelcolor': MUTED, 'axes.edgecolor': LINE,
        'xtick.color': MUTED, 'ytick.color': MUTED, 'grid.color': LINE, 'axes.grid': True,
        'axes.spines.top': False, 'axes.spines.right': False, 'grid.linewidth': 0.6,
        'axes.axisbelow': True, 'lines.linewidth': 1.8, 'legend.frameon': False}
    out: list[str] = []
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width, height), layout='constrained')
        axes = figure.subplots(rows, 1, sharex=rows > 1)
        yield axes, out
        text = StringIO()
        figure.savefig(text, format='svg', transparent=True, metadata={'Date': None})
    svg = text.getvalue()
    svg = svg[svg.index('<svg'):]
    for colour, variable in _COLOURS.items():
        svg = svg.replace(colour, f'var({variable})')
    # The page has one font, and scales the picture to its column.
    svg = re.sub(r'font: (\d+\.?\d*px) [^;"]+', r'font: \1 system-ui, sans-serif', svg)
    svg = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', rf'<svg \1 role="img" aria-label="{name}"'
                 ' xmlns:xlink="http://www.w3.org/1999/xlink">', svg, count=1)
    # Names are unique within one picture only.
    out.append(re.sub(r'<g id="[^"]*"', '<g', re.sub(r'<metadata>.*?</metadata>', '', svg,
                                                     flags=re.DOTALL)))


def trade_off(figures: dict[str, Any]) -> str:
    """Draw agreement over time a frame."""
    with _plot('Agreement against time a frame') as (axes, out):
        rows = [row for row in figures['rows'] if row['mode'] == 'adaptive']
        static = figures['rows'][0]
        times = [row['mean_ms'] for row in rows]
        shares = [100 * agreement_of(row) for row in rows]
        axes.axhline(100 * figures['keep'], color=SECOND, linewidth=1, linestyle='--')
        axes.annotate(
            f'{figures["keep"]:.0%} asked for', (0.005, 100 * figures['keep']), color=SECOND,
            xycoords=('axes fraction', 'data'), xytext=(0, 3), textcoords='offset points',
            fontsize=9)
        axes.plot(times, shares, color=ACCENT, marker='o', markersize=6)
        for row, time, share in zip(rows, times, shares):
            axes.annotate(
                f'{row["budget"]:g}', (time, share), xytext=(0, -15), ha='center',
                textcoords='offset points', fontsize=9)
        axes.plot([static['mean_ms']], [100], color=MUTED, marker='s', markersize=7,
                  linestyle='none')
        axes.annotate('dense', (static['mean_ms'], 100), xytext=(8, -4),
                      textcoords='offset points', color=MUTED)
        axes.margins(0.12, 0.2)
        axes.set_ylim(top=min(101.5, axes.get_ylim()[1]))
        axes.set_xlabel('median time a frame, ms')
        axes.set_ylabel('agreement, %')
    return out[0]


def latencies(figures: dict[str, Any], budget: float | None) -> str:
    """Draw how the times of frames spread, dense and at a budget."""
    with _plot('Spread of the time a frame', height=3.1) as (axes, out):
        for row, colour in ((figures['rows'][0], MUTED), (_row(figures, budget), ACCENT)):
            if row is None or row['latency_histogram'] is None:
                continue
            edges = np.array(row['latency_histogram']['edges_ms'])
            share = 100 * np.array(row['latency_histogram']['counts']) / figures['frames']
            name = 'dense' if row['mode'] == 'static' else f'budget {row["budget"]:g}'
            axes.stairs(share, edges, color=colour, fill=True, alpha=0.35)
            axes.stairs(share, edges, color=colour, label=name, linewidth=1.6)
            axes.axvline(row['p95_ms'], color=colour, linewidth=1, linestyle=':')
        axes.set_xlabel('time a frame, ms; dotted: 95 % of the frames are faster')
        axes.set_ylabel('frames, %')
        axes.legend(labelcolor=INK)
    return out[0]


def over_time(figures: dict[str, Any], budget: float | None) -> str:
    """Draw cost and agreement along the recording."""
    series = figures['series']
    row = next((each for each in series['rows']
                if each['mode'] == 'adaptive' and each['budget'] == budget), None)
    if row is None:
        return ''
    name = 'Budget and agreement along the recording'
    with _plot(name, 2, width=11.0, height=4.4) as (axes, out):
        first, second = axes
        first.axhline(budget, color=SECOND, linewidth=1, linestyle='--')
        spent = np.array(row['achieved'])
        first.plot(series['frame'], spent, color=ACCENT, linewidth=1.0)
        # The mean from the first frame on; the last stretch may be a shorter one.
        first.plot(series['frame'], np.cumsum(spent) / np.arange(1, len(spent) + 1), color=INK)
        first.fill_between(
            series['frame'], 0, np.add(row['reused'], row['warped']), color=MUTED, alpha=0.25,
            linewidth=0, step='mid')
        top = max(1.0, max(row['achieved']))
        first.set_ylim(0, 1.08 * top)
        first.set_ylabel('share of dense cost')
        second.plot(series['frame'], 100 * np.array(row['agreement']), color=ACCENT)
        for a, b in figures['recommendation']['frames']:
            second.axvspan(a - 0.5, b + 0.5, color=SECOND, alpha=0.25, linewidth=0)
        for scene in figures['scenes'][1:]:
            for each in axes:
                each.axvline(scene['first'], color=LINE, linewidth=1)
        second.set_ylabel('agreement, %')
        second.set_xlabel('frame')
    return out[0]


def _row(figures: dict[str, Any], budget: float | None) -> dict[str, Any] | None:
    return next((row for row in figures['rows']
                 if row['mode'] == 'adaptive' and row['budget'] == budget), None)


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True,
        lstrip_blocks=True)
    environment.filters['share'] = lambda value, digits=1: (
        '–' if value is None else f'{100 * value:.{digits}f} %')
    environment.filters['number'] = lambda value, digits=1: (
        '–' if value is None else f'{value:.{digits}f}')
    environment.filters['metrics'] = _metrics
    environment.globals['mean'] = agreement_of
    return environment


def _metrics(values: dict[str, float | None]) -> str:
    parts = []
    for name, value in values.items():
        label, digits = _UNITS.get(name, (name, 3))
        parts.append(f'{label} {"–" if value is None else f"{value:.{digits}f}"}')
    return ', '.join(parts)


def page(figures: dict[str, Any], worst: Sequence[dict[str, Any]]) -> str:
    """Return the report of one recording."""
    budget = figures['recommendation'].get('shown_budget')
    return _environment().get_template('report.html.jinja').render(
        f=figures, worst=worst, shown=_row(figures, budget), static=figures['rows'][0],
        trade_off=trade_off(figures) if budget is not None else '',
        latencies=latencies(figures, budget), over_time=over_time(figures, budget))


def summary(figures: dict[str, Any]) -> str:
    """Return the report of several recordings."""
    return _environment().get_template('summary.html.jinja').render(f=figures)
