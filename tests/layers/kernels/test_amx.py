"""Who multiplies tiles, and the code that does so on a processor that has them."""

import errno
import os
import re

import pytest

from layers.kernels import amx, machine, target

linux_x86 = pytest.mark.skipif(
    "x86_64-unknown-linux" not in target.llvm.get_process_triple(), reason="asks Linux for x86-64"
)
HAS_AMX = target.host_has("amx-bf16")


@pytest.fixture
def processor(monkeypatch):
    """Return the function that has the processor, Numba's target and the system be others."""

    def pretend(*, there: bool = True, targeted: bool = True, refusal: str = "") -> None:
        monkeypatch.setattr(target, "host_has", lambda feature: there)
        monkeypatch.setattr(amx, "has", lambda feature: there and targeted)
        monkeypatch.setattr(amx, "refused", lambda: refusal)
        monkeypatch.delenv("LAYERS_AMX", raising=False)

    return pretend


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("hardware", "")),
        ({"there": False}, ("", "")),
        ({"refusal": "no"}, ("", "no")),
        ({"targeted": False}, ("", "Numba compiles for a processor without")),
    ],
)
def test_tiles_are_used_where_processor_compiler_and_system_have_them(processor, given, expected):
    processor(**given)
    tiles, refusal = amx._chosen()
    assert tiles == expected[0]
    assert refusal.startswith(expected[1])
    assert bool(refusal) == bool(expected[1])


def test_environment_chooses_who_multiplies_tiles(processor, monkeypatch):
    processor()
    for text, tiles in (("0", ""), ("1", "hardware"), ("software", "software")):
        monkeypatch.setenv("LAYERS_AMX", text)
        assert amx._chosen() == (tiles, "")
    monkeypatch.setenv("LAYERS_AMX", "on")
    with pytest.raises(ValueError, match="LAYERS_AMX must be 0, 1 or software; got 'on'"):
        amx._chosen()


class System:
    """Stands in for Linux: answers a request, and grants components of the state."""

    def __init__(self, answer: int, granted: int) -> None:
        self._answer = answer
        self._granted = granted
        self.asked = []

    def syscall(self, number, request, place):
        self.asked.append((number.value, request.value))
        if request.value == amx._ARCH_REQ_XCOMP_PERM:
            amx.ctypes.set_errno(self._answer)
            return -1 if self._answer else 0
        place._obj.value = self._granted
        return 0


@linux_x86
@pytest.mark.parametrize(
    ("answer", "granted", "said"),
    [
        (0, 0b111 << 17, ""),
        (0, 1 << 17, "grants no tiles"),
        (0, 0, "grants no tiles"),
        *((code, 0, os.strerror(code)) for code in (errno.EINVAL, errno.ENOSPC, errno.EPERM)),
    ],
)
def test_permission_is_asked_for_and_verified(monkeypatch, answer, granted, said):
    system = System(answer, granted)
    monkeypatch.setattr(amx.ctypes, "CDLL", lambda *arguments, **named: system)
    text = amx.refused()
    assert said in text
    assert bool(text) == bool(said)
    # arch_prctl, ARCH_REQ_XCOMP_PERM and ARCH_GET_XCOMP_PERM: asm/prctl.h.
    assert system.asked == [(158, 0x1023), (158, 0x1022)][: 1 if answer else 2]


@linux_x86
def test_this_system_answers():
    assert bool(amx.refused()) != HAS_AMX


@pytest.mark.parametrize(
    ("features", "there"),
    [("+sse2", True), ("+sse2,-sse2", False), ("-sse2,+sse2", True), ("+sse", False), ("", False)],
)
def test_last_word_about_a_feature_counts(monkeypatch, features, there):
    monkeypatch.setattr(machine.config, "CPU_FEATURES", features)
    monkeypatch.setattr(target, "host_has", lambda feature: True)
    assert machine.has("sse2") == there


# What a user may write, on processors with AMX and without.
@linux_x86
@pytest.mark.parametrize(
    ("name", "features"),
    [
        ("sapphirerapids", None),
        ("sapphirerapids", ""),
        (None, "+avx2,+fma,+amx-bf16,+amx-tile,-amx-tile"),
        ("haswell", "+amx-bf16,+amx-tile"),
    ],
)
def test_no_processor_that_numba_is_told_ends_the_process(name, features, run_python):
    given = {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features}
    done = run_python(
        "-c",
        "from layers.kernels import gemm_bf16, underflow\n"
        "import numpy as np\n"
        "underflow.flush()\n"
        "a = np.ones((2, 40), np.float32)\n"
        "c = np.ones((2, 2), np.float32)\n"
        "gemm_bf16.multiply(c, a, False, a, True, a[0, :0], False)\n"
        "print(c[1, 1])",
        **{variable: text for variable, text in given.items() if text is not None},
    )
    if "must run on this" not in done.err:
        assert (done.status, done.out) == (0, "40.0\n"), done.err


CODE = """
from numba.core import types
from layers.kernels import gemm_tiles
from layers.kernels.llvm.simd_tiles import Hardware
matrix, vector, words = (types.Array(t, n, "C") for t, n in (
    (types.float32, 2), (types.float32, 1), (types.uint32, 1)))
flag = types.boolean
product, packed_product = gemm_tiles.products(Hardware)
for helper, of in ((product, (matrix, matrix, flag, matrix, flag, vector, flag)),
                   (packed_product, (matrix, matrix, words, vector, flag))):
    helper._cache.disable()
    helper.compile(of)
    (compiled,) = helper.overloads.values()
    print(compiled.library.get_asm_str())
    print("END")
"""


@linux_x86
def test_code_for_tiles_configures_multiplies_and_releases_without_spilling(run_python):
    # It is compiled, and not run.
    target_of = {"NUMBA_CPU_NAME": "sapphirerapids", "NUMBA_CPU_FEATURES": ""}
    done = run_python("-c", CODE, timeout=300, **target_of)
    if "must run on this" in done.err:
        pytest.skip(done.err.splitlines()[-1])
    assert done.status == 0, done.err
    *codes, _ = done.out.split("END")
    assert len(codes) == 2
    for code in codes:
        lines = re.findall(r"^\t(ldtilecfg|tile\w+|tdpbf16ps|\w*call\w*|ret\w*)\b(.*)$", code, re.M)
        names = [name for name, _ in lines]
        assert names.count("ldtilecfg") == names.count("tilerelease") == 1
        assert {"tilezero", "tileloadd", "tilestored", "tdpbf16ps"} <= {*names}
        # All eight registers, and none is saved on the stack.
        assert {*re.findall(r"%tmm\d", code)} == {f"%tmm{n}" for n in range(8)}
        assert not [rest for name, rest in lines if name.startswith("tile") and "%rsp" in rest]
        # Four products for four loads, as often as the loop is unrolled.
        assert re.search(
            r"(\ttileloadd.*\n){3}(\ttdpbf16ps.*\n){2}\ttileloadd.*\n(\ttdpbf16ps.*\n){2}", code
        )
