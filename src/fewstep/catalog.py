"""The catalogue: what there is, read from the sources without importing them.

`@method(...)` takes literals only, so that a reader of the syntax tree knows every method without importing torch.
"""

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
QUOTES = '"' * 3


@dataclass(frozen=True)
class Method:
    """A method of the catalogue.

    Args:
        name: what it is called in `sample(solver=…)` and on the command line.
        family: solvers, guidance …
        papers: the exact titles of its papers.
        summary: the first sentence of its docstring.
        module: where it stands.
        arguments: the parameters of the class that make this row.
    """

    name: str
    family: str
    papers: tuple[str, ...]
    summary: str
    module: str
    symbol: str
    arguments: tuple[tuple[str, Any], ...] = ()
    arxiv: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain data: name, family, papers, summary, module."""
        keys = ("name", "family", "papers", "summary", "module")
        return {k: list(v) if isinstance(v := getattr(self, k), tuple) else v for k in keys}


def method(
    *, name: str, papers: list[str], family: str, arxiv: str = "", summary: str = "", **arguments: Any
) -> Callable[[T], T]:
    """Register a class in the catalogue, and have it check its arguments' kinds (`fewstep.checking`).

    A class with several rows is decorated several times.

    Args:
        name: the method's name.
        papers: the exact titles of its papers.
        family: its family.
        arxiv: the first paper's number.
        summary: a sentence, where the class's own does not say what this row is.
        arguments: the parameters of the class that make this row.
    """
    from fewstep.checking import checked

    return checked


@cache
def methods() -> tuple[Method, ...]:
    """All methods, in the order of family and name."""
    root = Path(__file__).parent
    found = []
    for file in sorted(root.rglob("*.py")):
        for block in _blocks(file.read_text(encoding="utf8")):
            module = ".".join(["fewstep", *file.relative_to(root).with_suffix("").parts])
            for node in ast.parse(block).body:
                if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                    found += [_read(d, node, module) for d in node.decorator_list if _is_method(d)]
    return tuple(sorted(found, key=lambda m: (m.family, m.name)))


def _blocks(text: str) -> Iterator[str]:
    """What is registered in a file, each from its decorators to the end of its docstring: all that need be parsed."""
    begin = text.find("\n@method(")
    while begin >= 0:
        end = text.index(QUOTES, text.index(QUOTES, begin) + len(QUOTES)) + len(QUOTES)
        yield text[begin:end]
        begin = text.find("\n@method(", end)


def _is_method(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and getattr(node.func, "id", "") == "method"


def _read(call: ast.expr, node: ast.ClassDef | ast.FunctionDef, module: str) -> Method:
    assert isinstance(call, ast.Call)
    values = {k.arg: ast.literal_eval(k.value) for k in call.keywords if k.arg}
    summary = values.pop("summary", "") or (ast.get_docstring(node) or "").split("\n")[0]
    head = {k: values.pop(k, "") for k in ("name", "family", "arxiv")}
    papers = tuple(values.pop("papers"))
    return Method(
        papers=papers, summary=summary, module=module, symbol=node.name, arguments=tuple(values.items()), **head
    )
