"""The engine for many callers at once: each reads its own stream while one thread moves all requests forward."""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Self

from tinyllm.engine.engine import LLMEngine
from tinyllm.engine.input_processor import as_params
from tinyllm.engine.request import OutputDelta
from tinyllm.errors import EngineStoppedError, GenerationError, OptionError
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

    Only that thread touches the engine; it refuses others, `LLM.generate` too. Callers leave notes in an inbox, which
    the thread reads between two steps: so a request may come or go at any time, from any number of event loops.

        async with AsyncEngine(llm.engine) as engine:
            async for delta in engine.generate("Once upon a time"):
                print(delta.text, end="")
    """

    def __init__(self, engine: LLMEngine) -> None:
        """Start the thread; end it with `shutdown`, or use the object in `async with`.

        Raises:
            EngineBusyError: the engine is in use, or belongs to another AsyncEngine.
            OptionError: its model is spread over several processes.
        """
        if engine.config.parallel.world_size > 1:
            raise OptionError(
                "an AsyncEngine takes requests as they come, and the other processes that share the model would not "
                "hear of them; use LLM.generate, or load the model in one process"
            )
        self.engine = engine
        self._inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._stopping = False  # seen by the thread only, like the next one
        self._request_ids: set[str] = set()  # in the engine, for streams
        self._lock = threading.Lock()  # for the two below
        self._streams: set[Stream] = set()
        self._ended: Callable[[], EngineStoppedError] | None = None
        self._thread = threading.Thread(target=self._work, name="tinyllm-engine", daemon=True)
        engine.guard.keep(self._thread)
        try:
            self._thread.start()
        except BaseException:
            engine.guard.release()
            raise
        # A daemon thread that still computes while the interpreter goes away takes the process down with SIGABRT.
        atexit.register(self._stop_and_join)

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
        params = as_params(params)
        stream = Stream(asyncio.get_running_loop())
        with self._lock:
            if self._ended:
                raise self._ended()
            self._streams.add(stream)
        num_open = params.n
        try:
            self._inbox.put(partial(self._start, stream, prompt, params))
            while num_open:
                event = await stream.events.get()
                if isinstance(event, Exception):
                    raise event
                if event.error:
                    raise GenerationError(event.error)
                num_open -= event.finish_reason is not None
                yield event
        finally:
            self._forget(stream)
            if num_open:
                self._inbox.put(partial(self._drop, stream))

    async def shutdown(self) -> None:
        """End the thread after its current step. Open streams raise EngineStoppedError; the engine is free then."""
        await asyncio.to_thread(self._stop_and_join)
        atexit.unregister(self._stop_and_join)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.shutdown()

    def _stop_and_join(self) -> None:
        self._inbox.put(self._stop)
        self._thread.join()

    def _forget(self, stream: Stream) -> None:
        with self._lock:
            self._streams.discard(stream)

    # ------------------------------------------------------------ in the engine's thread

    def _work(self) -> None:
        """Step the engine while it has requests, and read the inbox between steps."""
        cause: BaseException | None = None
        try:
            while not self._stopping:
                if self.engine.scheduler.has_unfinished:
                    self.engine.advance()
                    finished = self.engine.outbox.pick(self._request_ids)  # streams have had it all as deltas
                    self._request_ids -= {output.request_id for output in finished}
                else:
                    self._inbox.get()()  # nothing to do before someone writes
                self._read_inbox()
        except BaseException as error:  # whatever it is, nobody may wait for ever
            cause = error
        try:
            self._end_streams(cause)
        finally:
            self.engine.guard.release()

    def _end_streams(self, cause: BaseException | None) -> None:
        """Tell all callers, those to come too, that and why it is over, and leave the engine without their requests."""
        with self._lock:
            self._ended = partial(stopped, cause)
            streams, self._streams = self._streams, set()
        for stream in streams:
            stream.put(stopped(cause))
        self.engine.outbox.pick(self._request_ids)
        for request_id in self._request_ids:
            with suppress(Exception):  # what broke a step may break this too
                self.engine.drop(request_id)

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
                self._forget(stream)
                self.engine.abort(delta.request_id)

        try:
            stream.request_id = self.engine.add_request(prompt, params, on_delta=deliver)
            self._request_ids.add(stream.request_id)
        except Exception as error:  # whatever a bad request leads to is its own caller's affair
            stream.put(error)

    def _drop(self, stream: Stream) -> None:
        self._request_ids.discard(stream.request_id)
        self.engine.drop(stream.request_id)

    def _stop(self) -> None:
        self._stopping = True


def stopped(cause: BaseException | None) -> EngineStoppedError:
    """The error that ends a stream, with what broke the engine's thread as its cause."""
    if cause is None:
        return EngineStoppedError("the engine was shut down")
    error = EngineStoppedError(f"the engine failed in a step: {type(cause).__name__}: {cause}")
    error.__cause__ = cause
    return error
