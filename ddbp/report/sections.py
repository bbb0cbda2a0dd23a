"""The sections of a page, each a heading and what stands under it."""

import json
import math
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np

from ddbp.observers import replay_command
from layers.types import Array

from . import samples
from .figures import Figure, Series, distributions, heat_map, lines, table, text
from .run import Run, number

Block = str | Figure


class Section(NamedTuple):
    """A part of a page: heading and blocks, HTML or figures; left out if there are none."""

    title: str
    blocks: list[Block]


def _known(*blocks: Block | None) -> list[Block]:
    return [each for each in blocks if each is not None and each != ""]


# Of one run


def overview(run: Run) -> Section:
    """Return how the run is, in a few numbers, and what is wrong with its folder."""
    shown = {"status": run.status, "loss": text(run.last("loss"))}
    for name in run.metrics:
        if name != "loss":
            shown[name.replace("_", " ")] = text(run.last(name))
    if run.records:
        shown["epochs"] = f"{text(number(run.records[-1].get('epoch')))} of {_of(run, 'epochs')}"
        shown["steps"] = text(run.last("step"))
        shown["samples per second"] = text(run.last("samples_per_second"))
    shown["time"] = duration(run.seconds)
    if "ranks" in run.configuration:
        shown["ranks"] = str(run.configuration["ranks"])
    if run.digest:
        shown["digest"] = run.digest[:12]
    tiles = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in shown.items()
    )
    error = run.facts.get("error")
    wrong = [*([f"The run failed: {error}"] if error else []), *run.problems]
    listed = "".join(f"<li>{escape(each)}</li>" for each in wrong)
    problems = f'<ul class="problems">{listed}</ul>' if listed else ""
    return Section("Overview", _known(f'<dl class="tiles">{tiles}</dl>', problems))


def _of(run: Run, name: str) -> str:
    return str(run.facts.get(name, run.configuration.get(name, "?")))


def findings(run: Run) -> Section:
    """Return what is wrong with the training, with cause and remedy."""
    items = []
    for finding in run.findings:
        where = " ".join(
            f"{name} {finding[name]}"
            for name in ("layer", "step")
            if finding.get(name) not in (None, "")
        )
        numbers = finding.get("numbers")
        if isinstance(numbers, dict):
            numbers = ", ".join(f"{name} {_value(value)}" for name, value in numbers.items())
        parts = [
            f"<h3>{escape(str(finding.get('rule', 'finding')))}</h3>",
            f'<p class="note">{escape(where)}</p>' if where else "",
            *(
                f"<p>{escape(str(finding[name]))}</p>"
                for name in ("evidence", "cause")
                if finding.get(name)
            ),
            f"<p><strong>To try:</strong> {escape(str(finding['remedy']))}</p>"
            if finding.get("remedy")
            else "",
            f'<p class="note">{escape(str(numbers))}</p>' if numbers else "",
            f"<p>{escape(again)}</p>" if (again := _again(run, finding.get("step"))) else "",
        ]
        items.append(f"<li>{''.join(parts)}</li>")
    left_out = [
        f"<li><p>{escape(', '.join(f'{name} {_value(value)}' for name, value in note.items()))}</p>"
        "</li>"
        for note in run.notes
    ]
    blocks: list[Block] = []
    if items:
        blocks.append(f'<ol class="findings">{"".join(items)}</ol>')
    if left_out:
        said = f"<summary>Numbers that were not finite: {len(left_out)} times</summary>"
        blocks.append(f'<details>{said}<ol class="findings">{"".join(left_out)}</ol></details>')
    return Section("Findings", blocks)


def _again(run: Run, updates: Any) -> str:
    """Return how to see the last of so many steps once more, "" if that is not known."""
    known = type(updates) is int and updates > 0
    return replay_command.in_words(run.path, updates - 1) if known else ""


def _value(value: Any) -> str:
    """Return a value of a line of JSON, where null is a number that is not finite."""
    return text(number(value)) if value is None or type(value) is float else str(value)


