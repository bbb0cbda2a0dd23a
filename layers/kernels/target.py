"""What the processor can do that kernels are compiled for: this one, or the one that Numba's
`NUMBA_CPU_NAME` and `NUMBA_CPU_FEATURES` name.

What they name is tried in a process of its own, this file run as a program: LLVM ends a process
that asks for a processor which it cannot make code for, and the system one that runs an instruction
which the processor lacks.
"""

import ctypes
import re
import subprocess
import sys
from typing import NamedTuple

import llvmlite.binding as llvm

_REVERSED = ", ".join(f"i32 {63 - i}" for i in range(64))
# So many numbers are in registers at a time: more than most processors have.
_NUMBERS = range(24)
_AT_ONCE = "\n".join(
    [f"  %at.{i} = getelementptr i64, ptr %place, i64 {i}" for i in _NUMBERS]
    + [f"  %n.{i} = load volatile i64, ptr %at.{i}, align 8" for i in _NUMBERS]
    + [f"  %d.{i} = sub i64 %n.{i}, %n.{len(_NUMBERS) - 1 - i}" for i in _NUMBERS]
    + [f"  store volatile i64 %d.{i}, ptr %at.{i}, align 8" for i in reversed(_NUMBERS)]
)
_TRIAL = f"""
declare <16 x float> @llvm.fma.v16f32(<16 x float>, <16 x float>, <16 x float>)
declare <8 x double> @llvm.fma.v8f64(<8 x double>, <8 x double>, <8 x double>)
declare <16 x float> @llvm.masked.load.v16f32.p0(ptr, i32, <16 x i1>, <16 x float>)
declare i64 @llvm.ctlz.i64(i64, i1)
declare i64 @llvm.cttz.i64(i64, i1)
declare i64 @llvm.ctpop.i64(i64)
declare i64 @llvm.bswap.i64(i64)
declare void @llvm.prefetch.p0(ptr, i32, i32, i32)
define i64 @trial(ptr %place) {{
  call void @llvm.prefetch.p0(ptr %place, i32 1, i32 3, i32 1)
  %integers = load <8 x i64>, ptr %place, align 8
  %d = sitofp <8 x i64> %integers to <8 x double>
  %e = call <8 x double> @llvm.fma.v8f64(<8 x double> %d, <8 x double> %d, <8 x double> %d)
  %squares = fptosi <8 x double> %e to <8 x i64>
  store <8 x i64> %squares, ptr %place, align 8
  %halves = bitcast <8 x i64> %squares to <16 x i32>
  %odd = trunc <16 x i32> %halves to <16 x i1>
  %s = sitofp <16 x i32> %halves to <16 x float>
  %l = call <16 x float> @llvm.masked.load.v16f32.p0(
    ptr %place, i32 4, <16 x i1> %odd, <16 x float> %s)
  %f = call <16 x float> @llvm.fma.v16f32(<16 x float> %s, <16 x float> %s, <16 x float> %l)
  %i = fptosi <16 x float> %f to <16 x i32>
  %products = mul <16 x i32> %i, %halves
  %few = lshr <16 x i32> %products, <{", ".join(["i32 27"] * 16)}>
  %shifted = shl <16 x i32> %products, %few
  %bytes = bitcast <16 x i32> %shifted to <64 x i8>
  %twice = add <64 x i8> %bytes, %bytes
  %turned = shufflevector <64 x i8> %twice, <64 x i8> %bytes, <64 x i32> <{_REVERSED}>
  %long = bitcast <64 x i8> %turned to <8 x i64>
  %last = mul <8 x i64> %long, %integers
  store <8 x i64> %last, ptr %place, align 8
{_AT_ONCE}
  %first = load i64, ptr %place, align 8
  %swapped = call i64 @llvm.bswap.i64(i64 %first)
  %1 = call i64 @llvm.ctlz.i64(i64 %swapped, i1 false)
  %2 = call i64 @llvm.cttz.i64(i64 %swapped, i1 false)
  %3 = call i64 @llvm.ctpop.i64(i64 %swapped)
  %4 = sub i64 %1, %2
  %5 = add i64 %4, %3
  %6 = add i64 %5, 1
  %7 = and i64 %5, %6
  ret i64 %7
}}
"""
"""Operations of each kind that kernels are made of, on vectors as wide as there are."""


class Target(NamedTuple):
    """What a processor has: bytes of a vector register, the number of these registers, whether it
    multiplies and adds with one rounding.
    """

    vector_bytes: int
    registers: int
    fused: bool


def host_name() -> str:
    """Return what LLVM calls this processor."""
    return str(llvm.get_host_cpu_name())


def host_has(feature: str) -> bool:
    """Return whether this processor has a feature, by LLVM's name."""
    return bool(llvm.get_host_cpu_features().get(feature))


def of_host() -> Target:
    """Return what this processor has."""
    features = llvm.get_host_cpu_features()
    if not llvm.get_process_triple().startswith(("x86", "i")):
        arm = "neon" in features or "aarch64" in llvm.get_process_triple()
        return Target(16, 32 if arm else 16, True)
    if features.get("avx512f"):
        return Target(64, 32, True)
    wide = features.get("avx2") or features.get("avx")
    return Target(32 if wide else 16, 16, bool(features.get("fma")))


def of_named(name: str, features: str) -> Target:
    """Return what a processor has for which LLVM compiles, by its name and features, once code for
    it has run here.

    Raises
    ------
    RuntimeError
        LLVM knows none of the name or with the features, or its code does not run here. The text is
        what LLVM or the system says.
    """
    if not re.fullmatch(r"([+-][^,]+(,|$))*", features):
        raise RuntimeError("features are +name or -name, with commas between them")
    command = [sys.executable, "-I", __file__, name, features]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = done.stderr.strip().splitlines()
    if done.returncode or said:
        by_signal = f"signal {-done.returncode}" if done.returncode < 0 else "other results"
        raise RuntimeError(said[0] if said else f"its code ends here with {by_signal}")
    vector_bytes, registers, fused = map(int, done.stdout.split())
    return Target(vector_bytes, registers, bool(fused))


def _tried(name: str, features: str) -> tuple[str, int, bytes]:
    """Return the assembly of the trial for a processor, what it returns and what it stores."""
    module = llvm.parse_assembly(_TRIAL)
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=name, features=features, jit=True
    )
    text = machine.emit_assembly(module)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    function = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)
    place = (ctypes.c_int64 * len(_NUMBERS))(*_NUMBERS)
    result = function(engine.get_function_address("trial"))(ctypes.addressof(place))
    return text, result, bytes(place)


def _report(name: str, features: str) -> int:
    """Write what a processor has; return 1 if its code gives other results than any other's."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    _, *expected = _tried("generic", "")
    text, *found = _tried(name, features)
    x86 = llvm.get_process_triple().startswith("x86")
    wide = next((i for i, sign in enumerate(("%zmm", "%ymm")) if sign in text), 2)
    registers, fused = 32 if wide == 0 or not x86 else 16, "fmaf" not in text
    sys.stdout.write(f"{(64, 32, 16)[wide]} {registers} {int(fused)}")
    return int(found != expected)


if __name__ == "__main__":
    sys.exit(_report(*sys.argv[1:]))
