"""What kernels assume of the processor."""

import re

import pytest
from numba.core import config

from layers.kernels import machine, target

x86 = pytest.mark.skipif(
    not target.llvm.get_process_triple().startswith("x86"), reason="names processors of x86-64"
)


@pytest.mark.parametrize("text", ["24", "x", ""])
def test_width_that_no_vector_has_is_refused(text, monkeypatch):
    monkeypatch.setenv("LAYERS_VECTOR_BYTES", text)
    must = f"LAYERS_VECTOR_BYTES must be 16, 32 or 64; got {text!r}"
    with pytest.raises(ValueError, match=re.escape(must)):
        machine._forced(32)


@pytest.mark.parametrize("width", [16, 32, 64])
def test_width_may_be_forced(width, monkeypatch):
    monkeypatch.setenv("LAYERS_VECTOR_BYTES", str(width))
    assert machine._forced(32) == width


@pytest.mark.parametrize(
    ("name", "features", "said"),
    [
        ("nonsense", "", "'nonsense' is not a recognized processor"),
        (None, "+nonsense", "'+nonsense' is not a recognized feature"),
        (None, "garbage", "features are +name or -name, with commas between them"),
        pytest.param("i386", "", "64-bit code requested", marks=x86),
        # Of no processor that has AVX, too.
        pytest.param("bdver2", "", "its code ends here with signal", marks=x86),
        pytest.param(None, "+egpr,+ndd", "its code ends here with signal", marks=x86),
    ],
)
def test_processor_whose_code_does_not_run_here_is_refused(name, features, said, monkeypatch):
    monkeypatch.setattr(config, "CPU_NAME", name)
    monkeypatch.setattr(config, "CPU_FEATURES", features)
    must = f"must run on this {target.host_name()}; got NUMBA_CPU_NAME={name!r}, "
    with pytest.raises(RuntimeError, match=re.escape(must) + ".*" + re.escape(said)):
        machine._target()


@pytest.mark.parametrize("variable", ["NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES"])
def test_refused_processor_ends_no_process_by_a_signal(variable, run_python):
    done = run_python("-c", "import layers", **{variable: "nonsense"})
    assert done.status == 1
    assert done.err.splitlines()[-1].startswith("RuntimeError: layers: code for the processor")


@x86
@pytest.mark.parametrize(
    ("name", "vectors"), [("x86-64", (16, 16, False)), ("haswell", (32, 16, True))]
)
def test_named_processor_has_its_own_vectors(name, vectors):
    if vectors[0] > machine.VECTOR_BYTES:
        pytest.skip(f"has no vectors of {vectors[0]} bytes")
    assert target.of_named(name, "") == vectors


def test_trial_finds_what_this_processor_has():
    features = target.llvm.get_host_cpu_features().flatten()
    assert target.of_named(target.host_name(), features) == target.of_host()


@x86
def test_processor_without_fused_multiply_add_is_told(monkeypatch):
    monkeypatch.setattr(config, "CPU_NAME", "x86-64")
    monkeypatch.setattr(config, "CPU_FEATURES", "")
    with pytest.warns(RuntimeWarning, match=r"no fused multiply-add .* many times as long"):
        machine._target()


def test_feature_that_numba_is_not_told_is_not_used(monkeypatch):
    (feature, *_) = [name for name, there in target.llvm.get_host_cpu_features().items() if there]
    assert machine.has(feature)
    assert not machine.has("nonsense")
    monkeypatch.setattr(config, "CPU_FEATURES", f"-{feature}")
    assert not machine.has(feature)
    # What this processor lacks it has not for being told.
    monkeypatch.setattr(config, "CPU_FEATURES", "+nonsense")
    assert not machine.has("nonsense")
