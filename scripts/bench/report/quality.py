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


def clinic() -> str:
    """Return how often the doctor is right, if it was measured."""
    if not (measured := result("clinic")):
        return ""
    test = [row for row in measured["rows"] if row["half"] == "test"]
    sick = [row for row in test if "disease" in row]
    (well,) = (row for row in test if "disease" not in row)
    runs, found, named, suffer, seen = (
        sum(row.get(name, 0) for row in sick)
        for name in ("runs", "found", "named", "suffer", "found of those that suffer")
    )
    low, high = well["interval"]
    said = (
        f"Of {runs} runs with one of {len(sick)} diseases, of which {suffer} came to a bad result,"
        f" {found} had a finding ({seen} of those that suffered), and in {named} the first one"
        f" named the disease. Of {well['good']} healthy runs that came to a good result"
        f" {well.get('alarmed', 0)} had a finding ({well.get('alarmed', 0) / well['good']:.1%};"
        f" {low:.1%} to {high:.1%} with a chance of 95 %). Networks, data, doses and options are"
        " drawn anew for each run; these are the runs with odd numbers, which no threshold was"
        " chosen on. Diseases, doses and rules have one author. "
    )
    return source("clinic", said)
