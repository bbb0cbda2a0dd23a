"""Bundles: what is saved is loaded, to the bit, and nothing else is believed."""

import json
import zipfile

import numpy as np
import pytest
import safetensors.numpy

import layers
from ddbp import data, export
from ddbp.architecture import description
from ddbp.architecture.kinds import KINDS
from ddbp.checkpoint.folder import manifest_text
from ddbp.export import archive
from layers import Composite
from layers.gradient_check.cases import CASES

from .models import BUNDLE, by

RNG = np.random.default_rng(0)


def outputs(model, x, lengths):
    return model(x) if lengths is None else model(x, lengths=lengths)


@pytest.mark.parametrize("case", by(BUNDLE), ids=repr)
def test_a_bundle_gives_the_outputs_of_its_model_to_the_bit(case, tmp_path):
    model, (x, lengths) = case.model(), case.inputs()
    export.save_bundle(tmp_path / "a.ddbp", model, task="classification", labels=["a", "b"])
    bundle = export.load_bundle(tmp_path / "a.ddbp")
    expected = outputs(model, x, lengths)
    np.testing.assert_array_equal(outputs(bundle.model, x, lengths), expected)
    assert (bundle.task, bundle.labels) == ("classification", ("a", "b"))
    if lengths is None:
        np.testing.assert_array_equal(bundle.predict(x, batch_size=2), expected)
    export.save_bundle(tmp_path / "b.ddbp", bundle.model, task="classification", labels=("a", "b"))
    assert (tmp_path / "b.ddbp").read_bytes() == (tmp_path / "a.ddbp").read_bytes()


def named(layer):
    """Return whether files can name all that a layer is made of."""
    kinds = (type(each) for _, each in layer.named_layers())
    return not any(kind.__module__.startswith("layers.gradient_check") for kind in kinds)


LAYERS = [case for case in CASES if named(case.make(np.random.default_rng(0)))]


def test_every_public_layer_has_a_case_that_goes_through_json():
    made = set()
    for case in LAYERS:
        layer = case.make(np.random.default_rng(1))
        text = json.dumps(export.architecture(layer))
        again = export.build(json.loads(text), rng=np.random.default_rng(1))
        assert repr(again) == repr(layer), case
        assert json.dumps(export.architecture(again)) == text, case
        names = [(name, each.shape) for name, each in layer.named_parameters()]
        assert [(name, each.shape) for name, each in again.named_parameters()] == names, case
        made |= {type(each) for _, each in layer.named_layers()}
    public = {
        kind
        for name in layers.__all__
        if isinstance(kind := getattr(layers, name), type) and issubclass(kind, layers.Module)
    }
    abstract = {layers.Module, layers.Layer, layers.Composite, layers.Loss}
    assert public - abstract == {kind.kind for kind in KINDS.values()} & public
    # Those of which cases have functions of values: see above.
    assert public - abstract - made <= {
        *(layers.LSTMCell, layers.Coefficients, layers.Recompute, layers.DecoderBlock),
        *(layers.InstanceNorm1d, layers.CosineEmbedding),
    }


@pytest.mark.parametrize(
    "layer",
    [
        layers.LSTMCell(3, 4, rng=RNG),
        layers.RNNCell(3, 4, rng=RNG, nonlinearity="relu", bias=False),
        layers.Coefficients([[1.0, 2.0]]),
        layers.DecoderBlock(8, 2, rng=RNG, dropout=0.1),
        layers.InstanceNorm1d(4, affine=True),
        layers.CosineEmbedding(0.5),
        layers.SoftmaxCrossEntropy(0.1, class_weights=[1, 2]),
        layers.BinaryCrossEntropy(pos_weight=2.0),
        layers.Recompute(layers.Linear(2, 3, rng=RNG)),
        layers.Conv1d(2, 3, 4, padding=(3, 0), rng=RNG),
        layers.Sequential(layers.Linear(2, 3, rng=RNG), layers.ReLU(), fuse=False),
        layers.EncoderBlock(8, 2, rng=RNG, activation=layers.PReLU(32)),
    ],
    ids=repr,
)
def test_other_layers_go_through_json(layer):
    described = json.loads(json.dumps(export.architecture(layer)))
    again = export.build(described, rng=RNG)
    assert repr(again) == repr(layer)
    assert export.architecture(again) == described
    assert [p.shape for p in again.parameters()] == [p.shape for p in layer.parameters()]


def test_what_is_shared_and_frozen_stays_so(tmp_path):
    twice = layers.Linear(4, 4, rng=RNG)
    table, head = layers.Embedding(5, 4, rng=RNG), layers.Linear(4, 5, rng=RNG, bias=False)
    head.weight = table.weight
    twice.bias.trainable = False
    model = layers.Sequential(table, twice, layers.ReLU(), twice, head)
    export.save_bundle(tmp_path / "a.ddbp", model)
    again = export.load_bundle(tmp_path / "a.ddbp").model
    assert again[1] is again[3]
    assert again[0].weight is again[4].weight
    assert [p.trainable for p in again.parameters()] == [p.trainable for p in model.parameters()]
    assert not again[1].bias.trainable


