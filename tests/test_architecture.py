"""The architecture, read from the sources: who may import whom, and where the exceptions live."""

import ast
import re
import sys
import tomllib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MOST_LINES = 500
# Of an example that is read from top to bottom; one of them shows eight methods.
MOST_OF_SCRIPTS, LONGER = 60, {"scripts/attribute.py": 75}
# Rooms from the bottom up; one may import itself and what stands below it. Of neighbours on one
# floor none knows the other.
FLOORS = (
    ("layers.types", "layers.errors", "layers.kernels"),
    ("layers.checks",),
    ("layers.init",),
    ("layers.engine",),
    ("layers",),
    ("layers.gradient_check", "layers.rules"),
    ("ddbp.written",),
    ("ddbp.settings", "ddbp.snapshot", "ddbp.terminal", "ddbp.figures", "ddbp.files"),
    ("ddbp.comm",),
    ("ddbp.compression", "ddbp.architecture"),
    ("ddbp.reduction", "ddbp.checkpoint", "ddbp.data"),
    ("ddbp.optim", "ddbp.observers"),
    ("ddbp.seldom", "ddbp.job"),
    ("ddbp.training.callbacks",),
    ("ddbp.instruments",),
    ("ddbp.doctor", "ddbp.report"),
    ("ddbp.training",),
    ("ddbp.export", "ddbp.speedrun"),
    ("ddbp.recipes",),
    ("ddbp.commands", "ddbp.attribution", "ddbp.loggers", "ddbp.sklearn"),
    ("ddbp",),
    ("scripts",),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# Files of the lowest floor that the others of it stand on.
FOUNDATION = ("layers.types", "layers.errors")
# None of these knows another: what runs as one call is known to layers.fusion alone.
FAMILIES = tuple(
    f"layers.{name}"
    for name in (
        *("activation", "batch_norm", "conv", "dropout", "embedding", "group_norm", "layer_norm"),
        *("linear", "loss", "pool", "positional", "shape", "shortcut", "time_pool", "tree"),
        "upsample",
    )
)
# What only hands on the names of its rooms.
FACES = ("layers", "ddbp")
# Modules with effects outside the process's arrays.
FORBIDDEN_IN_LAYERS = (
    "time",
    "logging",
    "random",
    "subprocess",
    "socket",
    "threading",
    "multiprocessing",
    "mpi4py",
)
READS_ENVIRONMENT = (
    "layers/kernels/amx.py",
    "layers/kernels/cache.py",
    "layers/kernels/cache_folder.py",
    "layers/kernels/machine.py",
    # It asks `sys`, too: whether there is a debugger.
    "layers/engine/replay/replay.py",
    "layers/kernels/target.py",
)
# It tries a processor's code in a process of its own.
STARTS_A_PROCESS = ("layers/kernels/target.py",)
# It asks `sys` how often an array is referred to.
COUNTS_REFERENCES = ("layers/engine/live_outputs.py", "layers/engine/workspace.py")


def sources(*folders):
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def name_of(path):
    """Return the path from the repository's root, as written in these tests."""
    return path.relative_to(ROOT).as_posix()


LAYERS, EVERYTHING = sources("layers"), sources("layers", "ddbp", "scripts", "tests")
PACKAGES = sources("layers", "ddbp", "scripts")


@cache
def parsed(path):
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path) for path in PACKAGES}


def is_type_checking(node):
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def statements(tree):
    """Yield all nodes but those that only type checkers see."""
    for node in ast.iter_child_nodes(tree):
        if not is_type_checking(node):
            yield node
            yield from statements(node)


