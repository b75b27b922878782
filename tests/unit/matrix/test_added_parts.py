"""What an add-on can be made of beside packages: files, a folder to start in, a user, needs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from slipway.core import Project, SlipwayError
from slipway.derive import added_files, build_inputs, render_dockerfile, shared_inputs
from slipway.matrix import Image, Matrix, explain_image, read_matrix
from slipway.records import python_lock_keys
from slipway.verify.expectations import file_facts
from tests.support.matrix_samples import errors_of, image_of, loaded
from tests.unit.matrix.test_addon_kinds import NEW, NOTHING, OLD, TEMPLATES, with_addon

ONLY = f"    only: {{images: [{OLD}]}}\n"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A repository with what is added, and with what the build ids of all images are made of."""
    root = TEMPLATES.parents[1]
    for name in ("images", "entrypoints"):
        (tmp_path / name).symlink_to(root / name)
    (tmp_path / "configs/deep").mkdir(parents=True)
    (tmp_path / "configs/a.yaml").write_text("a: 1\n")
    (tmp_path / "configs/deep/run.sh").write_text("#!/bin/sh\n")
    (tmp_path / "configs/deep/run.sh").chmod(0o755)
    (tmp_path / "configs/deep/.hidden").write_text("h")
    (tmp_path / "configs/__pycache__").mkdir()
    (tmp_path / "configs/__pycache__/x.pyc").write_text("x")
    return Project(tmp_path, tmp_path / "state")


def image(project: Project, text: str) -> Image:
    return image_of(loaded(project.root, with_addon(text)), OLD)


def build_id(project: Project, made: Image) -> str:
    common = shared_inputs(project, NOTHING, [made])
    return build_inputs(project, made, NOTHING, (), common).build_id


FOLDER = "    files: [{from: configs/, to: /opt/team/}]\n"


def test_a_folder_goes_below_its_target_with_hidden_files_and_without_caches(
    project: Project,
) -> None:
    made = image(project, FOLDER)
    assert {(f.context, f.target, f.mode, f.owner) for f in added_files(project, made.addons)} == {
        ("files/ours/0/a.yaml", "/opt/team/a.yaml", 0o644, "0:0"),
        ("files/ours/0/deep/run.sh", "/opt/team/deep/run.sh", 0o755, "0:0"),
        ("files/ours/0/deep/.hidden", "/opt/team/deep/.hidden", 0o644, "0:0"),
    }
    text = render_dockerfile(made, NOTHING, (), TEMPLATES)
    head = "# --- ours:/opt/team/ ---\n# install: we need it\n"
    assert f"{head}COPY files/ours/0/ /opt/team/\n" in text
    assert file_facts(project, made)["/opt/team/deep/run.sh"].mode == "0755"


@pytest.mark.parametrize(
    ("files", "copy", "target", "mode", "owner"),
    [
        ("to: /etc/a", "files/ours/0 /etc/a", "/etc/a", 0o644, "0:0"),
        ("to: /etc/x/", "files/ours/0/a.yaml /etc/x/", "/etc/x/a.yaml", 0o644, "0:0"),
        ('to: /a, mode: "0600"', "files/ours/0 /a", "/a", 0o600, "0:0"),
        ('to: /a, owner: "7"', "--chown=7:7 files/ours/0 /a", "/a", 0o644, "7:7"),
        ('to: /a, owner: "7:8"', "--chown=7:8 files/ours/0 /a", "/a", 0o644, "7:8"),
    ],
)
def test_a_file_has_its_name_mode_and_owner(
    project: Project, files: str, copy: str, target: str, mode: int, owner: str
) -> None:
    made = image(project, f"    files: [{{from: configs/a.yaml, {files}}}]\n")
    (file,) = added_files(project, made.addons)
    assert (file.target, file.mode, file.owner) == (target, mode, owner)
    assert f"\nCOPY {copy}\n" in render_dockerfile(made, NOTHING, (), TEMPLATES)
    words = copy.split()[-2:]
    assert file.context == words[0]


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("configs/a.yaml", lambda path: path.write_text("a: 2\n")),
        ("configs/deep/run.sh", lambda path: path.chmod(0o644)),
        ("configs/new", lambda path: path.write_text("")),
        ("configs/deep/.hidden", lambda path: path.unlink()),
    ],
)
def test_what_is_added_decides_the_build_id(project: Project, path: str, change: object) -> None:
    made = image(project, FOLDER)
    before = build_id(project, made)
    assert callable(change)
    change(project.root / path)
    assert build_id(project, made) != before


