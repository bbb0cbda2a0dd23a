"""The same bits on every processor: this one stands in for others, with which libraries and kernels
take other ways.
"""

import json
import sys

import pytest
from numpy._core._multiarray_umath import __cpu_dispatch__ as numpy_features

from ddbp.commands.launch import find_mpiexec

from .conftest import PROGRAMS, run_process
from .mpi.ranks import in_full

# What libraries choose by the processor: OpenBLAS its kernels, NumPy its functions, the C library
# its elementary functions.
OLD_LIBRARIES = {
    "OPENBLAS_CORETYPE": "Prescott",
    "NPY_DISABLE_CPU_FEATURES": " ".join(numpy_features),
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-AVX512F",
}
LIBRARIES = {
    "old ones": OLD_LIBRARIES,
    "Haswell": {
        "OPENBLAS_CORETYPE": "Haswell",
        "NPY_DISABLE_CPU_FEATURES": " ".join(n for n in numpy_features if n != "X86_V3"),
    },
    "SkylakeX": {"OPENBLAS_CORETYPE": "SkylakeX"},
    "Zen": {"OPENBLAS_CORETYPE": "Zen"},
}


def code_for(name: str, features: str = "") -> dict[str, str]:
    """Return the environment in which kernels are compiled for a processor."""
    return {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features}


# Code for other processors is compiled anew: few kernels, unless in full.
AVX2, AVX512, SSE = (
    code_for("haswell"),
    code_for("skylake-avx512"),
    code_for("nehalem", "+fma,+avx"),
)
WITHOUT_FMA = code_for("x86-64")
IN_BF16 = ("mlp in bf16", "lstm in bf16", "mlp in bf16x3", "lstm in bf16x3")
CODE = {
    "AVX2": (AVX2, ("mlp", "gru", "cnn", "lstm in bf16", "mlp in bf16x3")),
    "without AMX": ({"LAYERS_AMX": "0"}, IN_BF16),
    "tiles in software": ({"LAYERS_AMX": "software"}, IN_BF16),
    "AVX2, all": (AVX2, ()),
    "AVX-512": (AVX512, ()),
    "16 bytes": ({"LAYERS_VECTOR_BYTES": "16"}, ()),
    "no FMA": (WITHOUT_FMA, ("mlp", "gru")),
    "no FMA, and libraries without": (WITHOUT_FMA | OLD_LIBRARIES, ("mlp", "gru")),
}
ALWAYS = ["AVX2", "without AMX", "tiles in software"]
WHEN_FULL = [name for name in CODE if name not in ALWAYS]


@pytest.fixture(scope="session")
def trained(run_python):
    """Return the function that gives the digests of networks trained in an environment."""

    def run(*kinds: str, **environment: str) -> dict[str, str]:
        done = run_python("train_kinds.py", *kinds, timeout=900, **environment)
        if "must run on this" in done.err:
            pytest.skip(done.err.splitlines()[-1])
        return done.result()

    return run


@pytest.fixture(scope="session")
def expected(trained):
    """Return the digests on this processor."""
    return trained()


@pytest.mark.parametrize("name", ["old ones", "Haswell", *in_full("SkylakeX", "Zen")])
def test_libraries_for_another_processor_change_no_bit(name, trained, expected):
    assert trained(**LIBRARIES[name]) == expected


@pytest.mark.skipif(sys.platform == "darwin", reason="names processors of x86-64")
@pytest.mark.parametrize("name", [*ALWAYS, *in_full(*WHEN_FULL)])
def test_code_for_another_processor_changes_no_bit(name, trained, expected):
    environment, kinds = CODE[name]
    digests = trained(*kinds, **environment)
    assert digests == {kind: expected[kind] for kind in kinds or expected}


def test_ranks_on_different_processors_give_the_bits_of_one(expected, is_mpich):
    environment = AVX2 | OLD_LIBRARIES | {"LAYERS_AMX": "software"}
    other = [f"{name}={value}" for name, value in environment.items()]
    kinds = ("mlp", "gru", "lstm in bf16")
    program = [sys.executable, PROGRAMS / "train_kinds.py", *kinds]
    try:
        mpiexec = find_mpiexec()
    except FileNotFoundError as error:
        pytest.skip(f"needs an MPI launcher: {error}")
    job = [mpiexec, "-n", 1, *program, ":", "-n", 1, "env", *other, *program]
    assert run_process(job, timeout=900).result() == {kind: expected[kind] for kind in kinds}


@pytest.mark.full
@pytest.mark.parametrize("name", ["AVX2", "16 bytes", "no FMA"])
def test_every_layer_gives_the_same_bits_in_code_for_another_processor(name, run_python):
    environment, _ = CODE[name]
    here, there = (
        run_python("digest_cases.py", timeout=3000, **extra).result() for extra in ({}, environment)
    )
    assert [case for case in here if here[case] != there[case]] == []


@pytest.mark.full
def test_scripts_train_to_the_same_bits_with_other_libraries(run_python, tmp_path):
    found = []
    for name, environment in {"own": {}, **LIBRARIES}.items():
        folder = tmp_path / name.replace(" ", "_")
        folder.mkdir()
        done = run_python("all_scripts.py", folder, timeout=1800, **environment)
        assert done.status == 0, done.err
        results = [json.loads(line) for line in done.out.splitlines() if line.startswith("{")]
        found.append([each["parameters_sha256"] for each in results])
    assert len(found[0]) >= 15
    assert all(each == found[0] for each in found)
