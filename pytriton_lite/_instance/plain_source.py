"""What the text of a model's file tells without running it."""

from __future__ import annotations

import ast
import threading

_CLASS = "TritonPythonModel"
_FUNCTION = b"auto_complete_config"
# Python 3.11 counts the depth of trees for all threads together: two that make one fail.
_parsing = threading.Lock()


def has_no_auto_complete(model_file: str) -> bool:
    """Whether the model in a file plainly has no `auto_complete_config`.

    True only if the function is not named in the file, and the class is a statement of it that
    inherits from nothing and is bound once: then no other file can give it the function. False
    means that it must be imported to know. A file with a syntax error is such a case, so that its
    error comes from the interpreter that is to run it.
    """
    try:
        with open(model_file, "rb") as file:
            source = file.read()
        if _FUNCTION in source:
            return False
        with _parsing:
            tree = ast.parse(source)
    except (OSError, SyntaxError, SystemError, ValueError, RecursionError, MemoryError):
        return False
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == _CLASS]
    return len(classes) == 1 and _is_plain(classes[0]) and not _names_again(tree, classes[0])


def _is_plain(model: ast.ClassDef) -> bool:
    return not model.bases and not model.keywords and not model.decorator_list


def _names_again(tree: ast.Module, model: ast.ClassDef) -> bool:
    """Whether something else in the file may bind the class's name, or get at the class."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Constant(value=name) if name == _CLASS:
                return True
            case ast.ImportFrom(names=aliases) | ast.Import(names=aliases) if any(
                alias.name == "*" or _CLASS in (alias.name, alias.asname) for alias in aliases
            ):
                return True
            case (
                ast.FunctionDef(name=name)
                | ast.AsyncFunctionDef(name=name)
                | ast.ClassDef(name=name)
            ) if name == _CLASS and node is not model:
                return True
    return False
