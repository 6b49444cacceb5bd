"""Spec files: YAML with one spec, or `kernels:` with a list of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from gemmgen.errors import SpecError
from gemmgen.spec import GemmSpec
from gemmgen.spec_problems import Problem, problems_error

# A SASS pass that reads a file: `pattern(file=best.json)`.
_FILE_ARGUMENT = re.compile(r"(.*\(\s*file\s*=\s*)(.*?)(\s*\)\s*)", re.DOTALL)

_KEPT_TAGS = ("null", "bool", "merge")


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key that stands twice, where YAML would keep the last in silence."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"a key must be text, got {key!r}", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


# YAML 1.1 reads 020 as 16, 4:16 as 256 and 12.10 as 12.1. Here whole numbers are decimal, no key
# takes another kind of number, and what is neither stays the text that was written.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in resolvers if tag.rpartition(":")[2] in _KEPT_TAGS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"[-+]?(0|[1-9][0-9]*)$"), list("-+0123456789")
)


def load_specs(path: str | Path) -> list[GemmSpec]:
    """Every spec of a YAML file, which holds one spec or `kernels:` with a list of them.

    The name of a file in a spec, that of a pattern, is relative to the folder of the spec's file.
    Raises SpecError with all problems of all specs of the file.
    """
    document = read_yaml(Path(path))
    if not isinstance(document, dict):
        raise SpecError(
            "the file holds no spec",
            where=path,
            expected="keys such as `a:`, `b:`, `d:`, `n:`, `k:`, or `kernels:` with a list",
            got=type(document).__name__ if document is not None else "an empty file",
        )
    if "kernels" not in document:
        return [_located(document, path, "")]
    entries = document["kernels"]
    if len(document) > 1 or not isinstance(entries, list) or not entries:
        raise SpecError(
            "`kernels:` must be the only key of its file, with a list of specs",
            where=path,
            got=", ".join(document) if len(document) > 1 else repr(entries)[:80],
        )
    specs: list[GemmSpec] = []
    problems: list[Problem] = []
    for index, entry in enumerate(entries):
        try:
            specs.append(_located(entry, path, f"kernels[{index}]"))
        except SpecError as error:
            problems.extend(error.problems)
    if problems:
        raise problems_error(problems, where=path)
    return specs


def _located(entry: object, path: object, prefix: str) -> GemmSpec:
    """A spec whose problems carry the file and the place in it."""
    if not isinstance(entry, dict):
        raise problems_error([Problem(prefix, "expected the keys of a spec", entry)], where=path)
    if isinstance(calls := entry.get("sass"), list):
        folder = Path(str(path)).parent
        entry = entry | {"sass": [_found_from(folder, call) for call in calls]}
    try:
        return GemmSpec(**entry)
    except SpecError as error:
        problems = [
            Problem(".".join(filter(None, (prefix, p.path))), p.message, p.value, p.missing)
            for p in error.problems
        ]
        raise problems_error(problems, where=path) from None


def _found_from(folder: Path, call: object) -> object:
    """A pass with the name of its file made one that the process finds."""
    match = _FILE_ARGUMENT.fullmatch(call) if isinstance(call, str) else None
    return f"{match[1]}{folder / match[2]}{match[3]}" if match else call


def read_yaml(path: Path) -> object:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        reason = error.strerror or str(error)
        raise SpecError("the spec file cannot be read", where=path, got=reason) from None
    except UnicodeDecodeError as error:
        raise SpecError("the spec file is not UTF-8 text", where=path, got=str(error)) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise SpecError("the spec file is not YAML", where=path, detail=str(error)) from None
