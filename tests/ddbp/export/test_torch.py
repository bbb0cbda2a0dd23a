"""Weights to and from PyTorch: outputs are equal, both ways, and what does not fit is named."""

import numpy as np
import pytest
import safetensors.numpy

import layers
from ddbp import export
from layers import models

from .models import MODELS, TORCH, by

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'ddbp[oracle]'")
from safetensors.torch import load_file, save_file  # noqa: E402 - needs PyTorch

from . import torch_modules  # noqa: E402 - needs PyTorch

RNG = np.random.default_rng(0)
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def module_of(case):
    module = getattr(torch_modules, case.theirs)().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for name, buffer in module.named_buffers():
            if "running" in name:
                buffer.copy_(0.5 + torch.rand_like(buffer))
    return module


def answer(module, x):
    given = torch.tensor(x)
    if x.ndim == 4:
        given = given.permute(0, 3, 1, 2)
    with torch.no_grad():
        return module(given).numpy()


def names_of(case, module):
    return list(module.state_dict()) if case.names == "in order" else case.names


def assert_equal(ours, theirs):
    scale = max(1.0, float(np.abs(theirs).max()))
    np.testing.assert_allclose(ours / scale, theirs / scale, **CLOSE)


@pytest.mark.parametrize("case", by(TORCH), ids=repr)
def test_our_weights_give_their_module_our_outputs(case, tmp_path):
    model, (x, _), module = case.model(), case.inputs(), module_of(case)
    path = tmp_path / "ours.safetensors"
    arrays = export.to_torch(model, path, names=names_of(case, module))
    module.load_state_dict(load_file(path), strict=True)
    assert arrays.keys() == module.state_dict().keys()
    assert_equal(model(x), answer(module, x))


@pytest.mark.parametrize("case", by(TORCH), ids=repr)
def test_their_weights_give_our_model_their_outputs(case, tmp_path):
    model, (x, _), module = case.model(), case.inputs(), module_of(case)
    names = names_of(case, module)
    expected = answer(module, x)
    for source in (module, module.state_dict(), saved(module, tmp_path)):
        for parameter in model.parameters():
            parameter.value[...] = 7
        export.from_torch(model, source, names=names)
        assert_equal(model(x), expected)


def saved(module, folder):
    path = folder / "theirs.safetensors"
    save_file({name: each.clone().contiguous() for name, each in module.state_dict().items()}, path)
    return path


def gpt(**options):
    return models.gpt(RNG, 13, context=8, features=12, depth=2, heads=3, tied=True, **options)


def test_gpt2_of_hugging_face_has_transposed_weights_and_no_output_layer(tmp_path):
    module, model = torch_modules.gpt2().eval(), gpt(approximate="tanh")
    x = RNG.integers(0, 13, (3, 8))
    expected = answer(module, x)
    state = {name.removeprefix("transformer."): each for name, each in module.state_dict().items()}
    state.pop("lm_head.weight")
    # Masks, which older files have.
    state["h.0.attn.bias"] = torch.ones(1, 1, 8, 8)
    export.from_torch(model, state, names="gpt2")
    assert_equal(model(x), expected)
    export.to_torch(model, tmp_path / "a.safetensors", names="gpt2")
    again = torch_modules.gpt2().eval()
    again.load_state_dict(load_file(tmp_path / "a.safetensors"), strict=True)
    assert_equal(answer(again, x), expected)


def test_resnet_has_the_names_of_torchvision(tmp_path):
    case = next(each for each in MODELS if each.name == "ResNet-20")
    model, (x, _) = case.model(), case.inputs()
    module = torch_modules.ResNet20().eval()
    module.load_state_dict(
        {k: torch.tensor(v) for k, v in export.to_torch(model, names="resnet").items()}
    )
    assert_equal(model(x), answer(module, x))
    other = models.resnet20(np.random.default_rng(9))
    export.from_torch(other, module, names="resnet")
    np.testing.assert_array_equal(other(x), model(x))


