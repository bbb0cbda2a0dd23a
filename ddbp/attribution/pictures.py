"""Attributions as pictures: matplotlib figures, and HTML for notebooks."""

import base64
import html as markup
import io
from itertools import zip_longest
from typing import Any

import numpy as np

from ddbp.training.samples import Ragged, leaves
from layers.checks import positive_int
from layers.errors import message, wording
from layers.types import Array

from .result import Attribution

SHOWN = 8
"""Samples in a figure, unless one is asked for."""
SIDE = 2.2
"""Inches of a panel."""


@wording("Attribution.figure")
def figure(attribution: Attribution, sample: int | None = None) -> Any:
    """See `Attribution.figure`."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        must, fix = "matplotlib must be installed", "pip install matplotlib"
        raise ImportError(message("Attribution.figure", must, "none", fix)) from error
    samples = _samples(attribution, sample)
    rows = [_panels(attribution, n) for n in samples]
    columns = max(map(len, rows), default=1)
    result = Figure(figsize=(SIDE * columns, SIDE * len(rows)), layout="constrained")
    axes = result.subplots(len(rows), columns, squeeze=False)
    for n, panels, places in zip(samples, rows, axes, strict=True):
        for place, panel in zip_longest(places, panels):
            place.set_axis_off()
            if panel is not None:
                _draw(place, *panel)
        places[0].set_title(_title(attribution, n), fontsize=8, loc="left")
    return result


def html(attribution: Attribution) -> str:
    """Return what a notebook shows: tokens on the colour of their attributions, and everything else
    as the figure; where matplotlib is not installed, in words.
    """
    head = f"<p>{markup.escape(repr(attribution))}</p>"
    if isinstance(attribution.values, tuple | dict) or not _is_tokens(attribution):
        try:
            picture = figure(attribution)
        except ImportError:
            return head
        file = io.BytesIO()
        picture.savefig(file, format="png", dpi=100)
        data = base64.b64encode(file.getvalue()).decode()
        return f'{head}<img alt="attributions" src="data:image/png;base64,{data}">'
    return head + "".join(_line(attribution, n) for n in _samples(attribution, None))


def _samples(attribution: Attribution, sample: int | None) -> list[int]:
    if sample is None:
        return list(range(min(SHOWN, len(attribution))))
    fix = "Samples count from 0."
    return [positive_int("Attribution.figure", "sample + 1", sample + 1, fix, len(attribution)) - 1]


def _title(attribution: Attribution, n: int) -> str:
    index = attribution.indices
    which = "" if index is None else f"{', '.join(map(str, index[n].tolist()))}: "
    return f"{which}{attribution.scores[n]:.3g}"


def _is_tokens(attribution: Attribution) -> bool:
    return bool(attribution.x.dtype.kind in "iu")


def _of_sample(leaf: Any, n: int) -> Array:
    return leaf[n : n + 1].values if isinstance(leaf, Ragged) else np.asarray(leaf[n])


def _panels(attribution: Attribution, n: int) -> list[tuple[Array, bool]]:
    """Return what is drawn of a sample, and whether it is of attributions."""
    panels = []
    inputs = (leaf for _, leaf in leaves("x", attribution.x))
    for x, (_, leaf) in zip(inputs, leaves("values", attribution.values), strict=True):
        if leaf is None:
            continue
        values = _of_sample(leaf, n)
        image = _of_sample(x, n)
        if image.ndim == 3 or (image.ndim == values.ndim == 2 and x.ndim == 3):
            panels.append((image, False))
        panels.append((values.sum(axis=-1) if values.ndim == 3 else values, True))
    return panels


def _draw(place: Any, values: Array, attributed: bool) -> None:
    """Draw an image, a map or bars."""
    if not attributed:
        low, high = values.min(), values.max()
        scaled = (values - low) / ((high - low) or 1)
        colours = scaled if scaled.ndim == 3 and scaled.shape[2] == 3 else None
        grey = scaled if scaled.ndim == 2 else scaled.mean(axis=2)
        place.imshow(grey if colours is None else colours, cmap="gray", vmin=0, vmax=1)
        return
    largest = float(np.abs(values).max(initial=0)) or 1.0
    if values.ndim == 2:
        place.imshow(values, cmap="RdBu_r", vmin=-largest, vmax=largest, aspect="auto")
        return
    flat = values.reshape(-1)
    colour = np.where(flat > 0, "#b2182b", "#2166ac")
    place.bar(np.arange(flat.size), flat, color=colour.tolist())
    place.set_axis_on()
    place.tick_params(labelsize=6)


def _line(attribution: Attribution, n: int) -> str:
    """Return the tokens of a sample in HTML, each on the colour of its attribution."""
    tokens, values = _of_sample(attribution.x, n), _of_sample(attribution.values, n)
    largest = float(np.abs(values).max(initial=0)) or 1.0
    spans = []
    for token, value in zip(tokens.reshape(-1), values.reshape(-1), strict=True):
        colour = "178, 24, 43" if value > 0 else "33, 102, 172"
        alpha = abs(float(value)) / largest
        style = f"background: rgba({colour}, {alpha:.2f}); padding: 0 0.2em"
        spans.append(f'<span style="{style}" title="{float(value):.3g}">{token}</span>')
    return f"<p>{markup.escape(_title(attribution, n))} {' '.join(spans)}</p>"
