"""Four worked examples of backpropagation, to the last digit. All numbers are float64; the expected
ones are plain Python.
"""

import math

import numpy as np

import layers


def dense(weight, bias):
    """Return a float64 dense layer with the given weight (O, D) and bias (O,)."""
    weight = np.array(weight)
    layer = layers.Linear(weight.shape[1], weight.shape[0], rng=np.random.default_rng(0)).astype(
        np.float64
    )
    layer.weight.value = weight
    layer.bias.value = bias
    return layer


def neuron(bias):
    """Return the neuron's dense layer, pre-activation and output for x = [1, 2], w = [0.5, -0.3],
    target 1, after backward.
    """
    layer = dense([[0.5, -0.3]], [bias])
    tape = layers.Tape()
    z = layer(tape.input(np.array([[1.0, 2.0]])))
    y = layers.ReLU()(z)
    layers.MeanSquaredError()(y, np.array([[1.0]])).backward()
    return layer, float(z), float(y)


def test_pre_activation_of_the_neuron_is_the_rounding_error_of_the_sum():
    _, z, y = neuron(0.1)
    assert z == 0.1 + (0.5 * 1 + -0.3 * 2) == 2.7755575615628914e-17
    assert y == z


def test_neuron_whose_pre_activation_is_just_above_zero_learns():
    layer, _, _ = neuron(0.1)
    assert layer.weight.gradient.tolist() == [[-2.0, -4.0]]
    assert layer.bias.gradient.tolist() == [-2.0]


def test_neuron_whose_pre_activation_is_exactly_zero_does_not_learn():
    layer, z, y = neuron(-(0.5 * 1 + -0.3 * 2))
    assert z == 0
    assert y == 0
    assert layer.weight.gradient.tolist() == [[0.0, 0.0]]
    assert layer.bias.gradient.tolist() == [0.0]


def test_neuron_whose_pre_activation_is_just_below_zero_does_not_learn():
    layer, z, y = neuron(math.nextafter(-(0.5 * 1 + -0.3 * 2), 0))
    assert -1e-16 < z < 0
    assert y == 0
    assert layer.weight.gradient.tolist() == [[0.0, 0.0]]


def test_gradient_of_a_polynomial():
    tape = layers.Tape()
    x = tape.input(np.array([1.0, 2.0]))
    y = x[0] * x[1] + x[1] ** 2
    y.backward()
    assert float(y) == 6
    assert x.grad.tolist() == [2.0, 5.0]


def test_forward_pass_of_a_sigmoid_layer():
    weight, bias, x = [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]], [0.1, 0.2], [2.0, 3.0, 4.0]
    layer = dense(weight, bias)
    z = layer(np.array([x]))
    y = layers.Sigmoid()(z)
    by_hand = [
        sum(w * v for w, v in zip(row, x, strict=True)) + b
        for row, b in zip(weight, bias, strict=True)
    ]
    np.testing.assert_array_max_ulp(z[0], np.array([2.1, 4.9]), maxulp=2)
    np.testing.assert_array_max_ulp(z[0], np.array(by_hand), maxulp=2)
    np.testing.assert_array_max_ulp(
        y[0], np.array([1 / (1 + math.exp(-v)) for v in z[0]]), maxulp=2
    )
    assert [math.floor(v * 1e6) / 1e6 for v in y[0]] == [0.890903, 0.992608]


def test_one_step_of_gradient_descent_equals_the_update_derived_by_hand():
    x, target, rate = [1.0, 2.0], 3.0, 0.01
    w1 = [[0.5, -0.25], [0.1, 0.2], [-0.4, 0.3], [-0.6, 0.1]]
    b1 = [0.05, -0.1, 0.2, 0.3]
    w2, b2 = [0.7, -0.3, 0.4, 0.9], 0.15

    # z = W1 x + b1, h = max(z, 0), y = w2 h + b2, L = (y - t)^2, so with e = dL/dy = 2 (y - t):
    # dL/dw2_j = e h_j, dL/db2 = e, dL/dz_j = e w2_j [z_j > 0], dL/dW1_jk = dL/dz_j x_k, dL/db1_j =
    # dL/dz_j.
    z = [sum(w * v for w, v in zip(row, x, strict=True)) + b for row, b in zip(w1, b1, strict=True)]
    assert [v > 0 for v in z] == [True, True, True, False]
    h = [max(v, 0.0) for v in z]
    y = sum(w * v for w, v in zip(w2, h, strict=True)) + b2
    e = 2 * (y - target)
    dz = [e * w if v > 0 else 0.0 for w, v in zip(w2, z, strict=True)]
    new_w1 = [
        [w - rate * (d * v) for w, v in zip(row, x, strict=True)]
        for row, d in zip(w1, dz, strict=True)
    ]
    new_b1 = [b - rate * d for b, d in zip(b1, dz, strict=True)]
    new_w2 = [w - rate * (e * v) for w, v in zip(w2, h, strict=True)]
    new_b2 = b2 - rate * e

    first, second = dense(w1, b1), dense([w2], [b2])
    model = layers.Sequential(first, layers.ReLU(), second)
    loss = layers.MeanSquaredError()(
        model(layers.Tape().input(np.array([x]))), np.array([[target]])
    )
    loss.backward()
    for parameter in model.parameters():
        parameter.value = parameter.value - rate * parameter.gradient

    np.testing.assert_array_max_ulp(loss.array, np.array((y - target) ** 2), maxulp=4)
    for parameter, by_hand in zip(
        model.parameters(), (new_w1, new_b1, [new_w2], [new_b2]), strict=True
    ):
        np.testing.assert_array_max_ulp(parameter.value, np.array(by_hand), maxulp=2)
    assert (first.weight.value[3] == w1[3]).all(), "the unit that is off must not move"
