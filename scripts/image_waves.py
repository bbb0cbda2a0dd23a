"""See into a body by waves: the speed of sound inside it, from what receivers around it have heard
of a few shots, by gradients through the simulation (full-waveform inversion; Tarantola 1984,
"Inversion of seismic reflection data in the acoustic approximation", Geophysics 49).

The model that is trained is the simulation itself, `problems/waves.py`; its parameter is the map of
speeds. With `--recompute` each ten steps are computed again on the way back instead of being kept.
"""

import numpy as np
from problems.waves import SIZE, SPEED, SPONGE, Body, body, shots

from ddbp import Adam, ArrayDataset, script
from layers import MeanSquaredError


def main() -> None:
    """Make the measurements, image the body from them, and print how far the map is from the true
    one, in units of what there is to see.
    """
    without = {
        "--memory": "the model is no Sequential of layers; --recompute takes less",
        "--rule": "the model has no layers",
    }
    flags = script.Flags(__doc__, epochs=60, batch_size=12, learning_rate=0.02, without=without)
    about = "keep only what each ten steps begin with"
    flags.add_argument("--recompute", action="store_true", help=about)
    options = flags.parse_args()
    rng = np.random.default_rng(options.seed)
    speeds, sources = body(), shots()
    heard = Body(speeds)(sources)
    heard = heard + rng.standard_normal(heard.shape).astype(np.float32) * 0.01
    training, test = ArrayDataset(sources, heard).split(0.25, seed=options.seed)
    model = Body(np.full((SIZE, SIZE), SPEED), recompute=options.recompute)
    optimizer = Adam(script.cosine(options, training))
    trainer, result = script.fit(options, model, MeanSquaredError(), optimizer, training, test)
    inside = slice(SPONGE, -SPONGE), slice(SPONGE, -SPONGE)
    found, true = model.map.values.value[inside], np.log(speeds / SPEED)[inside]
    result["metrics"] |= {
        "map_error": script.root_mean_square(found - true) / script.root_mean_square(true),
        "correlation": float(np.corrcoef(found.ravel(), true.ravel())[0, 1]),
    }
    script.finish(options, trainer, result)


if __name__ == "__main__":
    script.start(main)