def test_names_by_prefix():
    model = layers.Sequential(
        layers.Linear(4, 3, rng=RNG), layers.ReLU(), layers.Linear(3, 2, rng=RNG)
    )
    found = export.to_torch(model, names={"0": "fc1", "2": "fc2"})
    assert list(found) == ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"]
    assert next(iter(export.to_torch(model, names={"": "net."}))) == "net.0.weight"
    with pytest.raises(ValueError, match=r"names must differ; got a.weight twice"):
        export.to_torch(model, names={"0": "a", "2": "a"})


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (layers.Conv1d(3, 4, 2, rng=RNG), torch.nn.Conv1d(3, 4, 2)),
        (layers.Conv3d(2, 4, 2, groups=2, rng=RNG), torch.nn.Conv3d(2, 4, 2, groups=2)),
        (
            layers.ConvTranspose2d(4, 6, 3, stride=2, groups=2, rng=RNG),
            torch.nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2),
        ),
        (layers.ConvTranspose1d(4, 6, 3, rng=RNG), torch.nn.ConvTranspose1d(4, 6, 3)),
        (layers.GroupNorm(2, 4), torch.nn.GroupNorm(2, 4)),
        (layers.PReLU(4), torch.nn.PReLU(4)),
    ],
    ids=repr,
)
def test_layers_of_images_one_by_one(ours, theirs):
    size = ours.in_channels if hasattr(ours, "in_channels") else 4
    axes = {"1d": 1, "3d": 3}.get(repr(ours).partition("(")[0][-2:], 2)
    x = RNG.standard_normal((2, *[5] * axes, size)).astype(np.float32)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.randn_like(parameter))
    export.from_torch(ours, theirs)
    expected = theirs(torch.tensor(np.moveaxis(x, -1, 1))).detach().numpy()
    assert_equal(np.moveaxis(ours(x), -1, 1), expected)
    back = export.to_torch(ours)
    for name, each in theirs.state_dict().items():
        np.testing.assert_array_equal(back[name], each.numpy())


@pytest.mark.parametrize("cross", [False, True])
def test_attention_has_one_projection_there(cross):
    ours = layers.MultiHeadAttention(8, 2, rng=RNG, cross=cross)
    theirs = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    export.from_torch(ours, theirs)
    x, z = (RNG.standard_normal((2, t, 8)).astype(np.float32) for t in (5, 7))
    z = z if cross else x
    expected = theirs(*map(torch.tensor, (x, z, z)))[0].detach().numpy()
    assert_equal(ours(x, z) if cross else ours(x), expected)
    assert export.to_torch(ours).keys() == theirs.state_dict().keys()


def test_decoder_blocks_are_those_of_pytorch():
    ours = layers.DecoderBlock(8, 2, 12, rng=RNG)
    theirs = torch.nn.TransformerDecoderLayer(
        8, 2, 12, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    ).eval()
    export.from_torch(ours, theirs)
    x, z = (RNG.standard_normal((2, t, 8)).astype(np.float32) for t in (5, 7))
    mask = torch.nn.Transformer.generate_square_subsequent_mask(5)
    expected = theirs(torch.tensor(x), torch.tensor(z), tgt_mask=mask).detach().numpy()
    assert_equal(ours(x, z), expected)
    assert list(export.to_torch(ours)) == list(theirs.state_dict())


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (layers.LSTMCell(3, 4, rng=RNG), torch.nn.LSTMCell(3, 4)),
        (layers.GRUCell(3, 4, rng=RNG), torch.nn.GRUCell(3, 4)),
        (layers.RNNCell(3, 4, rng=RNG), torch.nn.RNNCell(3, 4)),
    ],
    ids=repr,
)
def test_cells_are_those_of_pytorch(ours, theirs):
    export.from_torch(ours, theirs)
    x = RNG.standard_normal((2, 3)).astype(np.float32)
    y, expected = ours(x), theirs(torch.tensor(x))
    for mine, twin in zip(
        y if isinstance(y, tuple) else (y,),
        expected if isinstance(expected, tuple) else (expected,),
        strict=True,
    ):
        assert_equal(mine, twin.detach().numpy())


def test_a_norm_of_images_tells_how_many_channels_they_have():
    ours = layers.Sequential(
        layers.BatchNorm2d(3), layers.Flatten(), layers.Linear(4 * 5 * 3, 2, rng=RNG)
    )
    theirs = torch.nn.Sequential(
        torch.nn.BatchNorm2d(3), torch.nn.Flatten(), torch.nn.Linear(60, 2)
    ).eval()
    export.from_torch(ours, theirs)
    x = RNG.standard_normal((2, 4, 5, 3)).astype(np.float32)
    assert_equal(ours(x), answer(theirs, x))


