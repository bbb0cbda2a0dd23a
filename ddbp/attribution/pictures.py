"""Attributions as pictures: matplotlib figures, and HTML for notebooks."""

import base64
import html as markup
import io
from collections.abc import Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ddbp.data.samples import Ragged, leaves
from layers.checks import integer
from layers.errors import message
from layers.types import Array

if TYPE_CHECKING:
    from .result import Attribution

SHOWN = 8
"""Samples in a figure, unless one is asked for."""
SIDE = 1.4
"""Inches of a panel."""
_UNDER = {"fontsize": 8, "va": "top"}


class Panel(NamedTuple):
    """One of the pictures of a figure.

    Attributes
    ----------
    title
        What stands above it.
    values
        An image, a map or numbers.
    attributed
        Whether these are attributions.
    """

    title: str
    values: Array
    attributed: bool


def figure(attributions: Sequence["Attribution"], sample: int | None = None) -> Any:
    """See `Attribution.figure`."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        must, fix = "matplotlib must be there", 'Install it: pip install "ddbp[report]".'
        raise ImportError(message("Attribution.figure", must, "none", fix)) from error
    first = attributions[0]
    samples = _samples(first, sample)
    rows = [
        _inputs(first, n) + [panel for each in attributions for panel in _attributed(each, n)]
        for n in samples
    ]
    columns = max(map(len, rows))
    result = Figure(figsize=(SIDE * columns, SIDE * len(rows)), layout="constrained")
    axes = result.subplots(len(rows), columns, squeeze=False)
    for n, panels, places in zip(samples, rows, axes, strict=True):
        for place, panel in zip_longest(places, panels):
            place.set_axis_off()
            if panel is None:
                continue
            _draw(place, panel)
            if n == samples[0]:
                place.set_title(panel.title, fontsize=8)
        places[0].text(0, -0.02, _title(first, n), transform=places[0].transAxes, **_UNDER)
    return result


def html(attribution: "Attribution") -> str:
    """Return what a notebook shows: tokens on the colour of their attributions, and everything else
    as the figure; where matplotlib is not installed, in words.
    """
    head = f"<p>{markup.escape(repr(attribution))}</p>"
    if isinstance(attribution.values, tuple | dict) or not _is_tokens(attribution):
        try:
            picture = figure([attribution])
        except ImportError:
            return head
        file = io.BytesIO()
        picture.savefig(file, format="png", dpi=100)
        data = base64.b64encode(file.getvalue()).decode()
        return f'{head}<img alt="attributions" src="data:image/png;base64,{data}">'
    return head + "".join(_line(attribution, n) for n in _samples(attribution, None))


def _samples(attribution: "Attribution", sample: int | None) -> list[int]:
    if sample is None:
        return list(range(min(SHOWN, len(attribution))))
    fix = "Samples count from 0."
    number = integer("Attribution.figure", "sample", sample, fix)
    if not 0 <= number < len(attribution):
        must = f"sample must be in 0..{len(attribution) - 1}"
        raise ValueError(message("Attribution.figure", must, number, fix))
    return [number]


def _title(attribution: "Attribution", n: int) -> str:
    index = attribution.indices
    which = "" if index is None else f"{', '.join(map(str, index[n].tolist()))}: "
    return f"{which}{attribution.scores[n]:.3g}"


def _is_tokens(attribution: "Attribution") -> bool:
    return bool(attribution.x.dtype.kind in "iu")


def _of_sample(leaf: Any, n: int) -> Array:
    return leaf[n : n + 1].values if isinstance(leaf, Ragged) else np.asarray(leaf[n])


def _inputs(attribution: "Attribution", n: int) -> list[Panel]:
    """Return the images of a sample."""
    panels = []
    values = (leaf for _, leaf in leaves("values", attribution.values))
    for (_, x), leaf in zip(leaves("x", attribution.x), values, strict=True):
        image = _of_sample(x, n)
        # (H, W) is an image where it has a map of its size, and else a sequence.
        mapped = leaf is not None and image.ndim == 2 and not isinstance(x, Ragged)
        if image.ndim == 3 or (mapped and attribution.method == "grad_cam"):
            panels.append(Panel("", image, False))
    return panels


def _attributed(attribution: "Attribution", n: int) -> list[Panel]:
    """Return the attributions of a sample, which of images are added over channels."""
    title = attribution.method.replace("_", " ")
    panels = []
    for _, leaf in leaves("values", attribution.values):
        if leaf is not None:
            values = _of_sample(leaf, n)
            panels.append(Panel(title, values.sum(axis=-1) if values.ndim == 3 else values, True))
    return panels


def _draw(place: Any, panel: Panel) -> None:
    """Draw an image, a map or bars."""
    values = panel.values
    if not panel.attributed:
        low, high = values.min(), values.max()
        scaled = (values - low) / ((high - low) or 1)
        colours = scaled.ndim == 3 and scaled.shape[2] == 3
        grey = scaled.mean(axis=2) if scaled.ndim == 3 and not colours else scaled
        place.imshow(grey, cmap="gray", vmin=0, vmax=1)
        return
    largest = float(np.abs(values).max(initial=0)) or 1.0
    if values.ndim == 2:
        place.imshow(values, cmap="RdBu_r", vmin=-largest, vmax=largest)
        return
    flat = values.reshape(-1)
    place.bar(np.arange(flat.size), flat, color=np.where(flat > 0, "#b2182b", "#2166ac").tolist())
    place.set_axis_on()
    place.tick_params(labelsize=6)


def _line(attribution: "Attribution", n: int) -> str:
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