def test_what_is_not_copied_does_not(project: Project) -> None:
    made = image(project, FOLDER)
    before = build_id(project, made)
    (project.root / "configs/__pycache__/x.pyc").write_text("y")
    assert build_id(project, made) == before


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("configs/b.yaml", "no file of that name"),
        ("configs", "no file of that name in the repository (a folder ends with a slash)"),
        ("configs/a.yaml/", "no folder of that name"),
    ],
)
def test_what_is_not_there_is_said(project: Project, source: str, what: str) -> None:
    made = image(project, f"    files: [{{from: {source}, to: /opt/x/}}]\n")
    with pytest.raises(SlipwayError) as caught:
        build_id(project, made)
    assert what in caught.value.what


def test_a_link_is_refused_wherever_it_points(project: Project) -> None:
    (project.root / "configs/link").symlink_to("/etc/passwd")
    made = image(project, FOLDER)
    with pytest.raises(SlipwayError, match="link is a link"):
        build_id(project, made)


def test_the_folder_and_the_user_of_an_image_are_an_addons_choice(project: Project) -> None:
    made = image(project, '    workdir: /work\n    user: "1000:1000"\n' + ONLY)
    text = render_dockerfile(made, NOTHING, (), TEMPLATES)
    assert "\nWORKDIR /work\nUSER 1000:1000\n" in text
    assert (made.workdir, made.user) == ("/work", "1000:1000")
    cell = explain_image(made)["addons"][-2]
    assert (cell["workdir"], cell["user"]) == ("/work", "1000:1000")


def two(project: Project, first: str, second: str) -> Matrix:
    text = f"    env: {{A: b}}\n{first}  other:\n    because: x\n    env: {{C: d}}\n{second}"
    return loaded(project.root, with_addon(text))


def test_what_an_addon_needs_comes_before_it(project: Project) -> None:
    names = [addon.name for addon in image_of(two(project, "    needs: [other]\n", ""), NEW).addons]
    assert names == ["sagemaker-training", "deepspeed", "other", "ours", "s5cmd"]
    names = [addon.name for addon in image_of(two(project, "", ""), NEW).addons]
    assert names == ["sagemaker-training", "deepspeed", "ours", "other", "s5cmd"]


LINES = """\
# what we train with
rich>=13   # tables
tabulate[widechars] \\
    >=0.9; python_version >= "3.9"
-r more/extra.txt
"""


def test_a_requirements_file_is_what_the_addon_asks_for(project: Project) -> None:
    (project.root / "more").mkdir()
    (project.root / "ours.txt").write_text(LINES.replace("more/", "./more/"))
    (project.root / "more/extra.txt").write_text("-r ../ours.txt\nhumanize==4.9.0\n")
    made = image(project, "    requires: [einops]\n    requirements: ours.txt\n")
    addon = made.addon("ours")
    assert addon is not None
    assert [text.replace(" ", "") for text in addon.requirements] == [
        "einops",
        "rich>=13",
        'tabulate[widechars]>=0.9;python_version>="3.9"',
        "humanize==4.9.0",
    ]


def test_a_change_of_a_requirements_file_is_seen_behind_the_cache(project: Project) -> None:
    path = project.root / "ours.txt"
    asked: list[str] = []
    for line in ("rich>=13", "rich>=14", "rich>=14"):
        path.write_text(line)
        project.versions.write_text(with_addon("    requirements: ours.txt\n"))
        addon = image_of(read_matrix(project), OLD).addon("ours")
        assert addon is not None
        asked += addon.requirements
    assert asked == ["rich>=13", "rich>=14", "rich>=14"]


