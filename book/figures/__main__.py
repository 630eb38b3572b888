"""Draws every figure of the book into a folder: `python -m book.figures book/build/figures`."""

from __future__ import annotations

import pkgutil
import sys
from importlib import import_module
from pathlib import Path

from tqdm import tqdm

import book.figures
from book.figures.style import FIGURES, svg


def load_all() -> None:
    """Import every module of figures, which registers what it draws."""
    for module in pkgutil.iter_modules(book.figures.__path__):
        if not module.name.startswith("_"):
            import_module(f"book.figures.{module.name}")


def main(folder: str) -> None:
    """Draw all figures; files that are already right are left alone, those of no figure are removed."""
    load_all()
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    for name, draw in tqdm(FIGURES.items(), desc="figures", file=sys.stdout):
        file, text = out / f"{name}.svg", svg(draw)
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")
    for stale in out.glob("*.svg"):
        if stale.stem not in FIGURES:
            stale.unlink()


if __name__ == "__main__":
    main(sys.argv[1])
