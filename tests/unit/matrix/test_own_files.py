"""versions.d/*.yaml: a user's own entries, read after versions.yaml, which they add to."""

from __future__ import annotations

from pathlib import Path

import pytest

from slipway.core import BadInputError
from slipway.matrix import load_matrix
from slipway.matrix.schema import SECTIONS
from slipway.matrix.yaml_file import read_yaml
from tests.support.matrix_samples import SMALL

OURS = """\
addons:
  ours:
    requires: [rich]
    because: we need it
    only: {groups: [mine]}
images:
  mine:
    repository: mine
    axes: {base: [pytorch-2.8-sagemaker-gpu], platform: [sagemaker]}
    name: mine
    size_budget_mb: 10
"""


def write(folder: Path, **files: str) -> Path:
    path = folder / "versions.yaml"
    path.write_text(SMALL)
    (folder / "versions.d").mkdir()
    for name, text in files.items():
        (folder / "versions.d" / f"{name.replace('_', '.')}").write_text(text)
    return path


def errors(path: Path) -> list[tuple[str, str]]:
    with pytest.raises(BadInputError) as caught:
        load_matrix(path)
    return [(Path(error.where or "").name, error.what) for error in caught.value.errors]


def test_entries_of_a_file_come_after_those_of_versions_yaml(tmp_path: Path) -> None:
    matrix = load_matrix(write(tmp_path, a_yaml=OURS))
    image = matrix.images[-1]
    assert [addon.name for addon in image.addons] == ["sagemaker-training", "ours", "s5cmd"]
    assert [i.name for i in matrix.images if i.addon("ours")] == ["mine"]
    (tmp_path / "upstream.yaml").write_text(SMALL)
    assert matrix.images[:-1] == load_matrix(tmp_path / "upstream.yaml").images


def test_a_file_of_comments_adds_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, a_yaml="# addons: {}\n")
    (tmp_path / "upstream.yaml").write_text(SMALL)
    assert load_matrix(path) == load_matrix(tmp_path / "upstream.yaml")


def test_files_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    split = OURS.index("images:")
    path = write(tmp_path, b_yaml=OURS[:split], a_yaml=OURS[split:])
    assert [image.name for image in load_matrix(path).images if image.addon("ours")] == ["mine"]


@pytest.mark.parametrize("section", [s for s in SECTIONS if f"\n{s}:\n" in SMALL])
def test_a_name_in_two_files_is_an_error_that_names_both_lines(
    tmp_path: Path, section: str
) -> None:
    file = read_yaml(SMALL)
    for name in file.data[section]:
        folder = tmp_path / name
        folder.mkdir()
        path = write(folder, own_yaml=f"# mine\n{section}:\n  {name}: {{}}\n")
        line = file.lines[(section, name)]
        assert errors(path) == [
            ("own.yaml:3", f"{section}.{name} is stated here and in {path}:{line}")
        ]


def test_two_files_of_ones_own_cannot_have_a_name_twice_either(tmp_path: Path) -> None:
    path = write(tmp_path, a_yaml=OURS, b_yaml=OURS)
    there = tmp_path / "versions.d" / "a.yaml"
    assert errors(path) == [
        ("b.yaml:2", f"addons.ours is stated here and in {there}:2"),
        ("b.yaml:7", f"images.mine is stated here and in {there}:7"),
    ]


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("default: mine\n", "own.yaml:1", "default is stated here and in"),
        ("# x\naddons: {ours: {requires: [rich]}}\n", "own.yaml:2", "`because` is missing"),
        ("addons:\n  a: {because: x\n", "own.yaml:3", "not YAML"),
        ("addon: {}\n", "own.yaml:1", "unknown key 'addon' (did you mean addons?)"),
        ("- addons\n", "own.yaml:1", "the file must be a mapping"),
        ("addons: []\n", "own.yaml:1", "addons is stated here and in"),
        ("addons:\n  a: {env: {A: b}, because: x}\n  a: {}\n", "own.yaml:3", "'a' is here twice"),
        (OURS.replace("only:", "with: {x: 1.0.0}\n    only:"), "own.yaml:2", "has no `version`"),
    ],
)
def test_a_mistake_is_said_with_its_own_file_and_line(
    tmp_path: Path, text: str, where: str, what: str
) -> None:
    found = errors(write(tmp_path, own_yaml=text))
    assert [place for place, said in found if what in said] == [where]


def test_a_mistake_in_versions_yaml_stays_there(tmp_path: Path) -> None:
    path = write(tmp_path, own_yaml=OURS)
    path.write_text(SMALL.replace("package_manager: dnf", "package_manager: yum"))
    line = SMALL[: SMALL.index("package_manager: dnf")].count("\n") + 1
    assert [place for place, _ in errors(path)] == [f"versions.yaml:{line}"]


@pytest.mark.parametrize("name", ["own.yml", "own.YAML", "own", "own.json", "own.yaml.bak"])
def test_a_file_of_another_ending_is_not_passed_over(tmp_path: Path, name: str) -> None:
    path = write(tmp_path)
    (tmp_path / "versions.d" / name).write_text(OURS)
    assert errors(path) == [(f"{name}:1", "files of versions.d end in .yaml")]


def test_what_cannot_be_read_is_said_beside_all_other_errors(tmp_path: Path) -> None:
    path = write(tmp_path, z_yaml="addon: {}\n")
    (tmp_path / "versions.d" / "a.yaml").symlink_to("nowhere")
    (tmp_path / "versions.d" / "b.yaml").mkdir()
    (tmp_path / "versions.d" / "more").mkdir()
    assert errors(path) == [
        ("a.yaml:1", "this is no file that can be read"),
        ("b.yaml:1", "this is no file that can be read"),
        ("more:1", "files of versions.d end in .yaml"),
        ("z.yaml:1", "unknown key 'addon' (did you mean addons?)"),
    ]


def test_versions_d_is_a_folder(tmp_path: Path) -> None:
    path = write(tmp_path)
    (tmp_path / "versions.d").rmdir()
    (tmp_path / "versions.d").write_text(OURS)
    assert errors(path) == [("versions.d:1", "versions.d is no folder")]


@pytest.mark.parametrize(
    "name", [".own.yaml", ".#own.yaml", "#own.yaml#", "own.yaml~", "README.md"]
)
def test_documents_and_what_editors_leave_are_not_read(tmp_path: Path, name: str) -> None:
    path = write(tmp_path)
    (tmp_path / "versions.d" / name).symlink_to("somebody@somewhere")
    assert load_matrix(path)


def test_a_section_of_comments_adds_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, own_yaml=f"addons:\n  # {OURS.splitlines()[1]}\nimages:\n")
    assert "mine" not in {image.name for image in load_matrix(path).images}


def test_an_alias_is_one_kind_of_mistake(tmp_path: Path) -> None:
    text = "addons:\n  a: &a {env: {A: b}, because: x}\n  b: *a\n"
    assert [what for _, what in errors(write(tmp_path, own_yaml=text))] == [
        "YAML anchors, aliases and tags are not used in this file",
        "addons.b must be a mapping, not an alias",
    ]


def test_bytes_that_are_no_text_name_their_file(tmp_path: Path) -> None:
    path = write(tmp_path, a_yaml=OURS)
    (tmp_path / "versions.d" / "a.yaml").write_bytes(OURS.encode() + b"\n# caf\xe9\n")
    assert errors(path) == [(f"a.yaml:{OURS.count(chr(10)) + 2}", "not UTF-8 text")]