def test_a_long_list_of_requirements_has_a_short_name_of_its_own(project: Project) -> None:
    lines = [f"package-{number}>=1.{number}" for number in range(60)]
    (project.root / "ours.txt").write_text("\n".join(lines))
    made = image(project, "    requirements: ours.txt\n")
    keys = {addon.name: key for addon, key in python_lock_keys(made, {})}
    assert "_ours-60-" in keys["ours"]
    assert len(keys["ours"]) < 200
    addons = tuple(
        dataclasses.replace(addon, requirements=addon.requirements[1:])
        if addon.name == "ours"
        else addon
        for addon in made.addons
    )
    fewer = python_lock_keys(dataclasses.replace(made, addons=addons), {})
    assert keys["ours"] not in {key for _, key in fewer}


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("-e .", "ours.txt:2: -e is not taken"),
        ("--extra-index-url https://index.invalid/simple", "ours.txt:2: --extra-index-url is not"),
        ("rich==1 --hash=sha256:00", "ours.txt:2: --hash is not taken"),
        ("a b", "ours.txt:2: 'a b' is not a requirement"),
        ("x @ https://example.invalid/x.whl", "names a place and no version"),
        ("-r ../../outside.txt", "leaves the repository"),
        ("-r missing.txt", "missing.txt cannot be read: No such file"),
    ],
)
def test_a_line_that_cannot_be_locked_is_said_with_its_place(
    project: Project, line: str, what: str
) -> None:
    (project.root / "ours.txt").write_text(f"# ours\n{line}\n")
    text = with_addon("    requirements: ours.txt\n")
    found = errors_of(project.root, text)
    assert any(what in said for _, said, _ in found), found
    at = text[: text.index("requirements: ours.txt")].count("\n") + 1
    assert {number for number, _, _ in found} == {at}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("    files: [{from: /etc/passwd, to: /a}]\n", "is no path of the repository"),
        ("    files: [{from: a/../../b, to: /a}]\n", "is no path of the repository"),
        ("    files: [{from: 'a b', to: /a}]\n", "is no path of the repository"),
        ("    files: [{from: a, to: b}]\n", "addons.ours.files.0.to is 'b'"),
        ("    files: [{from: a, to: /$HOME}]\n", "addons.ours.files.0.to is '/$HOME'"),
        ("    files: [{from: a/, to: /b}]\n", "a/ is a folder, and /b a file"),
        ("    files: [{from: a, to: /b}, {from: c, to: /b}]\n", "ours has /b twice"),
        ("    files: [{from: a, to: /b, mode: 0644}]\n", "must be text"),
        ('    files: [{from: a, to: /b, mode: "4755"}]\n', "mode is '4755'"),
        ("    files: [{from: a, to: /b, owner: me}]\n", "owner is 'me'"),
        ("    workdir: work\n", "workdir is 'work'"),
        ('    user: "a b"\n', "user is 'a b'"),
        ("    version: 1.0.0\n    user: me\n", "ours has both `version` and `user`"),
        ("    env: {A: b}\n    needs: [othr]\n", "no add-on 'othr'"),
        ("    env: {A: b}\n    needs: [ours]\n", "ours needs ours: one of them has to come first"),
        ("    env: {A: b}\n    needs: [sagemaker-training]\n", "which needs sagemaker-training"),
        ("    user: me\n  more: {because: x, user: you}\n", "has a `user` of ours and of more"),
    ],
)
def test_a_mistake_is_said(tmp_path: Path, text: str, what: str) -> None:
    found = errors_of(tmp_path, with_addon(text))
    assert any(what in said for _, said, _ in found), found


def test_no_lock_is_asked_for_files(project: Project) -> None:
    made = image(project, FOLDER)
    assert "ours" not in {addon.name for addon, _ in python_lock_keys(made, {})}
