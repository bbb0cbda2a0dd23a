"""Which inputs decided an output: attributions of trained models.

>>> from ddbp import attribution
>>> found = attribution.integrated_gradients(trainer.model, images, labels)
>>> found.values.shape == images.shape, abs(found.error).max()
"""

from .grad_cam import grad_cam
from .gradients import gradient_times_input, integrated_gradients, saliency, smooth_grad
from .occlusion import occlusion
from .result import Attribution
from .rules import deep_lift, guided_backpropagation
from .sanity import sanity_check

__all__ = [
    "Attribution",
    "deep_lift",
    "grad_cam",
    "gradient_times_input",
    "guided_backpropagation",
    "integrated_gradients",
    "occlusion",
    "saliency",
    "sanity_check",
    "smooth_grad",
]
