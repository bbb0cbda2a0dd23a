"""The rules, from cause to consequence: the first that holds is the diagnosis."""

from ddbp.doctor.rule import Rule

from . import data, parameters, signal, steps, structure, time

RULES: tuple[Rule, ...] = (
    data.constant_input,
    structure.softmax_twice,
    structure.squared_error_of_classes,
    structure.output_squashed,
    parameters.no_gradient,
    parameters.never_changes,
    parameters.units_alike,
    structure.linear_twice,
    data.imbalance,
    data.inputs_not_normalised,
    data.targets_not_scaled,
    data.validation_scaled_otherwise,
    structure.batch_norm_of_few,
    structure.dropout_high,
    structure.momentum_high,
    steps.epsilon_large,
    steps.decay_high,
    signal.saturated,
    signal.activations_explode,
    signal.last_layer_large,
    signal.units_dead,
    signal.gradients_vanish,
    steps.clips_always,
    signal.units_die,
    steps.rate_high,
    steps.rate_swings,
    steps.rate_low,
    steps.learns_nothing,
    steps.overfits,
    time.waits_for_data,
)
"""All rules in causal order. A finding explains those that come after it."""