def test_weights_that_are_shared_count_once(tmp_path, monkeypatch):
    monkeypatch.setattr(description, "_FREE", 0)
    model = layers.models.gpt(RNG, 50, context=4, features=8, depth=1, heads=2, tied=True)
    export.save_bundle(tmp_path / "a.ddbp", model)
    again = export.load_bundle(tmp_path / "a.ddbp").model
    x = RNG.integers(0, 50, (2, 4))
    np.testing.assert_array_equal(again(x), model(x))


def test_types_and_precision_stay(tmp_path):
    model = layers.Sequential(layers.BatchNorm(3), layers.Linear(3, 2, rng=RNG)).astype(np.float64)
    export.save_bundle(tmp_path / "a.ddbp", model)
    again = export.load_bundle(tmp_path / "a.ddbp").model
    assert {p.dtype for p in again.parameters()} == {np.dtype(np.float64)}
    assert again[0].running_mean.dtype == np.float64
    model = layers.Linear(3, 2, rng=RNG)
    layers.set_precision(model, "bf16")
    export.save_bundle(tmp_path / "a.ddbp", model)
    assert export.load_bundle(tmp_path / "a.ddbp").model.precision is model.precision


class Blend(Composite):
    """A share of what a body gives."""

    def __init__(self, body, share, names=()):
        self.body, self.share, self.names = body, share, list(names)

    def __call__(self, x):
        return self.share * self.body(x) + (1 - self.share) * x


class Stranger(Composite):
    """What nobody has registered."""

    def __call__(self, x):
        return x


def test_layers_of_users_go_by_their_names(tmp_path):
    assert export.register(Blend, "body", "share", "names") is Blend
    export.register(Blend, "body", "share", "names")
    model = layers.Sequential(Blend(layers.Linear(3, 3, rng=RNG), 0.25, ["a"]), layers.ReLU())
    export.save_bundle(tmp_path / "a.ddbp", model)
    again = export.load_bundle(tmp_path / "a.ddbp").model
    x = RNG.standard_normal((4, 3)).astype(np.float32)
    np.testing.assert_array_equal(again(x), model(x))
    assert again[0].names == ["a"]


@pytest.mark.parametrize(
    ("arguments", "options", "must"),
    [
        ((3,), {}, "kind must be a class of layers"),
        ((Blend, "gain"), {}, "arguments must be those of Blend"),
        ((Blend, "body"), {"name": "Linear"}, "Linear must be a new name"),
    ],
)
def test_wrong_registrations_are_refused(arguments, options, must):
    with pytest.raises((TypeError, ValueError), match=must):
        export.register(*arguments, **options)


def test_a_layer_that_is_not_known_is_named(tmp_path):
    with pytest.raises(TypeError, match=r"got a Stranger, Stranger\(\). ddbp.export.register"):
        export.save_bundle(tmp_path / "a.ddbp", layers.Sequential(Stranger()))
    with pytest.raises(TypeError, match="must be numbers, texts, layers"):
        export.architecture(layers.Sequential(lambda x: x))
    assert not any(tmp_path.iterdir())


# ---- files of anybody's making


PREPARED = {"kind": "x", "classes": ["a", "é"], "tokenizer": {"model": {"vocab": {"é": 0}}}}


def saved(tmp_path):
    path = tmp_path / "a.ddbp"
    model = layers.Sequential(layers.Linear(3, 2, rng=np.random.default_rng(0)), layers.ReLU())
    export.save_bundle(path, model, preprocessing=PREPARED, example=[[0.0]])
    with zipfile.ZipFile(path) as file:
        return path, {name: file.read(name) for name in file.namelist()}


def rewritten(path, members, change=lambda info: None, **options):
    """Write a zip of members as they are, names perhaps twice."""
    with zipfile.ZipFile(path, "w", **options) as file:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = options.get("compression", zipfile.ZIP_STORED)
            change(info)
            file.writestr(info, content)


def test_what_belongs_to_it_comes_back(tmp_path):
    path, members = saved(tmp_path)
    assert set(members) == set(archive.MEMBERS)
    bundle = export.load_bundle(path)
    assert (bundle.preprocessing, bundle.labels) == (PREPARED, ("a", "é"))
    assert bundle.example == ((1,), "float64")
    assert safetensors.numpy.load(members["parameters.safetensors"]).keys() == {
        "layers.0.weight",
        "layers.0.bias",
    }