def instruments(run: Run) -> list[Section]:
    """Return what instruments have recorded: the flow of gradients, updates and activations."""
    recording = run.recording
    if recording is None:
        return []
    steps = np.asarray(recording.steps, np.float64)
    names = {"layers": recording.layers, "parameters": recording.parameters}

    def shown(quantity: str, title: str, *, log: bool = True, note: str = "") -> Figure | None:
        values = recording.values.get(quantity)
        known = recording.quantities.get(quantity)
        if values is None or known is None or not values.size:
            return None
        note = note if quantity == "update_ratio" else f"{note} {_sentence(known.unit)}".strip()
        of = known.of
        if known.binned:
            edges = np.asarray(recording.bins, np.float64)
            return distributions(title, steps, names[of], edges, values, of=of, note=note)
        if of == "run":
            series = Series(title.lower(), steps, np.asarray(values[:, 0], np.float64))
            return lines(title, [series], log=log, note=note)
        rows = names.get(of) or [f"{of.removesuffix('s')} {n}" for n in range(values.shape[1])]
        bounds = None if log else (0.0, 1.0)
        return heat_map(title, steps, rows, values, of=of, log=log, note=note, bounds=bounds)

    fade = "From the input (above) to the output (below)."
    flow = _known(
        shown("activation_gradient_norm", "Gradients at the layers", note=fade),
        shown("gradient_norm", "Gradients of the parameters", note=fade),
        shown("gradient_histogram", "Distribution of gradients over time"),
        shown("shard_gradient_norm", "Gradients of the shards"),
        shown("noise_scale", "Gradient noise scale"),
    )
    updates = _known(
        shown("update_ratio", "Update to weight ratio", note="About 0.001 is usual."),
        shown("parameter_norm", "Weights"),
        shown("update_norm", "Updates"),
    )
    activations = _known(
        shown("activation_norm", "Activations"),
        shown("activation_zeros", "Zeros among the activations", log=False),
        shown("activation_saturated", "Saturated activations", log=False),
        shown("gates_saturated", "Saturated gates", log=False),
        shown("activation_histogram", "Distribution of activations over time"),
    )
    return [
        Section("Gradient flow", flow),
        Section("Updates", updates),
        Section("Activations", activations),
        Section("Time", _time(run, steps)),
    ]


def _sentence(unit: str) -> str:
    return f"{unit[:1].upper()}{unit[1:]}." if unit else ""


def _time(run: Run, steps: Array) -> list[Block]:
    """Return where the time of steps goes, and how ranks differ in that."""
    recording = run.recording
    assert recording is not None
    phases = {
        name.removeprefix("seconds_"): np.asarray(values, np.float64)
        for name, values in recording.values.items()
        if name.startswith("seconds_") and values.ndim == 2 and np.isfinite(values).any()
    }
    if not phases:
        return []
    ranks = max(values.shape[1] for values in phases.values())
    # Not the mean: the first step compiles.
    typical = {name: float(np.nanmedian(values)) for name, values in phases.items()}
    total = math.fsum(typical.values()) or 1.0
    rows = [(name, f"{1e3 * each:.4g} ms", f"{each / total:.1%}") for name, each in typical.items()]
    bars = "".join(
        f'<div><dt>{escape(name)}</dt><dd><span class="bar" style="--share:{each / total:.4f}">'
        f"</span>{each / total:.1%}</dd></div>"
        for name, each in typical.items()
    )
    with np.errstate(all="ignore"):
        curves = [Series(name, steps, 1e3 * _row_means(values)) for name, values in phases.items()]
    result = _known(
        f'<dl class="bars">{bars}</dl>',
        table(("phase", "median of a step", "share"), rows),
        lines("Time of a step", curves, note="Milliseconds, mean over the ranks.", log=True),
    )
    if ranks > 1:
        busy = sum(
            np.nan_to_num(values)
            for name, values in phases.items()
            if name not in ("waiting", "data") and values.shape[1] == ranks
        )
        if isinstance(busy, np.ndarray):
            numbers = [f"rank {n}" for n in range(ranks)]
            result += _known(
                heat_map(
                    "Skew of the ranks",
                    steps,
                    numbers,
                    busy / np.maximum(busy.mean(axis=1, keepdims=True), 1e-30),
                    of="ranks",
                    note="Time at work relative to the mean of the ranks: a slow one is bright.",
                ),
                _by_rank(phases, numbers),
            )
    return result


def _row_means(values: Array) -> Array:
    known = np.isfinite(values)
    counts = known.sum(axis=1)
    sums = np.where(known, values, 0).sum(axis=1)
    result: Array = np.divide(sums, counts, out=np.full(len(values), np.nan), where=counts > 0)
    return result


def _by_rank(phases: dict[str, Array], ranks: Sequence[str]) -> str:
    columns = [_row_means(values.T) for values in phases.values() if values.shape[1] == len(ranks)]
    names = [name for name, values in phases.items() if values.shape[1] == len(ranks)]
    rows = [
        (rank, *(f"{1e3 * column[n]:.4g}" for column in columns)) for n, rank in enumerate(ranks)
    ]
    shown = table(("", *names), rows, caption="Milliseconds of a step")
    return f"<details><summary>By rank</summary>{shown}</details>"


