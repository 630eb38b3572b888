"""The engine for many callers at once: each reads its own stream while one thread moves all requests forward."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Self

from tinyllm.engine.engine import LLMEngine
from tinyllm.engine.request import OutputDelta
from tinyllm.errors import EngineStoppedError, GenerationError
from tinyllm.sampling_params import SamplingParams


@dataclass(slots=True, eq=False)
class Stream:
    """What one caller waits on. The engine's thread puts events in, the caller's event loop takes them out.

    Attributes:
        loop: the caller's event loop.
        events: deltas, or the error that ends the stream.
        request_id: the request's name in the engine, once it is there; known to the engine's thread only.
    """

    loop: asyncio.AbstractEventLoop
    events: asyncio.Queue[OutputDelta | Exception] = field(default_factory=asyncio.Queue)
    request_id: str = ""

    def put(self, event: OutputDelta | Exception) -> bool:
        """Hand an event to the caller's loop from another thread; False when that loop has ended."""
        try:
            self.loop.call_soon_threadsafe(self.events.put_nowait, event)
        except RuntimeError:
            return False
        return True


class AsyncEngine:
    """Streams over one `LLMEngine`, which belongs to a thread of this object until `shutdown`.

    Only that thread touches the engine. Callers leave it notes in an inbox, which it reads between two steps: so a
    request may come or go at any time, and none needs a lock around the engine.

        async with AsyncEngine(llm.engine) as engine:
            async for delta in engine.generate("Once upon a time"):
                print(delta.text, end="")
    """

    def __init__(self, engine: LLMEngine) -> None:
        """Start the thread; end it with `shutdown`, or use the object in `async with`."""
        self.engine = engine
        self._inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._stopping = False  # seen by the thread only
        self._lock = threading.Lock()  # for the two below
        self._streams: set[Stream] = set()
        self._ended: EngineStoppedError | None = None
        self._thread = threading.Thread(target=self._work, name="tinyllm-engine", daemon=True)
        self._thread.start()

    async def generate(
        self, prompt: str | Sequence[int], params: SamplingParams | None = None
    ) -> AsyncGenerator[OutputDelta, None]:
        """Continue a prompt, and yield what each step adds; with n > 1 the continuations come mixed, by `index`.

        A caller that is cancelled or stops reading gives the request up: its blocks return to the pool.

        Raises:
            RequestError: the request can never be served.
            GenerationError: it failed while it ran.
            EngineStoppedError: the engine failed or was shut down.
        """
        params = params or SamplingParams()
        stream = Stream(asyncio.get_running_loop())
        with self._lock:
            if self._ended:
                raise self._ended
            self._streams.add(stream)
        self._inbox.put(partial(self._start, stream, prompt, params))
        num_open = params.n
        try:
            while num_open:
                event = await stream.events.get()
                if isinstance(event, Exception):
                    raise event
                if event.error:
                    raise GenerationError(event.error)
                num_open -= event.finish_reason is not None
                yield event
        finally:
            with self._lock:
                self._streams.discard(stream)
            if num_open:
                self._inbox.put(partial(self._abort, stream))

    async def shutdown(self) -> None:
        """End the thread after its current step. Open streams raise EngineStoppedError; the engine is idle then."""
        self._inbox.put(self._stop)
        await asyncio.to_thread(self._thread.join)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.shutdown()

    # ------------------------------------------------------------ in the engine's thread

    def _work(self) -> None:
        """Step the engine while it has requests, and read the inbox between steps."""
        try:
            while not self._stopping:
                if self.engine.has_unfinished:
                    self.engine.step()
                else:
                    self._inbox.get()()  # nothing to do before someone writes
                self._read_inbox()
            reason = EngineStoppedError("the engine was shut down")
        except Exception as error:
            reason = EngineStoppedError(f"the engine failed in a step: {type(error).__name__}: {error}")
            reason.__cause__ = error
        with self._lock:
            self._ended = reason
            streams = list(self._streams)
        for stream in streams:
            stream.put(reason)
            self._abort(stream)

    def _read_inbox(self) -> None:
        """Do all that was asked for since the last step."""
        try:
            while True:
                self._inbox.get_nowait()()
        except Empty:
            return

    def _start(self, stream: Stream, prompt: str | Sequence[int], params: SamplingParams) -> None:
        def deliver(delta: OutputDelta) -> None:
            if not stream.put(delta):
                self.engine.abort(delta.request_id)

        try:
            stream.request_id = self.engine.add_request(prompt, params, on_delta=deliver)
        except Exception as error:  # whatever a bad request leads to is its own caller's affair
            stream.put(error)

    def _abort(self, stream: Stream) -> None:
        self.engine.abort(stream.request_id)

    def _stop(self) -> None:
        self._stopping = True
