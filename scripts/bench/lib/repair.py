"""Repair: sick runs of the clinic once more, with what the doctor has proposed and nothing else."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from ddbp import settings

from .patients import Result, run

ROUNDS = 3

CODE: dict[str, dict[str, Any]] = {
    "softmax_twice": {"softmax": False},
    "squared_error_of_classes": {"squares": False, "squash": ""},
    "output_squashed": {"squash": ""},
    "no_gradient": {"cut": False},
    "never_changes": {"idle": False, "frozen": False},
    "units_alike": {"equal": 0.0, "zeros": False},
    "linear_twice": {"linear": False},
    "inputs_not_normalised": {"scale": 1.0, "column": 1.0, "standardise": True},
    "targets_not_scaled": {"target_scale": 1.0},
    "validation_scaled_otherwise": {"validation_scale": 1.0, "augment": ""},
    "batch_norm_of_few": {"norm": "layer"},
    "saturated": {"gain": 1.0, "recurrent_gain": 1.0},
    "attention_saturated": {"attention_gain": 1.0},
    "activations_explode": {"gain": 1.0},
    "last_layer_large": {"head_gain": 1.0},
    "units_dead": {"bias": 0.0},
    "gradients_vanish": {"activation": "relu", "norm": "layer", "recurrent_gain": 1.0},
    "data_sorted": {"order": ""},
    "shards_alike": {"order": ""},
    "gradient_flipped": {"sign": 1.0},
    "gradient_not_cleared": {"kept_gradient": False},
    "loss_scaled": {"loss_factor": 1.0},
    "underflows": {"loss_factor": 1.0, "half": False},
}
"""What the sentence of a remedy that no option is means for a patient, by rule."""


@contextmanager
def fixed(changes: Mapping[str, Any]) -> Iterator[None]:
    """Return a context in which trainers have other options, as `ddbp doctor --fix` has them."""
    if changes:
        asked = {"trainer": None, "run_dir": None, "changes": dict(changes)}
        os.environ[settings.FIX] = json.dumps(asked)
    try:
        yield
    finally:
        os.environ.pop(settings.FIX, None)


@dataclass
class Repair:
    """How the repair of a run has gone.

    Attributes
    ----------
    before, after
        The run, and that with the last change.
    tried
        The rules whose remedies were applied, in their order.
    changes
        The options that were changed.
    by_option
        Whether all of the remedies were options.
    """

    before: Result
    after: Result
    tried: list[str] = field(default_factory=list)
    changes: dict[str, Any] = field(default_factory=dict)
    by_option: bool = True


def repaired(before: Result) -> Repair:
    """Apply what the doctor proposes for a run, and train again, until it comes to a good result or
    there is nothing to try, at most some times.
    """
    found = Repair(before, before)
    options = before.options
    while len(found.tried) < ROUNDS and not found.after.good and found.after.findings:
        rule, changes = proposed(found.after)
        code = {} if changes else CODE.get(rule, {})
        after = replace(options, **code)
        if not changes and after == options:
            break
        found.tried.append(rule)
        found.changes |= changes
        found.by_option &= bool(changes)
        options = after
        with fixed(found.changes):
            # Whether there is more to mend shall not hang on a budget that short runs do not have.
            found.after = run(options, probes=True)
    return found


def proposed(result: Result) -> tuple[str, dict[str, Any]]:
    """Return the rule whose remedy is to be tried, as `ddbp doctor --fix` chooses it, and what
    options that changes.
    """
    found = [*zip(result.findings, result.changes, strict=True)]
    curable = [each for each in found if each[1]]
    return (curable or found)[-1]


def rate(cases: Iterable[tuple[str, Result]]) -> list[dict[str, Any]]:
    """Repair the runs that came to a bad result, each with its disease, and return a row for each
    disease, apart for what an option can cure and what takes another line of code.
    """
    rows: dict[tuple[str, str], Counter[str]] = {}
    for disease, result in cases:
        if result.good:
            continue
        rule, changes = proposed(result) if result.findings else ("", {})
        proposes = changes or rule in CODE
        kind = "option" if changes else "code" if proposes else "none"
        row = rows.setdefault((disease, kind), Counter())
        row["bad"] += 1
        if not proposes:
            continue
        found = repaired(result)
        row["repaired"] += found.after.good
        row["silent"] += found.after.good and not found.after.findings
        told = f"{result.score:6.2f} -> {found.after.score:6.2f}  {', '.join(found.tried)}"
        print(f"{disease:28} {result.options.family:12} {told} {found.changes}", flush=True)
    return [{"disease": disease, "cured by": kind, **row} for (disease, kind), row in rows.items()]


def totals(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the sums of rows, by what cures."""
    sums: dict[str, Counter[str]] = {}
    for row in rows:
        counts = sums.setdefault(row["cured by"], Counter())
        counts.update({name: row.get(name, 0) for name in ("bad", "repaired", "silent")})
    return [{"total": kind, **row} for kind, row in sums.items()]
