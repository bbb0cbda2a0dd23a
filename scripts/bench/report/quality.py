"""Tables of what training yields: accuracies, errors of gradients, equal bits."""

from .table import facts, result, source, table


def accuracies() -> str:
    """Return the table of accuracies, if they were measured."""
    if not (measured := result("digits_accuracy")):
        return ""
    names = ("ours", "sklearn", "cnn")
    lines = [[row["seed"], *(f"{row[name]:.4f}" for name in names)] for row in measured["rows"]]
    lines.append(["mean", *(f"{measured[f'{name}_mean']:.4f}" for name in names)])
    return table(["seed", "ours", "scikit-learn", "ours, `--model cnn`"], lines)


def precisions() -> str:
    """Return the table of what models reach in 16 bits, if it was measured."""
    if not (measured := result("precision_accuracy")):
        return ""
    names = [name for name, of in measured["rows"][0].items() if isinstance(of, dict)]
    names = [name for name in names if "difference" in measured["rows"][0][name]]
    lines = []
    for row in measured["rows"]:
        line = [row["name"], row["metric"].replace("_", " "), len(row["seeds"])]
        for name in names:
            of = row[name]
            line.append(f"{of['mean']:.4f} ± {of['deviation']:.4f}")
            if name != "float32":
                line.append(f"{of['difference']:+.4f} ± {of['error']:.4f}")
        lines.append(line)
    head = ["task", "metric", "seeds", "float32"]
    for name in names[1:]:
        head += [name, f"{name} - float32"]
    return f"{table(head, lines, words=2)}\n\n{source('precision_accuracy')}"


def gradients() -> str:
    """Return the table of the errors of a ResNet-20's gradients, if they were measured."""
    if not (measured := result("gradient_accuracy")):
        return ""
    head = ["activation", "method", "weights, median", "weights, largest"]
    head += ["images, median", "images, largest"]
    keys = ("median", "largest", "images_median", "images_largest")
    lines = [
        [row["activation"], row["method"], *(f"{row[key]:.1e}" for key in keys)]
        for row in measured["rows"]
    ]
    origin = (
        f"From `docs/results/gradient_accuracy.json`, {measured['seeds']} seeds:"
        f" {facts(measured['machine'])}."
    )
    return f"{table(head, lines, words=2)}\n\n{origin}"


def language() -> str:
    """Return the learning curves of the character language model, if they were measured."""
    if not (measured := result("char_lm_quality")):
        return ""
    curves = [[f"{bits:.3f}" for bits in measured[f"{name}_mean"]] for name in ("ours", "theirs")]
    lines = [[epoch, *bits] for epoch, bits in enumerate(zip(*curves, strict=True), 1)]
    origin = f"From `docs/results/char_lm_quality.json`, mean of {len(measured['rows'])} seeds."
    return f"{table(['epoch', 'ours', 'PyTorch'], lines)}\n\n{origin}"


def attributions() -> str:
    """Return the table of methods of attribution, if they were compared."""
    if not (measured := result("attributions")):
        return ""
    head = ["method", "error, relative", "alike in size", "alike with signs", "fall"]
    lines = []
    for row in measured["rows"]:
        *_, size = row["similarity"].values()
        *_, signs = row["signed"].values()
        error = "" if row["error"] is None else f"{row['error']:.1e}"
        lines.append(
            [row["method"], error, f"{size:.2f}", f"{signs:.2f}", f"{row['area_over_curve']:.2f}"]
        )
    return f"{table(head, lines)}\n\n{source('attributions')}"


def verified() -> str:
    """Return a line on the scripts that were verified on several numbers of ranks, if they were."""
    if not (measured := result("verify")):
        return ""
    rows = measured["rows"]
    equal = [row["name"] for row in rows if row["equal"]]
    ranks = ", ".join(dict.fromkeys(str(run["ranks"]) for row in rows for run in row["runs"]))
    steps = "/".join(map(str, sorted({run["steps"] for row in rows for run in row["runs"]})))
    return (
        f"{len(equal)} of {len(rows)} are equal to the last bit in {steps} steps on {ranks}"
        f" ranks: {', '.join(equal)}.\n\n{source('verify')}"
    )
