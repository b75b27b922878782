"""What is noted of an image's layers: an engine's history, or the documents of one made without."""

from __future__ import annotations

from typing import Any

from slipway.pipeline.recording.layer_notes import document_layers, engine_layers

# `docker history` of an image that was built on python:3.11-slim, oldest first, and shortened.
HISTORY = [
    {"CreatedBy": "# debian.sh --arch 'amd64' out/ 'bookworm'", "Size": 74_800_000},
    {"CreatedBy": "ENV PATH=/usr/local/bin:/usr/bin", "Size": 0},
    {"CreatedBy": "RUN /bin/sh -c set -eux; apt-get install ca-certificates", "Size": 9_230_000},
    {"CreatedBy": 'CMD ["python3"]', "Size": 0},
    {"CreatedBy": "WORKDIR /opt/ml", "Size": 0},
    {"CreatedBy": "RUN pip install deepspeed", "Size": 51_000_000},
    {"CreatedBy": 'ENTRYPOINT ["/opt/entrypoints/entrypoint.sh"]', "Size": 0},
]


def test_entries_without_files_are_no_layers() -> None:
    found = engine_layers(HISTORY, ["d0", "d1", "d2", "d3"], ["d0", "d1"])
    assert [(layer.diff_id, layer.size, layer.of_base) for layer in found] == [
        ("d0", 74_800_000, True),
        ("d1", 9_230_000, True),
        ("d2", 0, False),
        ("d3", 51_000_000, False),
    ]


def test_a_workdir_that_was_there_already_is_no_layer() -> None:
    # As the embedded engine tells of our own default image: `WORKDIR /` made no folder.
    found = engine_layers(HISTORY, ["d0", "d1", "d3"], ["d0", "d1"])
    assert [(layer.diff_id, layer.size) for layer in found] == [
        ("d0", 74_800_000),
        ("d1", 9_230_000),
        ("d3", 51_000_000),
    ]


def test_a_layer_that_was_imported_says_so() -> None:
    history = [{"CreatedBy": "", "Comment": "Imported from -", "Size": 5}]
    assert engine_layers(history, ["d0"], [])[0].words == "Imported from -"


def test_where_entries_and_layers_do_not_match_none_is_given_a_name() -> None:
    found = engine_layers(HISTORY, ["d0", "d1"], ["d0"])
    assert [layer.size for layer in found] == [74_800_000, 9_230_000, 51_000_000]
    assert {(layer.diff_id, layer.of_base) for layer in found} == {("", False)}


def test_a_base_that_is_another_one_has_no_layer_in_it() -> None:
    found = engine_layers(HISTORY, ["d0", "d1", "d2", "d3"], ["e0"])
    assert not any(layer.of_base for layer in found)


def test_layers_of_documents_have_the_words_of_their_steps() -> None:
    document: dict[str, Any] = {
        "rootfs": {"diff_ids": ["d0", "d1"]},
        "history": [
            {"created_by": "base"},
            {"created_by": "ENV A=1", "empty_layer": True},
            {"created_by": "COPY a"},
        ],
    }
    found = document_layers(document, [{"size": 5}, {"size": 7}], base=1)
    assert [(layer.words, layer.size, layer.of_base) for layer in found] == [
        ("base", 5, True),
        ("COPY a", 7, False),
    ]
    del document["history"]
    assert document_layers(document, [{"size": 5}, {"size": 7}], base=1)[1].words == ""
