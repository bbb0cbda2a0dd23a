"""The rules, from cause to consequence: the first that holds is the diagnosis."""

from ddbp.doctor.rule import Rule

from . import data, gradients, parameters, ranks, signal, steps, structure, time

RULES: tuple[Rule, ...] = (
    ranks.versions_differ,
    ranks.data_differ,
    ranks.memory_corrupted,
    ranks.ranks_differ,
    data.constant_input,
    structure.softmax_twice,
    structure.squared_error_of_classes,
    structure.output_squashed,
    parameters.no_gradient,
    gradients.underflows,
    parameters.never_changes,
    parameters.mostly_frozen,
    gradients.gradient_not_cleared,
    gradients.gradient_flipped,
    gradients.shards_alike,
    parameters.units_alike,
    structure.linear_twice,
    data.data_sorted,
    data.imbalance,
    data.inputs_not_normalised,
    data.targets_not_scaled,
    data.validation_scaled_otherwise,
    structure.batch_norm_of_few,
    structure.batch_norm_stale,
    structure.dropout_high,
    structure.momentum_high,
    steps.loss_scaled,
    steps.epsilon_large,
    steps.decay_high,
    signal.attention_saturated,
    signal.saturated,
    signal.activations_explode,
    signal.last_layer_large,
    signal.units_dead,
    signal.gradients_vanish,
    steps.clips_always,
    signal.units_die,
    steps.clipping_missing,
    steps.rate_high,
    steps.rate_swings,
    steps.rate_low,
    steps.learns_nothing,
    steps.overfits,
    time.cores_oversubscribed,
    time.rank_slow,
    time.waits_for_data,
)
"""All rules in causal order. A finding explains those that come after it."""

EXACT: tuple[Rule, ...] = (
    structure.batch_norm_of_few,
    structure.dropout_high,
    structure.momentum_high,
)
"""Those that tell exactly what is wrong with options."""