def test_a_byte_pair_encoding_is_a_file_of_its_own(tmp_path):
    pytest.importorskip(
        "tokenizers", reason="tokenizers is not installed: pip install 'ddbp[text]'"
    )
    encoder = data.TextEncoder.bpe(["good day, bad day"], 260, classes=("bad", "good"))
    path = tmp_path / "a.ddbp"
    export.save_bundle(path, layers.ReLU(), preprocessing=encoder)
    with zipfile.ZipFile(path) as file:
        assert json.loads(file.read("tokenizer.json"))["model"]["type"] == "BPE"
        assert json.loads(file.read("bundle.json"))["preprocessing"]["tokenizer"] is None
    bundle = export.load_bundle(path)
    assert data.preprocessing(bundle.preprocessing) == encoder
    assert bundle.labels == ("bad", "good")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("name", "must"),
    [
        ("../parameters.safetensors", "members must be bundle.json"),
        ("/bundle.json", "members must be bundle.json"),
        ("C:\\bundle.json", "members must be bundle.json"),
        ("code.py", "members must be bundle.json"),
        ("bundle.json", "no member may occur twice"),
    ],
)
def test_strange_members_are_refused(name, must, tmp_path):
    path, members = saved(tmp_path)
    rewritten(path, [*members.items(), (name, b"x")])
    with pytest.raises(export.BundleError, match=must):
        export.load_bundle(path)
    assert [each.name for each in tmp_path.iterdir()] == ["a.ddbp"]


