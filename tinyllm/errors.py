"""The errors this package raises on purpose. Each says what was wrong and what to do."""


class TinyLLMError(Exception):
    """Base of every error that `tinyllm` raises on purpose."""


class CheckpointError(TinyLLMError):
    """A checkpoint folder is missing, damaged, or of an architecture that is not supported."""


class OptionError(TinyLLMError, ValueError):
    """An option of the engine has a value that nobody knows, or one that cannot be had on this machine."""


class UnknownOptionError(OptionError, TypeError):
    """An option of a name that the engine does not have."""


class RequestError(TinyLLMError, ValueError):
    """A request can never be served: an empty prompt, one longer than the pool, a parameter out of range."""


class GenerationError(TinyLLMError):
    """A request failed while it ran: its logits hold NaN, or its mask leaves no token. Others are not affected."""


class EngineStoppedError(TinyLLMError):
    """The engine behind a stream failed or was shut down; the cause, where there is one, is attached."""


class EngineBusyError(TinyLLMError):
    """The engine is in use elsewhere, or in the middle of the step that called; nothing was started."""


class RankLostError(TinyLLMError):
    """Another process that holds a part of the model is gone or has stalled; the message names it."""


class WorkspaceError(TinyLLMError):
    """A learner's notebook, answer or recorded part is missing or cannot be read."""


class UnknownNameError(WorkspaceError, ValueError):
    """Nobody knows a day, an exercise or a part of this name. The message lists those that there are."""


class PartError(TinyLLMError):
    """A learner's part failed inside the engine. The message names the part and the line."""
