"""Tables of the speed of one process: steps, single convolutions, trees, compilation."""

from collections.abc import Callable
from typing import Any

from lib import harness

from .table import RESULTS, factor, milliseconds, result, source, table

PEERS = {
    "torch": "PyTorch",
    "torch-compile": "PyTorch compiled",
    "jax": "JAX",
    "scikit-learn": "scikit-learn",
    "torch-threads": "PyTorch, threads",
    "torch-ddp": "PyTorch, DDP",
}


def training_steps() -> str:
    """Return the tables of whole training steps, by the processors that they were measured on."""
    parts: list[str] = []
    for name in measured_steps():
        processor = harness.processor(result(name)["machine"])
        if (head := f"### On {processor}") not in parts:
            parts.append(head)
        parts.append(_steps(name))
    return "\n\n".join(parts)


def measured_steps() -> list[str]:
    """Return the names of the results with whole training steps."""
    paths = sorted((RESULTS / "train_step").glob("*.json"), key=lambda path: path.stem)
    return [f"train_step/{path.stem}" for path in paths]


def _steps(name: str) -> str:
    measured = result(name)
    rows = measured["rows"]
    found = {peer.split()[0] for row in rows for peer in row.get("peers_ms", {})}
    columns: list[tuple[str, Callable[[dict[str, Any]], Any]]] = [
        ("workload", lambda row: row["workload"]),
        ("ranks", lambda row: row["ranks"]),
        ("ours, ms", lambda row: milliseconds(row["ours_ms"])),
        *((f"{PEERS[peer]}, ms", _time_of(peer)) for peer in PEERS if peer in found),
        ("PyTorch / ours", lambda row: factor(row.get("ratio"))),
        ("by the clock", lambda row: factor(_by_clock(row, "torch"))),
        ("fastest / ours", lambda row: factor(row.get("ratio_best"))),
        ("by the clock", lambda row: factor(_by_clock(row, "best_peer"))),
        ("of peak", lambda row: factor(row.get("of_peak"))),
        ("ours in bfloat16, ms", lambda row: _in_bfloat16(row, "ours_ms", milliseconds)),
        ("PyTorch autocast, ms", lambda row: _in_bfloat16(row, "torch_ms", milliseconds)),
        ("autocast / ours", lambda row: _in_bfloat16(row, "ratio", factor)),
        ("by the clock", lambda row: _in_bfloat16(row, "normalised", factor)),
    ]
    lines = [[cell(row) for _, cell in columns] for row in rows]
    kept = [i for i in range(len(columns)) if any(line[i] != "" for line in lines)]
    body = table([columns[i][0] for i in kept], ([line[i] for i in kept] for line in lines))
    missing = measured.get("left_out", {})
    after = "".join(f"; no {PEERS.get(peer, peer)}, as {why}" for peer, why in missing.items())
    load = measured["machine"].get("load")
    after += f"; load {load[0]:.1f} at the start" if load else ""
    return f"{body}\n\n{source(name, after=after)}"


def _time_of(peer: str) -> Callable[[dict[str, Any]], str]:
    def cell(row: dict[str, Any]) -> str:
        times = [ms for name, ms in row.get("peers_ms", {}).items() if name.split()[0] == peer]
        return milliseconds(min(times, default=None))

    return cell


def _by_clock(row: dict[str, Any], peer: str) -> float | None:
    """Return the ratio in units of what multiply-adds took around each sample."""
    found: float | None = row.get("normalised", {}).get(row.get(peer))
    return found


def _in_bfloat16(row: dict[str, Any], key: str, show: Callable[[float | None], str]) -> str:
    return show(row.get("bf16", {}).get(key))


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


def precisions() -> str:
    """Return the table of steps in bfloat16, if they were measured."""
    if not (measured := result("precision")):
        return ""
    known = measured["rows"][0]
    kinds = [
        kind
        for kind in ("float32", "bf16", "bf16-dot", "float16", "torch float32", "torch autocast")
        if kind in known["ms"]
    ]
    ours = [kind for kind in kinds if kind in known["to_float32"]]
    head = ["workload", *(f"{kind}, ms" for kind in kinds)]
    head += [f"{to} / {kind}" for to in ("float32", "torch autocast") for kind in ours]
    lines = []
    for row in measured["rows"]:
        times = [milliseconds(row["ms"].get(kind, {}).get("median")) for kind in kinds]
        ratios = [
            factor(row[to].get(kind, {}).get("ratio"))
            for to in ("to_float32", "to_autocast")
            for kind in ours
        ]
        lines.append([row["name"], *times, *ratios])
    return f"{table(head, lines)}\n\n{source('precision')}"


def activation_memory() -> str:
    """Return the table of the memory of steps in 16 bits."""
    if not (measured := result("activation_memory")):
        return ""
    kinds = ("bf16", "bf16-dot", "float16")
    head = ["workload", "float32, MiB", *(f"{kind}, MiB" for kind in kinds)]
    head += [f"{kind} / float32" for kind in kinds]
    head += [f"time of float32 / {kind}" for kind in kinds]
    lines = []
    for row in measured["rows"]:
        held = [f"{row['bytes'][kind] / 2**20:.1f}" for kind in ("float32", *kinds)]
        parts = [f"{row['to_float32'][kind]:.2f}" for kind in kinds]
        speeds = [factor(row["speed"][kind]["ratio"]) for kind in kinds]
        lines.append([row["name"], *held, *parts, *speeds])
    return f"{table(head, lines)}\n\n{source('activation_memory')}"


def recomputed() -> str:
    """Return the table of steps whose layers are computed again."""
    if not (measured := result("recompute")):
        return ""
    head = ["network", "way", "MiB", "of an ordinary step's", "time / ordinary"]
    head += ["layers again", "predicted / held"]
    lines = []
    for row in measured["rows"]:
        ways = [(way, found, "") for way, found in row["ours"].items()]
        ways += [(way, found, "PyTorch, ") for way, found in row["torch"].items()]
        for way, found, whose in ways:
            budget = f"memory={way} of it" if way.endswith("%") else way
            line = [row["name"], whose + budget, f"{found['bytes'] / 2**20:.1f}"]
            if "of_ordinary" in found:
                line += [f"{found['of_ordinary']:.2f}", factor(found["times_ordinary"]["ratio"])]
            line += [""] * (5 - len(line))
            predicted = found.get("predicted")
            line += [found.get("layers_again") or ""]
            line += [f"{predicted / found['bytes']:.3f}" if predicted else ""]
            lines.append(line)
    return f"{table(head, lines)}\n\n{source('recompute')}"


def augmentation() -> str:
    """Return the table of what augmentation takes of a step."""
    if not (measured := result("augmentation")):
        return ""
    head = ["reading a batch and", "ms", "of a step"]
    lines = [
        [
            "nothing else" if row["name"] == "nothing" else f"`{row['name']}`",
            milliseconds(row["ms"]["median"]),
            f"{row['of_step']['ratio']:.1%}",
        ]
        for row in measured["rows"]
    ]
    batch, step = measured["batch"], milliseconds(measured["step_ms"]["median"])
    about = f"A step on {batch} images takes {step} ms. "
    return f"{table(head, lines)}\n\n{source('augmentation', about)}"


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
