"""Formulas: TeX to MathML, by Temml in a Node process that starts with the first formula."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from types import TracebackType

from book.preprocessor.faults import FaultError

SCRIPT = Path(__file__).with_name("render_math.mjs")


class MathRenderer:
    """Renders formulas, each once. A context manager: leaving it ends the Node process."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None
        self.rendered: dict[tuple[str, bool], str] = {}

    def __enter__(self) -> MathRenderer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.process:
            self.process.communicate()
            self.process = None

    def render(self, tex: str, display: bool) -> str:
        """MathML of a formula, safe to stand inside Markdown.

        Raises:
            FaultError: Temml refuses the formula, or there is no Node to run it.
        """
        key = (tex.strip(), display)
        if key not in self.rendered:
            mathml = shielded(self._ask(*key), key[0])
            self.rendered[key] = f'<div class="math">{mathml}</div>' if display else mathml
        return self.rendered[key]

    def _ask(self, tex: str, display: bool) -> str:
        if self.process is None:
            node = shutil.which("node") or shutil.which("nodejs")
            if node is None:
                raise FaultError("formulas need Node, which is not installed (`tinyllm doctor` says how)")
            self.process = subprocess.Popen(
                [node, str(SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"tex": tex, "display": display}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise FaultError("the formula renderer stopped; run `npm ci` in book/ and build again")
        answer: dict[str, str] = json.loads(line)
        if "error" in answer:
            raise FaultError(f"formula {tex!r}: {answer['error']}")
        return answer["mathml"]


def shielded(mathml: str, tex: str) -> str:
    """MathML on one line in which Markdown finds nothing to interpret, with its TeX source kept beside it."""

    def entities(text: str) -> str:
        return re.sub(r"&[#\w]+;|[!-/:-@\[-`{-~]", lambda m: m[0] if len(m[0]) > 1 else f"&#{ord(m[0])};", text)

    mathml = re.sub(r">([^<]*)<", lambda m: f">{entities(m[1])}<", mathml.replace("\n", " "))
    source = entities(html.escape(" ".join(tex.split()), quote=True))
    return mathml.replace("<math", f'<math data-tex="{source}"', 1)
