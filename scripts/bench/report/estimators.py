"""Tables of estimators of scikit-learn, and of what an installation takes."""

from .table import factor, milliseconds, result, source, table


def compared() -> str:
    """Return the table of ours beside scikit-learn's own networks, if they were compared."""
    if not (measured := result("estimators")):
        return ""
    lines = []
    for row in measured["rows"]:
        times = [milliseconds(row[f"{key}_ms"]["median"]) for key in ("ours", "theirs")]
        one = [milliseconds(row[f"{key}_one_epoch_ms"]) for key in ("ours", "theirs")]
        scores = [
            f"{row[f'{key}_score']:.4f} ± {row[f'{key}_deviation']:.4f}"
            for key in ("ours", "theirs")
        ]
        lines.append(
            [
                f"`{row['name']}`",
                f"{row['samples']} × {row['features']}",
                row["epochs"],
                *times,
                factor(row["theirs / ours"]["ratio"]),
                *one,
                *scores,
            ]
        )
    head = ["data set", "samples", "epochs", "ours, ms", "MLP…, ms", "MLP… / ours"]
    head += ["one epoch, ours, ms", "MLP…, ms", "score, ours", "MLP…"]
    load = measured["machine"]["load"][0]
    after = f", one thread; {measured['folds']} folds and {measured['seeds']} seeds; load {load}"
    return f"{table(head, lines, words=2)}\n\n{source('estimators', after=after)}"


def installations() -> str:
    """Return the table of what an installation takes, if it was measured."""
    if not (measured := result("install")):
        return ""
    most = [*measured["rows"][0]["packages"]][:5]
    lines = []
    for row in measured["rows"]:
        rest = row["megabytes"] - sum(row["packages"][name] for name in most)
        sizes = [f"{row['packages'][name]:.1f}" for name in most]
        times = [f"{row[f'import_{name}seconds']:.2f}" for name in ("", "numba_")]
        lines.append([row["python"], f"{row['megabytes']:.0f}", *sizes, f"{rest:.1f}", *times])
    head = [
        "Python",
        "all, MB",
        *most,
        "the others",
        "`import ddbp`, CPU s",
        "`import numba` alone, CPU s",
    ]
    return f"{table(head, lines)}\n\n{source('install')}"
