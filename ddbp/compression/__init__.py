"""Compressed gradients: what of a shard's gradient travels, and what waits for the next step."""

from .choice import COMPRESSORS as COMPRESSORS
from .choice import chosen as chosen
from .compressor import Codec as Codec
from .compressor import Compressor as Compressor
from .power_sgd import PowerSGD as PowerSGD
from .rounded import Rounded as Rounded
from .sign import Sign as Sign
from .top_k import TopK as TopK
