"""tinyllm: a small LLM serving engine, and the parts of it that the course's learners rebuild."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinyllm.config import CacheConfig, EngineConfig, ModelConfig, SamplingParams
    from tinyllm.engine.async_engine import AsyncEngine
    from tinyllm.engine.llm import LLM
    from tinyllm.parts import use

__all__ = ["LLM", "AsyncEngine", "CacheConfig", "EngineConfig", "ModelConfig", "SamplingParams", "use"]

#: Where each public name lives. They are imported on first use, so that the command line need not wait for torch.
_HOME = {
    "LLM": "tinyllm.engine.llm",
    "AsyncEngine": "tinyllm.engine.async_engine",
    "CacheConfig": "tinyllm.config",
    "EngineConfig": "tinyllm.config",
    "ModelConfig": "tinyllm.config",
    "SamplingParams": "tinyllm.config",
    "use": "tinyllm.parts",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
