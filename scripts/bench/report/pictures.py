"""Pictures of docs/images, drawn by matplotlib from the results."""

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lib import harness

from .speed import measured_steps
from .table import RESULTS, ROOT, result

IMAGES = ROOT / "docs" / "images"
_STYLE = {
    "svg.hashsalt": "ddbp",  # Names of elements are else drawn at random.
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": "cycler('color', ['#c1443c', '#d98b1f', '#2f7d5d', '#2b5c9e', '#7a4b94'])",
}
_NAMES = {
    "mlp-tiny": "MLP, tiny",
    "mlp": "MLP",
    "mlp-large": "MLP, large",
    "lenet": "LeNet-5",
    "cnn": "CNN",
    "resnet20": "ResNet-20",
    "rnn-128": "RNN, 128",
    "rnn-256": "RNN, 256",
    "gru-128": "GRU, 128",
    "gru-256": "GRU, 256",
    "lstm-128": "LSTM, 128",
    "lstm-256": "LSTM, 256",
    "gpt": "GPT, small",
}


def _peer(name: str) -> Callable[[dict[str, Any]], float | None]:
    """Return the function that gives the milliseconds of a peer in a row."""

    def taken(row: dict[str, Any]) -> float | None:
        times = [ms for each, ms in row["peers_ms"].items() if each.split()[0] == name]
        return min(times, default=None)

    return taken


def gradient_flow(figure: Any) -> None:
    """Draw what of the gradient arrives at each layer, beside what the networks then learn."""
    measured = result("gradient_flow")
    figure.set_size_inches(9, 3.6)
    flow, learning = figure.subplots(1, 2)
    for row in measured["rows"]:
        *hidden, _ = row["gradients"]
        flow.semilogy(range(1, len(hidden) + 1), [norm / hidden[-1] for norm in hidden])
        (line,) = learning.plot(
            range(1, len(row["accuracy"]) + 1), [100 * share for share in row["accuracy"]]
        )
        line.set_label(row["name"])
    flow.set(
        title="What of the gradient arrives at layer …",
        xlabel=f"layer, of {measured['depth']}; the error comes from the right",
        ylabel="norm, relative to the last",
        xticks=[1, 5, 10, 15, 20],
    )
    learning.set(
        title="… decides what is learned",
        xlabel="epoch",
        ylabel="test accuracy, %",
        ylim=(0, 100),
        xticks=[1, 5, 10, 15, 20],
    )
    learning.legend(frameon=False, loc="center right")
    for axes in (flow, learning):
        axes.grid(alpha=0.25)


_OURS, _OTHERS = {"s": 42, "zorder": 3}, {"s": 26, "facecolors": "none", "linewidths": 1.4}
_SERIES: dict[str, tuple[Callable[[dict[str, Any]], float | None], dict[str, Any]]] = {
    "ddbp, float32": (lambda row: row["ours_ms"], {"color": "#2b5c9e", **_OURS}),
    "ddbp, bfloat16": (
        lambda row: row.get("bf16", {}).get("ours_ms"),
        {"color": "#c1443c", "marker": "D", **_OURS},
    ),
    "PyTorch autocast, bfloat16": (
        lambda row: row.get("bf16", {}).get("torch_ms"),
        {"edgecolors": "#c1443c", "marker": "D", **_OTHERS},
    ),
    "PyTorch compiled": (_peer("torch-compile"), {"edgecolors": "#2b5c9e", **_OTHERS}),
    "JAX": (_peer("jax"), {"edgecolors": "#2f7d5d", "marker": "s", **_OTHERS}),
    "scikit-learn": (_peer("scikit-learn"), {"edgecolors": "#7a4b94", "marker": "^", **_OTHERS}),
}


def speed(figure: Any) -> None:
    """Draw how many times as fast as PyTorch's eager steps ours and others are, by processor."""
    alone = [name for name in measured_steps() if result(name)["rows"][0]["ranks"] == 1]
    figure.set_size_inches(9, 4.6)
    panels = figure.subplots(1, len(alone), sharex=True, sharey=True, squeeze=False)[0]
    places = {name: -place for place, name in enumerate(_NAMES)}
    for axes, name in zip(panels, alone, strict=True):
        measured = result(name)
        rows = [row for row in measured["rows"] if row["workload"] in _NAMES and "torch_ms" in row]
        for label, (time, style) in _SERIES.items():
            points = [
                (row["torch_ms"] / taken, places[row["workload"]])
                for row in rows
                if (taken := time(row)) is not None
            ]
            axes.scatter(*(zip(*points, strict=True) if points else ([], [])), label=label, **style)
        axes.axvline(1, color="#555555", linewidth=1.2)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}×")
        axes.set_title(harness.processor(measured["machine"]))
        axes.grid(alpha=0.3)
    panels[0].set_yticks(list(places.values()), list(_NAMES.values()))
    figure.supxlabel("steps per second on one core, relative to PyTorch, eager, float32", size=10)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)


