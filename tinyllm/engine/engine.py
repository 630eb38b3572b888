"""The engine: takes requests at any time and moves all of them forward one step at a time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

import torch

from tinyllm.config import EngineConfig, ModelConfig
from tinyllm.engine.attention import AttentionBackend
from tinyllm.engine.attention_triton import attention_backend
from tinyllm.engine.bookkeeping import note_scheduling, occupancy
from tinyllm.engine.cuda_graphs import decode_graphs
from tinyllm.engine.guard import EngineGuard
from tinyllm.engine.intake import Intake
from tinyllm.engine.metrics import EngineStats, StepRecord
from tinyllm.engine.model_runner import ModelRunner, Runner
from tinyllm.engine.outbox import Outbox
from tinyllm.engine.request import FinishReason, OutputDelta, Request, RequestOutput
from tinyllm.engine.sampler import Sampled, sample
from tinyllm.engine.scheduler import ScheduledRequest, Scheduler
from tinyllm.engine.step_log import StepLog
from tinyllm.errors import GenerationError, PartError, RequestError
from tinyllm.kv_cache.manager import KVCacheManager
from tinyllm.model.qwen3 import Qwen3ForCausalLM
from tinyllm.model.tokenizer import Tokenizer
from tinyllm.parts import Parts
from tinyllm.recorded import name_failing_part
from tinyllm.sampling_params import SamplingParams


class LLMEngine:
    """Requests in, finished outputs out; between them a scheduler, a KV pool, a model and a sampler.

    Threads may share it: a call waits while another thread's goes on. EngineBusyError refuses calls beside an
    `AsyncEngine`, which has the engine for as long as it lives, and calls from a function that a step calls. `abort`
    works at any time and from anywhere.

    Attributes:
        kv: the pool, for pictures of it.
        step_log: a record of each step.
        guard: who has the engine, for callers that need it for more than one call.
        outbox: what the steps have finished.
    """

    def __init__(
        self,
        model: Qwen3ForCausalLM,
        tokenizer: Tokenizer,
        config: EngineConfig,
        parts: Parts,
        backend: AttentionBackend | None = None,
        runner: Runner | None = None,
    ) -> None:
        """Reserve the whole pool now.

        Args:
            model: its dtype and device are those of the pool too.
            parts: what the pool is made of; see `tinyllm.parts.resolve`.
            backend: an attention backend of your own; the one that `config.attention_backend` names by default.
            runner: replaces the model's own, for studies that need no logits.

        Raises:
            KernelsUnavailable: the config asks for Triton, which cannot run on the model's device.
            NativeUnavailable: the config asks for the C kernel, which cannot be compiled.
            OptionError: it asks for the C kernel with a device or dtype that this does not take.
        """
        self.model_config: ModelConfig = model.config
        self.tokenizer = tokenizer
        self.config = config
        weight = model.embed_tokens.weight
        backend = backend or attention_backend(config.attention_backend, weight.device, parts, weight.dtype)
        with name_failing_part():
            self.kv = KVCacheManager(model.config, config.cache, parts, weight.dtype, weight.device)
        self.intake = Intake(tokenizer, model.config, config)
        self.scheduler: Scheduler = parts["Scheduler"](config, self.kv)
        self.runner = runner or self._model_runner(model, backend)
        self.step_log = StepLog()
        self.guard = EngineGuard()
        self.outbox = Outbox()
        self._groups: dict[str, list[Request]] = {}
        self._aborted: deque[str] = deque()  # names given to `abort` while a call went on

    @property
    def max_model_len(self) -> int:
        """Longest prompt plus output, in tokens; see `Intake.max_model_len`."""
        return self.intake.max_model_len

    @property
    def has_unfinished(self) -> bool:
        """Whether a call of `step` has anything to do, or anything to hand out."""
        return self.scheduler.has_unfinished or not self.outbox.is_empty

    @property
    def step_records(self) -> list[StepRecord]:
        """The newest records, one for each step, oldest first; `step_log.keep_all` gives all of them."""
        return list(self.step_log.recent)

    def stats(self) -> EngineStats:
        """How much there is to do and how full the pool is. Any thread may ask, at any time, and waits for nobody.

        It is of one moment between two steps; during a step, of what that has done so far.
        """
        return EngineStats(
            num_running=len(self.scheduler.running),
            num_waiting=len(self.scheduler.waiting),
            num_blocks=self.kv.num_blocks,
            num_table_blocks=self.kv.num_blocks_in_tables,
            num_cached_blocks=self.kv.num_cached_blocks,
            num_steps=self.step_log.num_steps,
            num_admitted_tokens=self.step_log.num_admitted_tokens,
            num_prefix_tokens_hit=self.step_log.num_prefix_tokens_hit,
            num_preempted=self.step_log.num_preempted,
        )

    def add_request(
        self,
        prompt: str | Sequence[int],
        params: SamplingParams | None = None,
        request_id: str | None = None,
        on_delta: Callable[[OutputDelta], None] | None = None,
    ) -> str:
        """Queue a request; it starts in one of the next steps.

        Args:
            prompt: text, or token ids.
            params: how to sample; greedy by default.
            request_id: a name of your own; one is made up without it.
            on_delta: called at the end of each step with what it added to each of the continuations.

        Returns:
            The request's name.

        Raises:
            RequestError: the prompt is empty or too long, it or the parameters hold unknown tokens, or the name is
                taken.
            EngineBusyError: the engine belongs to an `AsyncEngine`, or a step is calling.
        """
        request = self.intake.make(prompt, params, request_id, on_delta)
        with self.guard.call():
            if request.group_id in self._groups:
                raise RequestError(f"a request called {request.group_id!r} is already here")
            self.scheduler.add(request)
            self._groups[request.group_id] = [request]
        return request.group_id

    def abort(self, request_id: str) -> None:
        """End a request, from any thread and from inside a step too; unknown or finished names are ignored.

        Between two steps it is dropped at once. While a call goes on (a step, or `LLM.generate`, which may wait for
        this very request) it ends with the next or the current step: its listener and whoever fetches its output get
        what it has so far, with the finish reason `ABORT`.
        """
        with self.guard.call_if_free() as free:
            if free:
                self.drop(request_id)
            else:
                self._aborted.append(request_id)

    def drop(self, request_id: str) -> None:
        """Forget a request and free its blocks; nobody is told."""
        with self.guard.call():
            for request in self._groups.pop(request_id, []):
                if request.finish_reason is None:
                    self.scheduler.finish(request)

    def step(self) -> list[RequestOutput]:
        """Compute one batch and give every request that is up to date its next token.

        Returns:
            The requests that finished in this step, and those that finished before and were not handed out.

        Raises:
            PartError: a learner's part failed; the message names it.
            EngineBusyError: the engine belongs to an `AsyncEngine`, or another step is calling.
            BaseException: what a listener (`on_delta`) raised; of several, a BaseExceptionGroup. All others have been
                called then, and the next step hands out what finished in this one.
        """
        with self.guard.call():  # until all is handed out: what others finish in the meantime is not ours
            self.advance()
            return self.outbox.fetch()

    @torch.inference_mode()
    def advance(self) -> None:
        """Do a step's work. What finishes, and what listeners raise, waits in `outbox`."""
        with self.guard.step():
            self._end_aborted()
            if self.scheduler.has_unfinished:
                self._step()
            self.outbox.deliver()  # when all is done: a listener must find the engine in order
            while self._aborted:  # by a listener
                self._end_aborted()
                self.outbox.deliver()

    # ------------------------------------------------------------ inside

    def _step(self) -> None:
        """Schedule, compute, and write down what the step was."""
        start = time.perf_counter()
        admitted, hit = self.kv.num_admitted_tokens, self.kv.num_prefix_tokens_hit
        with name_failing_part():
            scheduled, preempted = self.scheduler.schedule()
            if not scheduled and not preempted:
                raise PartError(
                    f"nothing runs, and {self.kv.num_free} of {self.kv.num_blocks} blocks can be had: either the "
                    "Scheduler starts nobody, or one of BlockAllocator, BlockTable.release, CopyOnWrite and "
                    "PrefixCache.evict has lost blocks"
                )
            note_scheduling(scheduled, preempted, start)
            occupied = occupancy(self.kv, self.scheduler, scheduled)
            if scheduled:
                self._compute(scheduled)
        self.step_log.add(
            StepRecord(
                step=self.step_log.num_steps,
                start=start,
                end=time.perf_counter(),
                num_preempted=len(preempted),
                num_admitted_tokens=self.kv.num_admitted_tokens - admitted,
                num_prefix_tokens_hit=self.kv.num_prefix_tokens_hit - hit,
                **occupied,
            )
        )

    def _model_runner(self, model: Qwen3ForCausalLM, backend: AttentionBackend) -> ModelRunner:
        """The model's own runner, with CUDA graphs as large as a step can be."""
        graphs = None
        if not self.config.enforce_eager:
            max_batch = min(self.config.max_num_seqs, self.config.max_num_batched_tokens)
            max_blocks = -(-self.max_model_len // self.config.cache.block_size)
            graphs = decode_graphs(model, self.kv, backend, max_batch, max_blocks)
        return ModelRunner(model, self.kv, backend, graphs)

    def _compute(self, scheduled: Sequence[ScheduledRequest]) -> None:
        """Run the model, note what is computed, sample, and put what is new and what is finished in the outbox."""
        logits = self.runner.execute(scheduled)
        sampling: list[Request] = []
        rows: list[int] = []
        for item in scheduled:
            ready = item.finishes_known_tokens
            item.request.num_computed_tokens += item.num_known_tokens
            if not ready:
                continue
            row = rows[-1] + 1 if rows else 0
            group = [item.request]
            if item.request.num_output_tokens == 0:
                group += self._fork_siblings(item.request)
            sampling += group
            rows += [row] * len(group)
        results = sample(logits[rows], sampling) if sampling else []
        now = time.perf_counter()
        for request, result in zip(sampling, results, strict=True):
            if isinstance(result, GenerationError):
                request.finish_reason, request.error = FinishReason.ERROR, str(result)
            else:
                self._accept(request, result, now)
            if request.finish_reason is not None:
                self._finish_text(request)
            self.outbox.tell(request, result if isinstance(result, Sampled) else None)
            if request.finish_reason is not None:
                self._finish(request)

    def _fork_siblings(self, request: Request) -> list[Request]:
        """Start the other continuations of a prompt that has just been computed; they share its blocks."""
        siblings = [self.intake.make_sibling(request, i) for i in range(1, request.num_siblings_to_fork + 1)]
        request.num_siblings_to_fork = 0
        self._groups[request.group_id] += siblings
        self.scheduler.fork(request, siblings)
        return siblings

    def _accept(self, request: Request, sampled: Sampled, now: float) -> None:
        """Append a new token and decide whether the request ends with it."""
        if request.num_output_tokens == 0 and request.index == 0:
            self.kv.cache_blocks(request.request_id, request.token_ids)  # the prompt, as its logits are known good
        request.token_ids.append(sampled.token_id)
        request.draft_token_ids = []
        request.metrics.token_times.append(now)
        if sampled.logprobs:
            request.logprobs.append(sampled.logprobs)
        params = request.params
        if sampled.token_id in request.end_token_ids:
            request.finish_reason = FinishReason.STOP
            return
        if request.num_output_tokens >= params.max_tokens or len(request.token_ids) >= self.max_model_len:
            request.finish_reason = FinishReason.LENGTH
        request.text.push(sampled.token_id)
        if params.stop or request.on_delta:  # else one decode at the end is enough
            request.text.update(may_stop=request.num_output_tokens > params.min_tokens)
            if request.text.stopped:
                request.finish_reason = FinishReason.STOP

    def _finish_text(self, request: Request) -> None:
        """Complete the text; what was kept back of it may hold a stop string that comes before any other end."""
        ended = request.finish_reason is not FinishReason.ERROR
        request.text.finish(may_stop=ended and request.num_output_tokens > request.params.min_tokens)
        if request.text.stopped:
            request.finish_reason = FinishReason.STOP

    def _finish(self, request: Request) -> None:
        """Free a finished request's blocks; with the last member of its group the output is complete."""
        if not request.error:  # nobody else may meet the K and V of a request that failed
            self.kv.cache_blocks(request.request_id, request.token_ids[: request.num_computed_tokens])
        self.scheduler.finish(request)
        group = self._groups[request.group_id]
        if all(member.finish_reason is not None for member in group):
            del self._groups[request.group_id]
            self.outbox.finish(group)

    def _end_aborted(self) -> None:
        """Finish the requests that `abort` was called for since the last time, with what they have."""
        while self._aborted:
            group = self._groups.pop(self._aborted.popleft(), [])
            open_members = [request for request in group if request.finish_reason is None]
            with name_failing_part():
                for request in open_members:
                    self.scheduler.finish(request)
            if group and group[0].num_siblings_to_fork:  # they never began, but are told of all the same
                siblings = [self.intake.make_sibling(group[0], i) for i in range(1, group[0].params.n)]
                group, open_members = group + siblings, open_members + siblings
            for request in open_members:
                request.finish_reason = FinishReason.ABORT
                request.text.finish(may_stop=False)
                self.outbox.tell(request, None)
            if group:
                self.outbox.finish(group)
