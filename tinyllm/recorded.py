"""A learner's cell as text: found behind the object that it defined, and run alone, as the engine runs it."""

from __future__ import annotations
import __future__

import ast
import builtins
import dis
import functools
import hashlib
import inspect
import linecache
import sys
import traceback
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from types import CodeType, FunctionType, TracebackType
from typing import Any

from tinyllm.errors import PartError, TinyLLMError, WorkspaceError

NOTEBOOK_NAMES = {"get_ipython", "display"}  # IPython puts them among the built-in names

# ---------------------------------------------------------------- finding the cell


def name_of(obj: Any, known: Collection[str]) -> str:
    """What an object is called: its own name, or that of `known` which the notebook gave it.

    A decorator without `functools.wraps` leaves a function with the name of the decorator's own.
    """
    own = str(getattr(obj, "__name__", repr(obj)))
    if own in known:
        return own
    notebook = vars(sys.modules["__main__"])
    return next((name for name in known if notebook.get(name) is obj), own)


def source_of(obj: Any, name: str = "") -> str:
    """The source of the notebook cell (or file) that defined a class or function, without notebook magics.

    `inspect.getsource` cannot see notebook classes, so the cell is found through the code of their methods, or else
    among the cells that have run. A decorator's or a base class's file does not define the object and is passed over.

    Args:
        name: what the cell calls the object; its own name by default.

    Raises:
        WorkspaceError: the object was not written in Python source that can be read back.
    """
    name = name or getattr(obj, "__name__", "")
    for filename in dict.fromkeys(code.co_filename for code in codes_of(obj)):
        source = without_magics("".join(linecache.getlines(filename)))
        if defines(source, name):
            return source
    for cell in reversed(cells_run()):
        source = without_magics(cell)
        if defines(source, name):
            return source
    raise WorkspaceError(f"the source of {obj!r} cannot be read; define it in a notebook cell and run that cell")


def codes_of(obj: Any) -> list[CodeType]:
    """The code of a function behind its decorators, or of a class's methods and properties, its own before its bases'.

    A decorator's own code comes last: it stands where the decorator was written.
    """
    if not isinstance(obj, type):
        return _codes(obj)
    mro: tuple[type, ...] = type.__dict__["__mro__"].__get__(obj)  # a metaclass may answer something else
    return [code for owner in mro[:-1] for value in list(vars(owner).values()) for code in _codes(value)]


def _codes(value: Any) -> list[CodeType]:
    if type(value) is property:
        return [code for function in (value.fget, value.fset, value.fdel) for code in _codes(function)]
    if type(value) is functools.cached_property:
        return _codes(value.func)
    if type(value) in (staticmethod, classmethod):
        return _codes(value.__func__)
    value = function_of(value)
    if type(value) is not FunctionType:
        return []
    found = [value.__code__]
    inner = vars(value).get("__wrapped__")
    while type(inner) is FunctionType and inner.__code__ not in found:
        found.insert(0, inner.__code__)
        inner = vars(inner).get("__wrapped__")
    return found


def function_of(obj: Any) -> Any:
    """The function that `@triton.jit` has made an object of; anything else as it is."""
    inner = None if isinstance(obj, type | FunctionType) else getattr(obj, "__dict__", {}).get("fn")
    return inner if type(inner) is FunctionType else obj


