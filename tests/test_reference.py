"""Every public name is documented: it stands in the reference, has a docstring, and its parameters
are told.
"""

import importlib
import inspect
import re
import types
from enum import Enum
from pathlib import Path

import ddbp
import layers

REFERENCE = Path(__file__).parents[1] / "docs" / "api"
DIRECTIVE = re.compile(
    r"^\.\. (?:(currentmodule)|auto(?:class|function|exception|data)):: ([\w.]+)$", re.MULTILINE
)
# Modules that are public by their own name, of which all public functions are.
MODULES = (
    "layers.init",
    "layers.models",
    "layers.rules",
    "ddbp.attribution",
    "ddbp.data.augment",
    "ddbp.data",
    "ddbp.sklearn",
    "ddbp.export",
    "ddbp.training.script",
)
# They mean the same everywhere, and stand at the head of the reference: the inputs of a layer, the
# generator that draws initial weights, their shape and type.
EVERYWHERE = {"self", "x", "y", "inputs", "rng", "shape", "dtype"}
# Scripts get them, and do not make them.
MADE_BY_THE_TAPE = {"layers.Call", "layers.ForwardCall", "layers.Value"}


def public():
    """Return what is public, by full name: what `__all__` names, and what public modules define."""
    places = [ddbp, layers, *map(importlib.import_module, MODULES)]
    names = {
        f"{place.__name__}.{name}": getattr(place, name)
        for place in places
        for name in offered(place)
    }
    return {name: found for name, found in names.items() if not inspect.ismodule(found)}


def offered(module):
    """Return the names that a module offers: `__all__`, or its public functions."""
    own = [
        name
        for name, found in vars(module).items()
        if name[0] != "_" and getattr(found, "__module__", None) == module.__name__
    ]
    return getattr(module, "__all__", own)


PUBLIC = public()


def referenced():
    """Return the names that the pages of the reference describe."""
    names = []
    for page in REFERENCE.glob("*.md"):
        module = ""
        for sets_module, name in DIRECTIVE.findall(page.read_text()):
            if sets_module:
                module = name
            else:
                names.append(f"{module}.{name}")
    return names


def methods(owner):
    """Return the names of the public methods and properties that classes of ours define."""
    kinds = types.FunctionType | property | classmethod | staticmethod
    return {
        name
        for base in owner.__mro__
        if base.__module__.split(".")[0] in ("ddbp", "layers")
        for name, member in vars(base).items()
        if isinstance(member, kinds) and name[0] != "_"
    }


def documented(owner, method):
    """Return whether a method has a docstring, or overrides one that has."""
    return any(
        inspect.getdoc(vars(base).get(method)) for base in owner.__mro__ if method in vars(base)
    )


def parameters(found):
    """Return the names of what a function, or a class's constructor, takes."""
    if not callable(found) or (inspect.isclass(found) and issubclass(found, Enum | Exception)):
        return set()
    return inspect.signature(found).parameters.keys() - EVERYWHERE


def with_those_it_refers_to(text):
    """Return a docstring with those of the public things that it refers to in backticks, and so
    on.
    """
    texts = [text]
    for known in texts:
        for name in re.findall(r"`(\w+)`", known):
            for place in ("layers", "ddbp", *MODULES):
                other = PUBLIC.get(f"{place}.{name}")
                if (more := inspect.getdoc(other) if other else None) and more not in texts:
                    texts.append(more)
    return "\n".join(texts)


def listed(text):
    """Return the names in a docstring's section of parameters."""
    section = re.search(r"^Parameters\n-+\n(.*?)(?=^\w+\n-+\n|\Z)", text, re.MULTILINE | re.DOTALL)
    heads = re.findall(r"^(\S.*)$", section[1], re.MULTILINE) if section else []
    return [name.strip("*") for head in heads for name in head.split(" : ")[0].split(", ")]


def test_the_reference_describes_every_public_name_once():
    assert sorted(referenced()) == sorted(PUBLIC)


def test_public_names_and_their_methods_have_docstrings():
    bare = [name for name, found in PUBLIC.items() if not inspect.getdoc(found)]
    for name, owner in PUBLIC.items():
        if inspect.isclass(owner):
            bare += [
                f"{name}.{method}" for method in methods(owner) if not documented(owner, method)
            ]
    assert bare == []


def test_parameters_of_public_names_are_told():
    untold, unknown = {}, {}
    for name, found in PUBLIC.items():
        text, taken = inspect.getdoc(found) or "", parameters(found)
        told = with_those_it_refers_to(text)
        missing = [key for key in taken if not re.search(rf"\b{key}\b", told)]
        if missing and name not in MADE_BY_THE_TAPE:
            untold[name] = missing
        if others := [key for key in listed(text) if key not in taken | EVERYWHERE]:
            unknown[name] = others
    assert untold == {}
    assert unknown == {}, "what is no parameter stands under Notes"