def of_samples(run: Run) -> Section:
    """Return what was made of samples at the end."""
    try:
        return Section("Samples", [*samples.blocks(run.samples)])
    except (IndexError, LookupError, TypeError, ValueError, ArithmeticError) as error:
        run.problems.append(f"samples.npz is not that of a run of this version: {error}.")
        return Section("Samples", [])


_ENVIRONMENT = ("mpi", "ranks", "hosts", "ranks that share memory")


def configuration(run: Run) -> list[Section]:
    """Return options and environment."""
    environment = {name: value for name, value in run.configuration.items() if name in _ENVIRONMENT}
    more = run.configuration.get("environment")
    environment |= more if isinstance(more, dict) else {}
    options = {
        name: value
        for name, value in run.configuration.items()
        if name not in (*_ENVIRONMENT, "environment")
    }
    if isinstance(options.get("command"), list):
        options["command"] = " ".join(map(str, options["command"]))
    told = ("started", "ended", "host")
    facts: dict[str, Any] = {name: run.facts[name] for name in told if name in run.facts}
    if run.digest:
        facts["parameters sha256"] = run.digest
    return [
        Section("Configuration", [table((), _listed(options))] if options else []),
        Section("Environment", [table((), _listed(environment | facts))] if environment else []),
    ]


def _listed(values: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (str(name), value if isinstance(value, str) else json.dumps(value, default=str))
        for name, value in values.items()
    ]


def duration(seconds: float) -> str:
    """Return a time for people."""
    if not math.isfinite(seconds):
        return "unknown"
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


# Of one or several runs


def curves(runs: Sequence[Run]) -> Section:
    """Return losses, metrics, learning rate and speed over the steps; of several runs each has its
    own colour.
    """
    alone = len(runs) == 1
    losses = [_losses(run, "training" if alone else run.name) for run in runs]
    if alone:
        losses.append(_recorded(runs[0], "validation_loss", "validation"))
    names = dict.fromkeys(name for run in runs for name in run.metrics if name != "loss")
    if alone:
        names.pop("validation_loss", None)
    metrics = [_metric(runs, name, name.removeprefix("validation_")) for name in names]
    rates = [
        Series("learning rate" if alone else run.name, _steps(run), run.steps["learning_rate"])
        for run in runs
        if "learning_rate" in run.steps
    ]
    speed = _metric(runs, "samples_per_second", "samples per second")
    shown = [lines("Loss", losses), *metrics, lines("Learning rate", rates), speed]
    return Section("Curves", _known(*shown))


def _losses(run: Run, label: str) -> Series:
    """Return the training loss, by steps if they are known."""
    if "loss" not in run.steps:
        return _recorded(run, "loss", label)
    low, high = (run.steps.get(name) for name in ("low", "high"))
    return Series(label, _steps(run), run.steps["loss"], low, high)


def _metric(runs: Sequence[Run], name: str, label: str) -> Figure | None:
    """Return a figure of a number of the records."""
    title = name.replace("_", " ").capitalize()
    shown = [_recorded(run, name, label if len(runs) == 1 else run.name) for run in runs]
    return lines(title, shown)


def _steps(run: Run) -> Array:
    return run.steps["step"]


def _recorded(run: Run, name: str, label: str) -> Series:
    pairs = [(number(each.get("step")), number(each.get(name))) for each in run.records]
    pairs = [pair for pair in pairs if math.isfinite(pair[0])]
    x, y = np.array(pairs, np.float64).reshape(-1, 2).T
    order = np.argsort(x, kind="stable")
    return Series(label, x[order], y[order])


def comparison(runs: Sequence[Run]) -> list[Section]:
    """Return the runs in a table, and which options they differ in."""
    metrics = [*dict.fromkeys(name for run in runs for name in run.metrics)]
    heads = ("run", "status", *(name.replace("_", " ") for name in metrics), "time", "digest")
    rows = [
        (
            run.name,
            run.status,
            *(text(run.last(name)) for name in metrics),
            duration(run.seconds),
            run.digest[:12],
        )
        for run in runs
    ]
    names = [*dict.fromkeys(name for run in runs for name in run.configuration)]
    options = []
    for name in names:
        values = [dict(_listed(run.configuration)).get(name, "") for run in runs]
        if len(set(values)) > 1:
            options.append((name, *values))
    differing = [table(("", *(run.name for run in runs)), options)] if options else []
    alike = [] if differing else ["<p>Their configurations are the same.</p>"]
    wrong = [f"{run.name}: {each}" for run in runs for each in run.problems]
    listed = "".join(f"<li>{escape(each)}</li>" for each in wrong)
    problems = f'<ul class="problems">{listed}</ul>' if listed else ""
    return [
        Section("Runs", _known(table(heads, rows), problems)),
        Section("Configurations that differ", [*differing, *alike]),
    ]
