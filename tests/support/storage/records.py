"""Records of a journal, written and read as a journal does it."""

from __future__ import annotations

import json
from typing import TypeVar

from pydantic import TypeAdapter

Record = TypeVar("Record")


def through_json(record: Record) -> Record:
    form = TypeAdapter(type(record))
    return form.validate_python(json.loads(json.dumps(form.dump_python(record, mode="json"))))