@cache
def imports(path):
    """Return the full dotted names that a file imports, relative ones resolved."""
    package = module_of(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    found = []
    for node in statements(parsed(path)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            found += [f"{origin}.{alias.name}" for alias in node.names]
    return found


def room_of(module):
    """Return the room that a dotted name lies in, the innermost of several; None for what is not
    ours.
    """
    parts = module.split(".")
    return next(
        (name for n in range(len(parts), 0, -1) if (name := ".".join(parts[:n])) in FLOOR), None
    )


def imported_modules(path):
    """Return our modules that a file imports, or imports names from."""
    found = {name if name in MODULES else name.rpartition(".")[0] for name in imports(path)}
    return found & MODULES - {module_of(path)}


def dotted(node):
    """Return the dotted name of an attribute or a name, from where it begins with one."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    return ".".join([node.id, *parts] if isinstance(node, ast.Name) else parts)


def names(path):
    """Yield every dotted name that occurs in a file's code, with its line."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Attribute | ast.Name):
            yield dotted(node), node.lineno
        elif isinstance(node, ast.ImportFrom):
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def test_the_rooms_are_where_the_tests_look_for_them():
    for room in FLOOR:
        place = ROOT / room.replace(".", "/")
        assert place.is_dir() or place.with_suffix(".py").is_file(), f"there is no {room}"


def test_imports_go_in_one_direction():
    against = []
    for path in PACKAGES:
        module = module_of(path)
        own = room_of(module)
        for imported in imported_modules(path):
            room = room_of(imported)
            below = FLOOR[room] < FLOOR[own] or room in FOUNDATION
            if not (below or room == own or module in FACES):
                against.append(f"{name_of(path)} imports {imported}, which does not stand below it")
    assert against == []


def test_nothing_inside_a_package_imports_its_face():
    # A face hands on names of all rooms: whoever imports it depends on all of them.
    against = []
    for path in PACKAGES:
        own = module_of(path).split(".")[0]
        if module_of(path) not in FACES and own in FACES and own in imported_modules(path):
            against.append(f"{name_of(path)} imports from {own} itself")
    assert against == []


def test_families_of_layers_do_not_know_each_other():
    def family_of(module):
        return next((name for name in FAMILIES if f"{module}.".startswith(f"{name}.")), None)

    files = {path: family_of(module_of(path)) for path in PACKAGES}
    assert set(FAMILIES) <= set(files.values())
    for path, own in files.items():
        for imported in imported_modules(path) if own else ():
            stranger = family_of(imported) not in (None, own) or imported == "layers.fusion"
            assert not stranger, f"{name_of(path)} imports {imported}"


def test_no_modules_import_each_other_in_a_circle():
    below = {module_of(path): imported_modules(path) for path in PACKAGES}
    while leaves := {module for module, others in below.items() if not others & below.keys()}:
        below = {module: others for module, others in below.items() if module not in leaves}
    assert {module: sorted(others & below.keys()) for module, others in below.items()} == {}


def test_resolver_understands_relative_imports():
    # The other tests are worth what `imports` finds.
    found = set(imports(ROOT / "layers" / "linear.py"))
    assert {"layers.kernels.dense", "layers.engine.layer.Layer", "numpy"} <= found
    assert "layers.engine.call.Call" not in found, "what only type checkers see does not count"
    assert "layers.kernels.jit.kernel" in set(imports(ROOT / "layers" / "kernels" / "gemm.py"))


def test_one_file_of_ddbp_imports_mpi():
    importers = [
        name_of(path)
        for path in PACKAGES
        if any(name.split(".")[0] == "mpi4py" for name in imports(path))
    ]
    assert len(importers) == 1, importers
    assert importers[0] == "ddbp/comm/mpi.py"


def test_mpi_is_not_imported_when_ddbp_is():
    # Inside a function only: importing MPI on a login node may hang or crash.
    for path in sources("ddbp"):
        for node in parsed(path).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert "mpi4py" not in ast.unparse(node), name_of(path)


def test_kernels_are_compiled_by_our_decorators_only():
    # Those of layers.kernels.jit are `kernel` and `inlined`.
    compilers = ("njit", "jit", "vectorize", "guvectorize", "stencil")
    against = [
        f"{name_of(path)}:{line} uses {name}"
        for path in EVERYTHING
        if path.name != "jit.py"
        for name, line in names(path)
        if name.split(".")[0] == "numba" and name.split(".")[-1] in compilers
    ]
    assert against == []


def test_layers_have_no_clock_no_printing_no_files_and_no_environment():
    against = []
    for path in LAYERS:
        forbidden = FORBIDDEN_IN_LAYERS
        if name_of(path) not in READS_ENVIRONMENT + COUNTS_REFERENCES:
            forbidden += ("os", "tempfile", "pathlib", "sys")
        against += [
            f"{name_of(path)} imports {imported}"
            for imported in imports(path)
            if imported.split(".")[0] in forbidden
            and not (imported == "subprocess" and name_of(path) in STARTS_A_PROCESS)
        ]
        against += [
            f"{name_of(path)}:{line} calls {name}"
            for name, line in names(path)
            if name in ("print", "open", "input")
        ]
    assert against == []


def draws_without_a_seed(path):
    """Yield the places in a file where random numbers come from no generator, or from one whose
    seed is not given.
    """
    nodes = list(ast.walk(parsed(path)))
    seeded = {
        id(node.func)
        for node in nodes
        if isinstance(node, ast.Call) and (node.args or node.keywords)
    }
    for node in nodes:
        if isinstance(node, ast.Attribute):
            name = ast.unparse(node)
            explicit = node.attr == "Generator" or (
                node.attr == "default_rng" and id(node) in seeded
            )
            if name.startswith(("np.random.", "numpy.random.")) and not explicit:
                yield f"{name_of(path)}:{node.lineno} uses {name}"


def test_layers_draw_only_from_generators_with_a_given_seed():
    # One of the deliberately wrong layers in mutants is wrong because it draws without a seed.
    files = [path for path in LAYERS if path.parent.name != "mutants"]
    assert [place for path in files for place in draws_without_a_seed(path)] == []


def test_layers_import_nothing_but_the_standard_library_numpy_numba_and_threadpoolctl():
    # The last, as the bits of what LAPACK computes depend on the number of threads.
    allowed = {*sys.stdlib_module_names, "numpy", "numba", "llvmlite", "layers", "threadpoolctl"}
    for path in LAYERS:
        strangers = {imported.split(".")[0] for imported in imports(path)} - allowed
        assert not strangers, f"{name_of(path)} imports {strangers}"


def test_types_can_be_checked_where_an_optional_library_is_not_installed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    overrides = project["tool"]["mypy"]["overrides"]
    may_be_missing = {
        name.removesuffix(".*")
        for override in overrides
        if override.get("ignore_missing_imports")
        for name in override["module"]
    }
    always = {re.split("[^a-z0-9]", each)[0] for each in project["project"]["dependencies"]}
    known = {*sys.stdlib_module_names, "ddbp", "layers", *always, *may_be_missing}
    for path in sources("layers", "ddbp"):
        strangers = {imported.split(".")[0] for imported in imports(path)} - known
        assert not strangers, f"{name_of(path)}: pyproject's overrides of mypy lack {strangers}"


def public_definitions(tree):
    """Yield the public functions and classes of a module."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node


def test_modules_functions_and_classes_of_layers_have_a_docstring():
    without = []
    for path in LAYERS:
        tree = parsed(path)
        if path.read_text(encoding="utf-8").strip() and not ast.get_docstring(tree):
            without.append(name_of(path))
        without += [
            f"{name_of(path)}:{node.lineno}: {node.name}"
            for node in public_definitions(tree)
            if not ast.get_docstring(node)
        ]
    assert without == []


def test_docstring_of_a_kernel_says_what_it_writes():
    silent = []
    for path in sources("layers/kernels"):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef) and any(
                ast.unparse(decorator) == "kernel" for decorator in node.decorator_list
            ):
                docstring = ast.get_docstring(node) or ""
                if not docstring.startswith(("Writes", "Adds to", "Returns")):
                    silent.append(f"{name_of(path)}:{node.lineno}: {node.name}")
    assert silent == []


def test_no_file_is_longer_than_five_hundred_lines():
    lengths = {
        name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in EVERYTHING
    }
    assert {name: length for name, length in lengths.items() if length > MOST_LINES} == {}


def test_scripts_are_examples_of_sixty_lines():
    scripts = sorted((ROOT / "scripts").glob("*.py"))
    lengths = {
        name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in scripts
    }
    most = dict.fromkeys(lengths, MOST_OF_SCRIPTS) | LONGER
    assert {name: length for name, length in lengths.items() if length > most[name]} == {}


def test_no_two_tests_of_a_file_have_one_name():
    # The later one would silently replace the earlier.
    for path in sources("tests"):
        defined = [node.name for node in parsed(path).body if isinstance(node, ast.FunctionDef)]
        assert len(defined) == len(set(defined)), f"{name_of(path)} defines a name twice"