def test_images_that_are_flattened_at_once_come_channels_first_there():
    ours = layers.Sequential(layers.Flatten(), layers.Linear(4 * 5 * 3, 2, rng=RNG))
    theirs = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(60, 2))
    export.from_torch(ours, theirs, channels=3)
    x = RNG.standard_normal((2, 4, 5, 3)).astype(np.float32)
    assert_equal(ours(x), answer(theirs, x))


class Pictures(layers.Composite):
    """A network with the attributes of one of PyTorch, whose code flattens images."""

    def __init__(self):
        self.conv, self.fc = layers.Conv2d(3, 4, 3, rng=RNG), layers.Linear(60, 5, rng=RNG)

    def __call__(self, x):
        return self.fc(self.conv(x).reshape((x.shape[0], 60)))


class TheirPictures(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(60, 5)

    def forward(self, x):
        return self.fc(self.conv(x).flatten(1))


class Block(layers.Composite):
    def __init__(self):
        self.conv = layers.Conv2d(3, 4, 3, rng=RNG)

    def __call__(self, x):
        return self.conv(x)


class TheirBlock(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.conv(x)


@pytest.mark.parametrize(
    ("ours", "theirs", "name"),
    [
        (Pictures(), TheirPictures(), "fc"),
        (
            layers.Sequential(Block(), layers.Flatten(), layers.Linear(60, 5, rng=RNG)),
            torch.nn.Sequential(TheirBlock(), torch.nn.Flatten(), torch.nn.Linear(60, 5)),
            "2",
        ),
    ],
    ids=["within", "after"],
)
def test_what_a_composite_flattens_is_said_or_refused(ours, theirs, name):
    x = RNG.standard_normal((2, 5, 7, 3)).astype(np.float32)
    for convert in (export.from_torch, lambda model, _: export.to_torch(model)):
        must = (
            rf"whether {name} reads flattened images, of 4 channels; .* channels={{\"{name}\": 4}}"
        )
        with pytest.raises(ValueError, match=must):
            convert(ours, theirs)
    export.from_torch(ours, theirs, channels={name: 4})
    assert_equal(ours(x), answer(theirs, x))
    arrays = export.to_torch(ours, channels={name: 4})
    for key, array in theirs.state_dict().items():
        np.testing.assert_array_equal(arrays[key], array.numpy())
    given = export.to_torch(ours, channels={name: 1})[f"{name}.weight"]
    assert not np.array_equal(given, arrays[f"{name}.weight"])
    with pytest.raises(ValueError, match="must divide its 60 inputs; got 7"):
        export.to_torch(ours, channels={name: 7})
    with pytest.raises(ValueError, match="channels must be of layers by their names here; got con"):
        export.to_torch(ours, channels={name: 4, "con": 1})


def test_slopes_and_norms_of_images_have_their_channels_first_there():
    def pair(first, second):
        nn = torch.nn
        theirs = nn.Sequential(nn.Conv2d(3, 4, 2), *second).eval()
        ours = layers.Sequential(layers.Conv2d(3, 4, 2, rng=RNG), *first)
        return ours, theirs

    for ours, theirs in (
        pair([layers.Flatten(), layers.PReLU(64)], [torch.nn.Flatten(), torch.nn.PReLU(64)]),
        pair([layers.LayerNorm((4, 4, 4))], [torch.nn.LayerNorm((4, 4, 4))]),
    ):
        with torch.no_grad():
            for parameter in theirs.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        export.from_torch(ours, theirs)
        x = RNG.standard_normal((2, 5, 5, 3)).astype(np.float32)
        expected = answer(theirs, x)
        expected = np.moveaxis(expected, 1, -1) if expected.ndim == 4 else expected
        found = ours(x)
        if found.ndim == 2:
            found = np.moveaxis(found.reshape(2, 16, 4), 2, 1).reshape(2, 64)
        assert_equal(found, expected)
        for key, array in export.to_torch(ours).items():
            np.testing.assert_array_equal(array, theirs.state_dict()[key].numpy())


def test_the_vector_of_padding_is_zero_there():
    ours = layers.Embedding(5, 3, rng=RNG, padding=1)
    assert not export.to_torch(ours)["weight"][1].any()


def test_half_precision_is_read(tmp_path):
    ours, theirs = layers.Linear(3, 2, rng=RNG), torch.nn.Linear(3, 2).to(torch.bfloat16)
    save_file(theirs.state_dict(), tmp_path / "a.safetensors")
    for source in (theirs, tmp_path / "a.safetensors"):
        export.from_torch(ours, source)
        np.testing.assert_array_equal(ours.weight.value, theirs.weight.float().detach().numpy())


def linear(inputs=3, outputs=2, **options):
    return layers.Sequential(layers.Linear(inputs, outputs, rng=RNG, **options))


def state(prefix="0.", inputs=3, outputs=2, bias=True):
    arrays = {f"{prefix}weight": np.ones((outputs, inputs))}
    return arrays | ({f"{prefix}bias": np.ones(outputs)} if bias else {})


@pytest.mark.parametrize(
    ("model", "source", "options", "says"),
    [
        (linear(), state("net.0."), {}, r"pass names=\{'': 'net\.'\}"),
        (linear(), state("fc."), {}, r"missing 0.weight, 0.bias; unexpected fc.weight, fc.bias\."),
        (linear(), state("fc."), {}, r"pass names=list\(module.state_dict\(\)\)"),
        (linear(), state(bias=False), {}, r"missing 0.bias\. Make those layers with bias=False"),
        (linear(bias=False), state(), {}, r"unexpected 0.bias\. Make those layers with bias=True"),
        (linear(), state(inputs=4), {}, r"0.weight of shape \(2, 4\) for \(2, 3\)\. Build"),
        (linear(), state(inputs=2, outputs=3), {}, r"of shape \(3, 2\) for \(2, 3\); 0.bias"),
        (
            linear(bias=False),
            state(inputs=2, outputs=3, bias=False),
            {},
            r"Weights are \(inputs, outputs\) there",
        ),
        (linear(), {"h.0.attn.c_attn.weight": np.ones(3)}, {}, 'pass names="nanogpt"'),
        (linear(), state(), {"names": "x"}, "names must be one of nanogpt, gpt2, resnet"),
        (linear(), state(), {"names": ["a"]}, "names must be texts for all 2 arrays"),
        (linear(), state(), {"names": "resnet"}, r"missing fc.weight, fc.bias; unexpected"),
        (linear(), state(), {"names": "gpt2"}, "missing lm_head"),
        (layers.Tanh(), {}, {"names": "gpt2"}, "the model must be embedding, positions"),
    ],
)
def test_what_does_not_fit_is_named_with_the_fix(model, source, options, says):
    before = [parameter.value.copy() for parameter in model.parameters()]
    with pytest.raises(ValueError, match=says):
        export.from_torch(model, source, **options)
    for parameter, values in zip(model.parameters(), before, strict=True):
        np.testing.assert_array_equal(parameter.value, values)


def test_weights_that_a_model_shares_must_be_equal_there():
    model = gpt()
    arrays = export.to_torch(model, names="nanogpt")
    arrays["lm_head.weight"] = arrays["lm_head.weight"] + 1
    with pytest.raises(ValueError, match=r"lm_head\.weight must equal the weight"):
        export.from_torch(model, arrays, names="nanogpt")


def test_pickles_and_other_files_are_refused(tmp_path):
    torch.save({}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="weights must come by safetensors"):
        export.from_torch(linear(), tmp_path / "a.pt")
    (tmp_path / "a.safetensors").write_bytes(b"x" * 40)
    with pytest.raises(ValueError, match="must be a safetensors file"):
        export.from_torch(linear(), tmp_path / "a.safetensors")
    safetensors.numpy.save_file({}, tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match=r"missing 0\.weight"):
        export.from_torch(linear(), tmp_path / "b.safetensors")
    with pytest.raises(TypeError, match="source must be a safetensors file, a module"):
        export.from_torch(linear(), 3)
    with pytest.raises(TypeError, match="model must be a layer"):
        export.from_torch(3, {})


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^from_torch: source must be a readable file; "):
        export.from_torch(layers.Linear(2, 2, rng=np.random.default_rng(0)), tmp_path / "no.st")
