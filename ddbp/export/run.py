"""The model of a run, of what its folder holds."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from ddbp import files
from ddbp.architecture.description import build_for, require_precision
from ddbp.checkpoint import folder
from ddbp.training.paths import path_of
from ddbp.training.run_folder import take_arrays
from layers.errors import message, wording
from layers.kernels.cache_folder import opened
from layers.types import Array

from .bundle import Bundle, unpacked

_DESCRIPTION, _PARAMETERS, _MODEL = "architecture.json", "model.safetensors", "model."


@wording("load_run")
def load_run(path: str | os.PathLike[str]) -> Bundle:
    """Return the model of a run, as a bundle without preprocessing: with the parameters that its
    end has left, or those of its newest whole checkpoint.

    Parameters
    ----------
    path
        The folder of the run.

    Raises
    ------
    ValueError
        The folder has no description of the model, as layers of it are of kinds that files cannot
        name, or no parameters; or they are not whole.
    OSError
        It cannot be read.
    """
    path = path_of("load_run", "path", path)
    description = path / _DESCRIPTION
    if not description.exists():
        fix = "Register layers of your own (ddbp.export.register) before training."
        must = f"{path} must be the folder of a run that has {_DESCRIPTION}"
        raise ValueError(message("load_run", must, "none", fix))
    try:
        facts = json.loads(files.read_text(description))
    except (ValueError, RecursionError) as error:
        fix = "It was cut off or changed."
        raise ValueError(message("load_run", f"{description} must be JSON", error, fix)) from error
    arrays = _arrays(path)
    model = build_for(facts, arrays)
    take_arrays("load_run", model, arrays, path)
    require_precision(model, facts)
    return Bundle(model, facts={"architecture": facts})


def _arrays(path: Path) -> dict[str, Array]:
    parameters = path / _PARAMETERS
    # Older than the description, they are of another run in this folder.
    begun = (path / _DESCRIPTION).stat().st_mtime_ns
    if parameters.exists() and parameters.stat().st_mtime_ns >= begun:
        with opened(parameters, links=True) as file:
            return unpacked(parameters, file.readall())
    reasons: list[Any] = []
    for found in folder.newest_whole(folder.within(path)):
        if isinstance(found, folder.Checkpoint):
            arrays = found.snapshot().arrays.items()
            return {
                name.removeprefix(_MODEL): np.asarray(array)
                for name, array in arrays
                if name.startswith(_MODEL)
            }
        reasons.append(found)
    fix = "Train to the end, or with ddbp.Checkpoints."
    must = f"{path} must have {_PARAMETERS} or a whole checkpoint"
    raise ValueError(message("load_run", must, reasons[0] if reasons else "neither", fix))
