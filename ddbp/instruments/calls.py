"""What stands behind a call: layers as the user wrote them, and values with gradients."""

from layers import Call, Layer, Module, Recompute, Value
from layers.engine.value import Outputs
from layers.recurrent.recurrence import Recurrence, RecurrentPass


def named(model: Module) -> list[tuple[str, Module]]:
    """Return (name, layer) of what a model computes with: layers, and the cells of recurrences. A
    fused layer has the name of its first part, and a segment is those within.
    """
    return [
        (name or type(layer).__name__, layer)
        for name, layer in model.named_layers()
        if isinstance(layer, Layer | Recurrence) and not isinstance(layer, Recompute)
    ]


def written(layer: Module) -> tuple[Module, ...]:
    """Return the layers that the user wrote, of one that may be fused, or the cell of a
    recurrence.
    """
    whole = layer.core if isinstance(layer, RecurrentPass) else layer
    return tuple(each for part in layer.parts for each in written(part)) or (whole,)


def values_with_gradients(call: Call) -> list[Value]:
    """Return the outputs of a call of which a gradient is wanted."""
    output = call.output
    values = output.values if isinstance(output, Outputs) else (output,)
    return [value for value in values if value.wants]