def cells_run() -> list[str]:
    """The cells that this notebook has run, in order; none outside a notebook."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return list(shell.history_manager.input_hist_raw) if shell is not None and shell.history_manager else []


def without_magics(source: str) -> str:
    """A cell as plain Python: what stands below a `%%time`, without `%` and `!` lines. Line numbers stay."""
    if "IPython" in sys.modules and any(line.lstrip().startswith(("%", "!")) for line in source.splitlines()):
        from IPython.core.inputtransformer2 import TransformerManager

        source = TransformerManager().transform_cell(source)
    if "get_ipython()" not in source:
        return source
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError):
        return source
    match body:
        case [ast.Expr(ast.Call(ast.Attribute(attr="run_cell_magic"), [_, _, ast.Constant(str(text))]))]:
            return "\n" + without_magics(text)
    lines = source.splitlines(keepends=True)
    for node in body:
        if isinstance(node, ast.Expr) and ast.unparse(node).startswith("get_ipython()."):
            for number in range(node.lineno - 1, node.end_lineno or node.lineno):
                lines[number] = "\n"
    return "".join(lines)


def defines(source: str, name: str) -> bool:
    """Whether a cell gives a value to a name at its top level."""
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError):
        return False
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            return True
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            return True
    return False


def source_hash(source: str) -> str:
    """A name for a source text that changes when the text does."""
    return hashlib.sha256(source.strip().encode()).hexdigest()[:16]


# ---------------------------------------------------------------- running it alone


def run_alone(source: str, name: str, scope: Mapping[str, Any], strict: bool = False) -> Any:
    """Run a cell in a namespace of its own and return what it calls `name`.

    Args:
        scope: what other cells of the course define, the other parts: an exercise's cell may use them.
        strict: refuse functions with names that nothing defines, too; else they fail when they are called.

    Raises:
        PartError: the cell does not run alone, or does not define `name`.
    """
    filename = file_label(name)
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    namespace: dict[str, Any] = {**scope, "__name__": f"your_{name}"}
    namespace.pop(name, None)
    try:
        code = compile_part(source, filename)
    except (SyntaxError, ValueError) as error:
        raise PartError(f"your {name} is not Python that runs outside its notebook: {error}") from error
    with name_failing_part():
        try:
            exec(code, namespace)
        except NameError as error:
            if error.name and failing_frame(error.__traceback__) is not None:
                raise PartError(f"your {name}: {lives_elsewhere(error.name)}") from error
            raise
    if name not in namespace:
        raise PartError(f"your cell does not define {name}; run the exercise's cell and `use({name})` again")
    if strict and (missing := missing_names(code, namespace)):
        raise PartError(f"your {name}: {'; '.join(map(lives_elsewhere, missing))}")
    return namespace[name]


def missing_names(code: CodeType, namespace: Mapping[str, Any]) -> list[str]:
    """Names that functions of a cell use, and that neither the cell nor Python defines, in order."""
    used: dict[str, None] = {}
    stored = set()
    for function in _nested(code):
        for step in dis.get_instructions(function):
            if step.opname == "LOAD_GLOBAL":
                used[step.argval] = None
            if step.opname == "STORE_GLOBAL":
                stored.add(step.argval)
    known = {*namespace, *stored, *(set(vars(builtins)) - NOTEBOOK_NAMES)}
    return [name for name in used if name not in known]


def _nested(code: CodeType) -> Iterator[CodeType]:
    for value in code.co_consts:
        if isinstance(value, CodeType):
            yield value
            yield from _nested(value)


def lives_elsewhere(name: str) -> str:
    """What to do about a name that a cell uses and does not define."""
    if name in NOTEBOOK_NAMES:
        return f"`{name}` is there in a notebook only: do without it in this cell"
    notebook = vars(sys.modules["__main__"])
    if name not in notebook:
        return f"`{name}` is not defined in this cell: define or import it here"
    value = notebook[name]
    if inspect.ismodule(value) or getattr(value, "__module__", "__main__") not in ("__main__", None):
        return f"`{name}` is imported in another cell: import it in this one"
    return f"`{name}` lives in another cell: move it into this one"


def compile_part(source: str, filename: str) -> CodeType:
    """Compile a cell as notebooks run it.

    Annotations are not evaluated, since they may name other cells' classes; and `from __future__ import annotations`
    may stand anywhere, since a notebook compiles statement by statement.
    """
    tree = ast.parse(source, filename)
    tree.body = [node for node in tree.body if not (isinstance(node, ast.ImportFrom) and node.module == "__future__")]
    return compile(tree, filename, "exec", flags=__future__.annotations.compiler_flag, dont_inherit=True)


def file_label(name: str) -> str:
    """The file name that tracebacks show for a learner's part."""
    return f"<your {name}>"


@contextmanager
def name_failing_part() -> Iterator[None]:
    """Turn an error that comes out of a learner's part into one that names the part and its line."""
    try:
        yield
    except PartError:
        raise
    except Exception as error:
        frame, cause = failing_frame(error.__traceback__), error
        while frame is None and isinstance(cause.__cause__, Exception) and not isinstance(cause, TinyLLMError):
            cause = cause.__cause__  # Triton's interpreter hides an error of a kernel behind its own
            frame = failing_frame(cause.__traceback__)
        if frame is None:
            raise
        raise PartError(
            f"{frame.filename.strip('<>')} failed in line {frame.lineno} ({frame.line}): "
            f"{type(cause).__name__}: {cause}. Check it again in its notebook, or build the engine with "
            'parts="reference".'
        ) from error


def failing_frame(tb: TracebackType | None) -> traceback.FrameSummary | None:
    """The innermost frame of a traceback that is a learner's own code."""
    frames = [f for f in traceback.extract_tb(tb) if f.filename.startswith("<your ")]
    return frames[-1] if frames else None
