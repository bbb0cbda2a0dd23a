"""The rule that a trainer's network learns by: how it is named, and what of it is trained, saved
and loaded.
"""

import inspect
import re
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np

from ddbp import written
from ddbp.comm.agreement import in_words
from ddbp.reduction.replicate import Replica
from ddbp.snapshot import TEXT, Entry, Schema, State
from layers import Module, Parameter, Rule, rules
from layers import State as ModelState
from layers.errors import message

_FIX = 'Write rule="feedback_alignment", or rule=FeedbackAlignment(seed=1), see layers.rules.'


def names() -> dict[str, type[Any]]:
    """Return the rules by the names that flags and options have for them."""
    found = {}
    for kind in map(vars(rules).__getitem__, rules.__all__):
        if kind is not rules.LearningRule:
            found[re.sub(r"\B([A-Z])", r"_\1", kind.__name__.replace("MeP", "Mep")).lower()] = kind
    return found


def checked(given: Any, seed: int) -> Rule | None:
    """Return the rule, which may be given by its name, with this seed, or in words as a
    configuration has it; None for exact backpropagation.

    Raises
    ------
    TypeError, ValueError
        It is no rule.
    """
    if given is None or isinstance(given, Rule):
        return given
    must = "rule must be a layers.Rule, or the name of one"
    if not isinstance(given, str):
        raise TypeError(message("Trainer", must, repr(given), _FIX))
    kinds = names()
    if given in kinds:
        draws = "seed" in inspect.signature(kinds[given]).parameters
        named: Rule = kinds[given](**({"seed": seed} if draws else {}))
        return named
    refusal = ValueError(message("Trainer", must, repr(given), f"Names are {', '.join(kinds)}."))
    result: Rule = written.made(given, {each.__name__: each for each in kinds.values()}, refusal)
    return result


class Learner(Module):
    """A model, and what the rule that it learns by has of parameters, which are trained with it;
    those are named after it, under `rule`.

    Parameters
    ----------
    model
        The model.
    rule
        What the rule has.
    """

    def __init__(self, model: Module, rule: Module) -> None:
        self.model = model
        self.rule = rule

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        yield from self.model.named_parameters(prefix)
        yield from self.rule.named_parameters(f"{prefix}rule.")

    def named_states(self, prefix: str = "") -> Iterator[tuple[str, ModelState]]:
        yield from self.model.named_states(prefix)
        yield from self.rule.named_states(f"{prefix}rule.")


def learner(model: Module, rule: Rule | None, *, warn: bool = True) -> Module:
    """Bind a rule to a model, which may `warn`; return what is trained: the model, and what the
    rule has beside it.
    """
    with nullcontext() if warn else warnings.catch_warnings(action="ignore"):
        own = None if rule is None else rule.bind(model)
    if rule is not None:
        # A rule of somebody's own may not have said so.
        rule.bound = model
    return model if own is None else Learner(model, own)


def require_bound(rule: Rule | None, whole: Module) -> None:
    """Refuse a rule that has been bound to another model since `learner` returned `whole`.

    Raises
    ------
    RuntimeError
        It is bound to another one.
    """
    model = whole.model if isinstance(whole, Learner) else whole
    if rule is not None and rule.bound is not model:
        must, fix = "the rule must belong to this trainer", "Make a rule for each trainer."
        got = f"{rule!r}, which was bound to another model since"
        raise RuntimeError(message("Trainer", must, got, fix))


def parts(trainer: Any) -> dict[str, Any]:
    """Return what a trainer's state has of its rule: what was drawn, and what is learned."""
    rule, whole = trainer.options.rule, trainer._update.learner
    require_bound(rule, whole)
    own = whole.rule if isinstance(whole, Learner) else None
    result: dict[str, Any] = {} if rule is None else {"rule": RuleState(rule, own)}
    if own is not None:
        result["learned"] = Replica(own, trainer.comm, trainer._update.comm)
    return result


class RuleState:
    """What a rule has drawn, as a part of a trainer's state: the same on all ranks. It begins anew
    with a state of another rule, such as one of another seed, or of none.

    Parameters
    ----------
    rule
        The rule.
    own
        What it has of parameters, if anything: optimizers have states of them.
    """

    def __init__(self, rule: Rule, own: Module | None) -> None:
        self._rule = rule
        self._is = in_words({"rule": rule})["rule"]
        self._learned = [] if own is None else [name for name, _ in own.named_parameters()]

    def state(self) -> dict[str, Any]:
        """Return the arrays by name, and which rule they are of."""
        arrays = self._rule.state()
        return {"is": self._is, "learned": self._learned, "names": sorted(arrays), **arrays}

    def state_schema(self, state: State) -> Schema:
        """Return what `load_state` takes: a state of the same parameters, or none."""
        if not state:
            return {}
        numbers = Entry("an array of floating numbers", _is_floating)
        arrays = sorted(state.keys() - {"is", "learned", "names"})
        named = Entry("the names of the arrays", lambda entry: entry == arrays)
        kind = f"the parameters that {self._is} learns, {self._learned}"
        learned = Entry(kind, lambda entry: entry == self._learned)
        return {"is": TEXT, "learned": learned, "names": named, **dict.fromkeys(arrays, numbers)}

    def load_state(self, state: State) -> None:
        """Go on from what `state` returned."""
        if state.get("is") == self._is:
            self._rule.load_state({name: np.array(state[name]) for name in state["names"]})


def _is_floating(entry: Any) -> bool:
    dtype = getattr(entry, "dtype", None)
    return dtype is not None and np.dtype(dtype).kind == "f"
