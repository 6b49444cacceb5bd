"""The JSON Schema of a spec file, for editors and other checkers.

Descriptions are the docstrings below the fields of the models. They are read from the source here,
when a schema is asked for, because reading them when a model is made would slow down every
command.
"""

from __future__ import annotations

import ast
import inspect
from typing import Any

from pydantic import BaseModel


def file_schema(spec: type[BaseModel]) -> dict[str, Any]:
    """One spec, or `kernels:` with a list of them."""
    schema = spec.model_json_schema(ref_template="#/$defs/{model}")
    definitions = schema.pop("$defs")
    for key, text in _field_docstrings(spec).items():
        schema["properties"][key].setdefault("description", text)
    several = {
        "type": "object",
        "properties": {
            "kernels": {
                "type": "array",
                "items": {"$ref": f"#/$defs/{spec.__name__}"},
                "minItems": 1,
            }
        },
        "required": ["kernels"],
        "additionalProperties": False,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "gemmgen spec file",
        "anyOf": [{"$ref": f"#/$defs/{spec.__name__}"}, several],
        "$defs": {**definitions, spec.__name__: schema},
    }


def _field_docstrings(model: type[BaseModel]) -> dict[str, str]:
    """Field -> the string that stands below its annotation."""
    (definition,) = ast.parse(inspect.getsource(model)).body
    assert isinstance(definition, ast.ClassDef)
    texts = {}
    for field, following in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(following, ast.Expr):
            assert isinstance(field.target, ast.Name)
            texts[field.target.id] = ast.literal_eval(following.value)
    return texts
