"""The shape of the code: direction of imports, faces of rooms, names that stand once, folders.

A room is a folder of slipway/ or entrypoints/launcher/. Its face is its `__init__.py`.
"""

from __future__ import annotations

import ast
import functools
import importlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = {"slipway": ROOT / "slipway", "launcher": ROOT / "entrypoints" / "launcher"}

#: Lowest first; rooms of one line do not know each other.
FLOORS = {
    "slipway": (
        ("core",),
        ("matrix", "engine", "squashfs"),
        ("records", "registry", "storage"),
        ("derive", "wheels", "sqsh", "inventory", "soci"),
        ("append", "prune", "local_base", "verify", "cluster", "resolve"),
        ("pipeline",),
        ("report",),
        ("tasks",),
    ),
    "launcher": (
        ("user_python",),
        ("platforms", "peers"),
        ("data", "ranks", "fetch"),
        ("checks",),
        ("spares",),
    ),
}
#: Public names that stand twice, with the reason.
TWICE = {
    "main": "the entry of a program that runs by itself",
}
#: Files that look behind faces, with the reason.
LOOK_BEHIND = {
    "bench/fanout.py": "it drives workers on a clock of its own",
    "bench/sqsh_export.py": "it replaces functions of the linker, to take the time of each part",
    "bench/sqsh_soak.py": "it takes a layer's blob where there is a snapshot of it, too",
    "bench/soci_tag.py": "it makes layers of its own",
    "bench/soci_reference.py": "it holds the checkpoints alone to AWS's code",
    "bench/registry_extend.py": "it makes a base of layers, and the context of an engine's build",
    "bench/gate.py": "it speaks for a thousand launchers, byte by byte",
}
MOST_MODULES = 15
MOST_ARGUMENTS = 6
#: Functions with more arguments, with the reason.
MANY_ARGUMENTS = {
    "deploy_lmi": "each is a flag of the task",
    "fanout_start": "each is a flag of the task",
    "sagemaker_job": "each is a flag of the task",
    "script_request": "each is a flag of the tasks",
    "sqsh_export": "each is a flag of the task",
    "storage_move": "each is a flag of the task",
    "report": "each is a flag of the task",
    "request": "the parts of an HTTP request, by keyword, as in requests",
    "once": "the parts of an HTTP request, by keyword, as in requests",
    **dict.fromkeys(
        ("ensure_repository", "export_stored", "push_image", "send_blob"),
        "settings by keyword with defaults, of which a caller gives one or two",
    ),
}
#: Folders with more modules, with the reason.
LARGE_FOLDERS: dict[str, str] = {}


def modules(program: str) -> list[Path]:
    return sorted(PROGRAMS[program].rglob("*.py"))


