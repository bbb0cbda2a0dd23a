"""Tables of the speed of one process: steps, single convolutions, trees, compilation."""

from .table import RESULTS, factor, milliseconds, result, source, table


def training_steps() -> str:
    """Return the tables of the files whose rows have a workload, one per file."""
    names = sorted(path.stem for path in RESULTS.glob("*.json"))
    return "\n\n".join(
        _steps(name) for name in names if "workload" in result(name).get("rows", [{}])[0]
    )


def _steps(name: str) -> str:
    measured = result(name)["rows"]
    peers = any(row.get("best_peer") for row in measured)
    bounded = any(row.get("of_peak") for row in measured)
    head = ["workload", "ranks", "ours, ms", "PyTorch, ms", "ratio"]
    head += ["best of all peers", "ratio to it"] if peers else []
    head += ["of peak"] if bounded else []
    lines = []
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
        lines.append([*line, *([factor(row.get("of_peak"))] if bounded else [])])
    return f"{table(head, lines)}\n\n{source(name)}"


def scales() -> str:
    """Return the table of steps with badly scaled inputs, if they were measured."""
    if not (measured := result("bad_scales")):
        return ""
    head = ["workload", "well, ms", "badly, ms", "ratio", "if kept", "PyTorch's ratio"]
    head += ["subnormal if kept"]
    lines = []
    for row in measured["rows"]:
        times = [milliseconds(row["well_ms"]), milliseconds(row["badly_ms"])]
        kinds = ("ratio", "ratio_kept", "torch_ratio")
        ratios = [factor(row[kind]["ratio"]) if kind in row else "" for kind in kinds]
        lines.append(
            [row["name"], *times, *ratios, f"{row['subnormal_if_kept'] / row['numbers']:.1%}"]
        )
    cost = measured["change_of_mode"]
    after = (
        f"; the {cost['changes']} changes of mode of a step of {cost['name']} take"
        f" {cost['changes_us']:.1f} µs"
    )
    return f"{table(head, lines)}\n\n{source('bad_scales', after=after)}"


def breakdown() -> str:
    """Return the table of what steps consist of, if it was measured."""
    if not (measured := result("breakdown")):
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
    lines = [
        [row["name"], *(milliseconds(row[key]) for key in columns), row["kernel_calls"]]
        for row in measured["rows"]
    ]
    return f"{table(head, lines)}\n\n{source('breakdown')}"


def compilation() -> str:
    """Return the table of compile times, if they were measured."""
    if not (measured := result("compile_time")):
        return ""
    lines = [
        [row["name"], *(f"{row[key]['first_step']:.1f}" for key in ("cold_s", "warm_s"))]
        for row in measured["rows"]
    ]
    return f"{table(['workload', 'cold, s', 'warm, s'], lines)}\n\n{source('compile_time')}"


def convolutions() -> str:
    """Return the table of single convolutions, if they were measured."""
    if not (measured := result("conv")):
        return ""
    head = ["shape", "operation", "method", "ours, ms", "PyTorch, ms", "ratio", "of peak"]
    head += ["error", "PyTorch's error"]
    lines = []
    for row in measured["rows"]:
        times = [milliseconds(row["ours_ms"]), milliseconds(row["torch_ms"])]
        ratios = [factor(row["ratio"]), factor(row["roofline"])]
        errors = [f"{row['error']:.1e}", f"{row['torch_error']:.1e}"]
        lines.append([row["shape"], row["operation"], row["computed_by"], *times, *ratios, *errors])
    peak = f"; peak {measured['matrix_peak_gflops']} GFLOP/s"
    return f"{table(head, lines, words=3)}\n\n{source('conv', after=peak)}"


def convolution_errors() -> str:
    """Return the table of the errors of single convolutions, if they were measured."""
    if not (measured := result("conv_errors")):
        return ""
    lines: dict[tuple[str, str], list[str]] = {}
    for row in measured["rows"]:
        key = (row["shape"], row["operation"])
        # PyTorch's error is the same in the rows of all algorithms.
        cells = lines.setdefault(key, [f"{row['torch_error']:.1f}"])
        cells.append(f"{row['error']:.1f} ({row['at_most']:.1f})")
    algorithms = dict.fromkeys(row["algorithm"] for row in measured["rows"])
    head = ["shape", "operation", "PyTorch", *algorithms]
    body = table(head, ([*key, *cells] for key, cells in lines.items()), words=2)
    return f"{body}\n\n{source('conv_errors')}"


def trees() -> str:
    """Return the table of recursive networks, if they were measured."""
    if not (measured := result("trees")):
        return ""
    head = ["cell", "hidden", "by levels, ms", "nodes on our tape, ms", "ratio"]
    head += ["nodes in PyTorch, ms", "ratio"]
    lines = []
    for row in measured["rows"]:
        tape = [milliseconds(row["on_our_tape_ms"]), factor(row["ratio_to_tape"])]
        peer = [milliseconds(row["pytorch_ms"]), factor(row["ratio_to_torch"])]
        lines.append([row["cell"], row["hidden"], milliseconds(row["by_levels_ms"]), *tape, *peer])
    return f"{table(head, lines)}\n\n{source('trees')}"