def vanishing_gradients(figure: Any) -> None:
    """Draw how far an error reaches back in time in recurrent networks."""
    figure.set_size_inches(7, 4)
    axes = figure.subplots()
    rows = result("vanishing_gradients")["rows"]
    for row in rows:
        axes.semilogy(row["gradients"], label=row["name"])
    axes.set(
        xlabel="steps back from the loss",
        ylabel="gradient of the input, relative",
        ylim=(1e-12, 3),
        xlim=(0, len(rows[0]["gradients"]) - 1),
    )
    axes.legend(frameon=False)
    axes.grid(alpha=0.25)


def attributions(figure: Any) -> None:
    """Draw digits, and what methods of attribution say of their pixels."""
    measured = result("attributions")
    rows = measured["rows"]
    figure.set_size_inches(9, 5.4)
    grid = figure.subplots(len(measured["images"]), 1 + len(rows))
    columns = [measured["images"], *(row["maps"] for row in rows)]
    for column, maps in enumerate(columns):
        for axes, pixels in zip(grid[:, column], maps, strict=True):
            numbers = [float(pixel) for pixel in pixels.split()]
            image = [numbers[start : start + 8] for start in range(0, 64, 8)]
            colours = {"cmap": "RdBu_r", "vmin": -1} if column else {"cmap": "gray", "vmin": 0}
            axes.imshow(image, vmax=1, **colours)
            axes.set_axis_off()
        title = rows[column - 1]["method"] if column else ""
        grid[0, column].set_title(title.replace(" ", "\n"), fontsize=8, loc="center")


def scaling(figure: Any, local: int = 16) -> None:
    """Draw the efficiencies that the model of scale predicts over the number of ranks."""
    rows = [row for row in result("scaling_model")["rows"] if row["ranks_per_host"] == local]
    names = list(dict.fromkeys(row["name"] for row in rows))
    networks = list(dict.fromkeys(row["network"] for row in rows))
    figure.set_size_inches(3.2 * len(names) + 0.6, 5.6)
    grid = figure.subplots(2, len(names), sharex=True, sharey=True, squeeze=False)
    for line, kind in enumerate(("weak", "strong")):
        for column, name in enumerate(names):
            axes = grid[line, column]
            for network in networks:
                points = [
                    (row["ranks"], row[f"{kind}_efficiency"])
                    for row in rows
                    if (row["name"], row["network"]) == (name, network)
                    and f"{kind}_efficiency" in row
                ]
                axes.plot(*zip(*points, strict=True), marker=".", label=network)
            axes.set(title=f"{name}, {kind} scaling", ylim=(0, 1.15))
            axes.set_xscale("log", base=2)
            axes.axvline(local, color="grey", linewidth=0.7, linestyle=":")
            axes.grid(alpha=0.25)
        grid[line, 0].set_ylabel("predicted efficiency")
    for axes in grid[1]:
        axes.set_xlabel(f"ranks, {local} on a host")
    grid[0, 0].legend(loc="lower left", fontsize="small", frameon=False)


# Each picture, and the results that it is drawn from.
def wave_map(figure: Any) -> None:
    """Draw the true map of the speed of sound, and the one that was found from outside."""
    maps = result("differentiable")["results"]["maps"]
    figure.set_size_inches(7, 3.2)
    panels = figure.subplots(1, len(maps))
    for axes, (name, logarithms) in zip(panels, maps.items(), strict=True):
        percent = [[100 * (math.exp(x) - 1) for x in row] for row in logarithms]
        image = axes.imshow(percent, cmap="RdBu_r", vmin=-25, vmax=25)
        axes.set(title=name, xticks=[], yticks=[])
    figure.colorbar(image, ax=list(panels), label="speed, % off the surroundings'")


PICTURES: dict[Callable[[Any], None], tuple[str, ...]] = {
    gradient_flow: ("gradient_flow",),
    speed: tuple(measured_steps()),
    vanishing_gradients: ("vanishing_gradients",),
    attributions: ("attributions",),
    scaling: ("scaling_model",),
    wave_map: ("differentiable",),
}


def stale_pictures() -> list[Callable[[Any], None]]:
    """Return the pictures that were not drawn by this code from these results."""
    return [draw for draw in PICTURES if not _drawn_from(path_of(draw), _origin(draw))]


def path_of(draw: Callable[[Any], None]) -> Path:
    """Return the file of a picture."""
    return IMAGES / f"{draw.__name__}.svg"


def write(draw: Callable[[Any], None]) -> None:
    """Draw a picture, the same bytes from the same results and the same matplotlib."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(layout="constrained")
        draw(figure)
        metadata = {"Date": None, "Description": _origin(draw)}
        figure.savefig(path_of(draw), format="svg", metadata=metadata)


def _origin(draw: Callable[[Any], None]) -> str:
    """Return the digest of the results and of this file: matplotlib's versions draw differently."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for name in PICTURES[draw]:
        digest.update((RESULTS / f"{name}.json").read_bytes())
    return f"drawn from {', '.join(PICTURES[draw])}: sha256 {digest.hexdigest()}"


def _drawn_from(path: Path, origin: str) -> bool:
    return path.is_file() and origin in path.read_text()