def name_of(path: Path, program: str) -> str:
    """The dotted name of a module of a program."""
    parts = path.relative_to(PROGRAMS[program].parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def packages(program: str) -> set[str]:
    return {name_of(path, program) for path in modules(program) if path.name == "__init__.py"}


@functools.cache  # each module is looked at from each of the folders that it is in
def imports(path: Path) -> tuple[tuple[str, str], ...]:
    """(module, name) of every `from module import name` of ours, wherever it stands."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            if node.module.split(".")[0] in PROGRAMS:
                for alias in node.names:
                    yield node.module, alias.name
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in PROGRAMS and "." in alias.name:
                    yield alias.name, ""


def behind_a_face(importer: str, module: str, name: str, rooms: set[str]) -> str | None:
    """The room whose face `importer` passes by, where it imports `name` of `module`."""
    target = f"{module}.{name}" if is_module(f"{module}.{name}") else module
    mine, theirs = importer.split("."), target.split(".")
    shared = next(
        (at for at, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b),
        min(len(mine), len(theirs)),
    )
    room = ".".join(theirs[: max(shared, 1) + 1])
    return room if room in rooms and room != target else None


def is_module(name: str) -> bool:
    program, *rest = name.split(".")
    path = PROGRAMS[program].joinpath(*rest)
    return path.is_dir() or path.with_suffix(".py").is_file()


FILES = [
    *[(path, name_of(path, program)) for program in PROGRAMS for path in modules(program)],
    (ROOT / "tasks.py", "tasks"),
    *[(path, path.stem) for path in sorted((ROOT / "bench").rglob("*.py"))],
]


def test_other_rooms_are_used_by_their_face_only() -> None:
    rooms = packages("slipway") | packages("launcher")
    passed_by = []
    for path, importer in FILES:
        if path.name == "__init__.py" or path.relative_to(ROOT).as_posix() in LOOK_BEHIND:
            continue  # a face lists what stands behind it
        for module, name in imports(path):
            if importer in ("tasks",) and module == "slipway.tasks":
                continue  # the namespaces are modules: invoke makes a collection of each
            if room := behind_a_face(importer, module, name, rooms):
                passed_by.append(f"{path.relative_to(ROOT)}: {module}.{name} passes by {room}")
    assert passed_by == []


@pytest.mark.parametrize("program", sorted(PROGRAMS))
def test_a_room_uses_only_rooms_below_it(program: str) -> None:
    floor = {room: level for level, rooms in enumerate(FLOORS[program]) for room in rooms}
    wrong = []
    for path in modules(program):
        inside = path.relative_to(PROGRAMS[program]).parts
        if len(inside) == 1:
            continue
        mine = inside[0]
        for module, name in imports(path):
            parts = f"{module}.{name}".split(".")
            theirs = parts[1]
            if parts[0] != program or theirs == mine or theirs not in floor:
                continue
            if floor[theirs] >= floor[mine]:
                wrong.append(f"{path.relative_to(ROOT)} uses {theirs}")
    assert sorted(set(wrong)) == []


@pytest.mark.parametrize("name", sorted(packages("slipway") | packages("launcher")))
def test_modules_and_rooms_of_a_room_use_each_other_in_one_direction(name: str) -> None:
    assert circle_in(name) == []


def circle_in(room: str) -> list[str]:
    """Modules and folders straight below a room that use each other in a circle; none is well."""
    program, *rest = room.split(".")
    folder = PROGRAMS[program].joinpath(*rest)
    uses: dict[str, set[str]] = defaultdict(set)
    for path in folder.rglob("*.py"):
        user = path.relative_to(folder).parts[0].removesuffix(".py")
        if user == "__init__":
            continue  # a face lists what stands behind it
        for module, name in imports(path):
            used = f"{module}.{name}".removeprefix(f"{room}.").split(".")[0]
            if f"{module}.{name}".startswith(f"{room}.") and is_module(f"{room}.{used}"):
                uses[user] |= {used} - {user}
    return find_circle(uses)


def find_circle(uses: Mapping[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(uses).prepare()
    except CycleError as error:
        return [str(name) for name in error.args[1]]
    return []


def test_a_circle_is_found() -> None:
    assert find_circle({"a": {"b"}, "b": {"c"}}) == []
    assert set(find_circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == {"a", "b", "c"}


@pytest.mark.parametrize("program", sorted(PROGRAMS))
def test_every_room_is_on_a_floor(program: str) -> None:
    rooms = {path.parent.name for path in PROGRAMS[program].glob("*/__init__.py")}
    assert rooms == {room for floor in FLOORS[program] for room in floor}


@pytest.mark.parametrize(
    "name", sorted(packages("slipway") | packages("launcher") - {"slipway", "launcher"})
)
def test_a_face_says_what_the_room_is_for_and_gives_what_it_names(name: str) -> None:
    program, *rest = name.split(".")
    if not rest:
        return
    face = importlib.import_module(name)
    assert face.__doc__
    tree = ast.parse((PROGRAMS[program].joinpath(*rest) / "__init__.py").read_text())
    typed = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.If)
        for inner in node.body
        if isinstance(inner, ast.ImportFrom)
        for alias in inner.names
    }
    given = list(getattr(face, "__all__", []))
    assert set(given) == typed
    assert [public for public in given if getattr(face, public, None) is None] == []


@pytest.mark.parametrize("program", sorted(PROGRAMS))
def test_a_public_name_stands_once(program: str) -> None:
    places = defaultdict(list)
    for path in modules(program):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_":
                places[node.name].append(path.relative_to(ROOT).as_posix())
    twice = {name: at for name, at in places.items() if len(at) > 1 and name not in TWICE}
    assert twice == {}


@pytest.mark.parametrize("program", sorted(PROGRAMS))
def test_a_folder_has_few_modules(program: str) -> None:
    count: dict[str, int] = defaultdict(int)
    for path in modules(program):
        if path.name != "__init__.py":
            count[path.parent.relative_to(ROOT).as_posix()] += 1
    large = {name: n for name, n in count.items() if n > MOST_MODULES and name not in LARGE_FOLDERS}
    assert large == {}


@pytest.mark.parametrize("program", sorted(PROGRAMS))
def test_what_starts_a_program_stands_at_its_end(program: str) -> None:
    """What stands below it does not exist yet when the program runs."""
    early = []
    for path in modules(program):
        *above, _ = ast.parse(path.read_text(encoding="utf-8")).body
        if any(isinstance(node, ast.If) and "__main__" in ast.unparse(node.test) for node in above):
            early.append(path.relative_to(ROOT).as_posix())
    assert early == []


def test_helpers_of_tests_import_no_test() -> None:
    """What tests share stands in tests/support; a helper that needs a test is a test."""
    wrong = []
    for path in sorted((ROOT / "tests" / "support").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
                ("tests.unit", "tests.system")
            ):
                wrong.append(f"{path.relative_to(ROOT)}: {node.module}")
    assert wrong == []


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_function_with_many_arguments_takes_an_options_object(program: str) -> None:
    long = {}
    for path in modules(program):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name not in MANY_ARGUMENTS:
                arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
                count = len([a for a in arguments if a.arg not in ("self", "cls")])
                if count > MOST_ARGUMENTS:
                    long[f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"] = count
    assert not long