def test_links_and_compressed_members_are_refused(tmp_path):
    path, members = saved(tmp_path)

    def link(info):
        info.external_attr = 0o120777 << 16

    rewritten(path, members.items(), link)
    with pytest.raises(export.BundleError, match="members must be files"):
        export.load_bundle(path)
    bomb = {**members, "parameters.safetensors": bytes(2**24)}
    rewritten(path, bomb.items(), compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(export.BundleError, match="members must be stored"):
        export.load_bundle(path)


def test_a_bundle_that_lacks_members_or_is_of_another_version_is_refused(tmp_path):
    path, members = saved(tmp_path)
    for name, must in (
        ("bundle.json", "it must have bundle.json"),
        ("parameters.safetensors", "it must have parameters"),
        ("tokenizer.json", "its members must be those that it lists"),
    ):
        rewritten(path, [each for each in members.items() if each[0] != name])
        with pytest.raises(export.BundleError, match=must):
            export.load_bundle(path)
    facts = json.loads(members["bundle.json"])
    facts["format"] = 2
    rewritten(path, {**members, "bundle.json": json.dumps(facts)}.items())
    with pytest.raises(export.BundleError, match="must be of format 1; got 2"):
        export.load_bundle(path)


def test_what_was_changed_by_a_program_that_knows_zip_is_refused(tmp_path):
    path, members = saved(tmp_path)
    for name, must in (
        ("parameters.safetensors", "parameters.safetensors must have its digest"),
        ("tokenizer.json", "tokenizer.json must have its digest"),
        ("bundle.json", "bundle.json must have its digest"),
    ):
        content = members[name].replace(b'"other"', b'"series"')
        content = content if content != members[name] else members[name][:-1] + b" "
        rewritten(path, {**members, name: content}.items())
        with pytest.raises(export.BundleError, match=must):
            export.load_bundle(path)


def test_truncated_and_changed_files_are_refused(tmp_path):
    path, _ = saved(tmp_path)
    whole = path.read_bytes()
    for size in range(0, len(whole), 37):
        path.write_bytes(whole[:size])
        with pytest.raises(export.BundleError):
            export.load_bundle(path)
    for place in range(0, len(whole), 11):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            bundle = export.load_bundle(path)
        except export.BundleError:
            continue
        # What a zip says of dates and systems has no meaning here.
        assert bundle.task == "other"
        np.testing.assert_array_equal(
            bundle.model[0].weight.value,
            layers.Linear(3, 2, rng=np.random.default_rng(0)).weight.value,
        )


def with_facts(path, members, change):
    """Write a bundle whose facts are changed, and whose digests are right again."""
    facts = json.loads(members["bundle.json"])
    facts.pop("sha256")
    change(facts)
    rewritten(path, {**members, "bundle.json": manifest_text(facts)}.items())


LINEAR = {"kind": "Linear", "arguments": {"in_features": 3, "out_features": 2}}


@pytest.mark.parametrize(
    ("root", "must"),
    [
        ({"kind": "Mystery", "arguments": {}}, "kind of a layer must be known; got 'Mystery'"),
        ({"kind": "os.system", "arguments": {"command": "x"}}, "got 'os.system'"),
        ({"kind": "Linear", "arguments": {"rng": 3}}, "arguments of Linear must be among"),
        ({"kind": "Linear", "arguments": {"in_features": "x"}}, "arguments must be ones"),
        ({"kind": "Linear", "arguments": {}}, "arguments must be ones"),
        ({"again": 0}, "again must be the number of a layer before"),
        ({"kind": ["Linear"], "arguments": {}}, "a layer must have a kind"),
        ([LINEAR], "a layer must be an object"),
        ("Linear", "a layer must be an object"),
        (
            {"kind": "Linear", "arguments": {"in_features": 2**12, "out_features": 2**13}},
            "no more numbers than the file",
        ),
        ({"kind": "LSTM", "arguments": {"input_size": 3, "hidden_size": 2**12}}, "no more numbers"),
        ({"kind": "BatchNorm", "arguments": {"features": 2**40}}, "no more numbers than the file"),
        (
            {"kind": "SinusoidalPositions", "arguments": {"length": 2**20, "features": 2**20}},
            "no more numbers than the file",
        ),
        ({"kind": "ReLU", "arguments": {}}, "must hold the parameters of the model"),
        (LINEAR, "must hold the parameters of the model"),
    ],
)
def test_descriptions_of_anybodys_making_are_refused(root, must, tmp_path):
    path, members = saved(tmp_path)
    with_facts(path, members, lambda facts: facts["architecture"].update(root=root))
    with pytest.raises(export.BundleError, match=must):
        export.load_bundle(path)


def test_layers_that_hold_each_other_without_end_are_refused(tmp_path):
    path, members = saved(tmp_path)
    node = {"kind": "ReLU", "arguments": {}}
    for number in range(60):
        node = {"kind": "Sequential", "number": number, "arguments": {"layers": [node]}}
        node["arguments"]["layers"].append(
            {"again": number - 1} if number else node["arguments"]["layers"][0]
        )
    with_facts(path, members, lambda facts: facts["architecture"].update(root=node))
    with pytest.raises(export.BundleError, match="at no more than 65536 places"):
        export.load_bundle(path)
    node = {"kind": "ReLU", "arguments": {}}
    for _ in range(100):
        node = {"kind": "Sequential", "arguments": {"layers": [node]}}
    with_facts(path, members, lambda facts: facts["architecture"].update(root=node))
    with pytest.raises(export.BundleError, match="a layer must be an object"):
        export.load_bundle(path)


@pytest.mark.parametrize(
    ("change", "must"),
    [
        ({"task": "magic"}, "its task must be in"),
        ({"labels": 3}, "its labels must be texts"),
        ({"preprocessing": [1]}, "its preprocessing must be an object"),
        ({"example": {"shape": [-1], "dtype": "float32"}}, "its example must be a shape"),
        ({"example": 3}, "its example must be a shape"),
        (
            {"example": {"shape": [], "dtype": "int64", "ragged": True}},
            "its example must be a shape",
        ),
        ({"architecture": None}, "it must be an object with a root"),
        ({"files": {}}, "its members must be those that it lists"),
    ],
)
def test_other_facts_of_anybodys_making_are_refused(change, must, tmp_path):
    path, members = saved(tmp_path)
    with_facts(path, members, lambda facts: facts.update(change))
    with pytest.raises(export.BundleError, match=must):
        export.load_bundle(path)


@pytest.mark.parametrize("key", ["tied", "frozen"])
@pytest.mark.parametrize("value", [3, [3], ["x"], [["x", "layers.0.weight"]], [[[]]], {"a": 1}])
def test_lists_of_parameters_of_anybodys_making_are_refused(key, value, tmp_path):
    path, members = saved(tmp_path)
    with_facts(path, members, lambda facts: facts["architecture"].update({key: value}))
    with pytest.raises(export.BundleError, match=f"{key}: it must list parameters"):
        export.load_bundle(path)


def test_what_is_no_file_or_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(OSError, match="a bundle must be a readable file"):
        export.load_bundle(tmp_path / "none.ddbp")
    with pytest.raises(OSError, match="a bundle must be a readable file"):
        export.load_bundle(tmp_path)
    with pytest.raises(OSError, match="must be a file to write to"):
        export.save_bundle(tmp_path / "none" / "a.ddbp", layers.ReLU())
    with pytest.raises(TypeError, match="model must be a layer"):
        export.save_bundle(tmp_path / "a.ddbp", 3)
    with pytest.raises(ValueError, match="task must be in"):
        export.save_bundle(tmp_path / "a.ddbp", layers.ReLU(), task="x")
    for labels in ("right", ["right", "left", "right"], [1, "1"]):
        with pytest.raises(ValueError, match="labels must be a list of names, all different; got"):
            export.save_bundle(tmp_path / "a.ddbp", layers.ReLU(), labels=labels)
    with pytest.raises(TypeError, match="preprocessing must have a state"):
        export.save_bundle(tmp_path / "a.ddbp", layers.ReLU(), preprocessing={"f": print})
