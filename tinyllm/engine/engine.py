"""The engine: takes requests at any time and moves all of them forward one step at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

import torch

from tinyllm.config import EngineConfig, ModelConfig
from tinyllm.engine.attention import AttentionBackend
from tinyllm.engine.attention_triton import attention_backend
from tinyllm.engine.cuda_graphs import decode_graphs
from tinyllm.engine.intake import Intake
from tinyllm.engine.metrics import StepRecord
from tinyllm.engine.model_runner import ModelRunner, Runner
from tinyllm.engine.request import CompletionOutput, FinishReason, OutputDelta, Request, RequestOutput
from tinyllm.engine.sampler import Sampled, sample
from tinyllm.engine.scheduler import ScheduledRequest, Scheduler
from tinyllm.errors import GenerationError, PartError, RequestError
from tinyllm.kv_cache.manager import KVCacheManager
from tinyllm.model.qwen3 import Qwen3ForCausalLM
from tinyllm.model.tokenizer import Tokenizer
from tinyllm.parts import Parts
from tinyllm.recorded import name_failing_part
from tinyllm.sampling_params import SamplingParams


class LLMEngine:
    """Requests in, finished outputs out; between them a scheduler, a KV pool, a model and a sampler.

    Attributes:
        kv: the pool, for pictures of it.
        step_records: one record for each step so far.
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
            self.kv = KVCacheManager(model.config, config, parts, weight.dtype, weight.device)
        self.intake = Intake(tokenizer, model.config, config)
        self.scheduler: Scheduler = parts["Scheduler"](config, self.kv)
        self.runner = runner or self._model_runner(model, backend)
        self.step_records: list[StepRecord] = []
        self._groups: dict[str, list[Request]] = {}
        self._deltas: list[tuple[Callable[[OutputDelta], None], OutputDelta]] = []

    @property
    def max_model_len(self) -> int:
        """Longest prompt plus output, in tokens; see `Intake.max_model_len`."""
        return self.intake.max_model_len

    @property
    def has_unfinished(self) -> bool:
        """Whether a call of `step` has anything to do."""
        return self.scheduler.has_unfinished

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
        """
        request = self.intake.make(prompt, params, request_id, on_delta)
        if request.group_id in self._groups:
            raise RequestError(f"a request called {request.group_id!r} is already here")
        self._groups[request.group_id] = [request]
        self.scheduler.add(request)
        return request.group_id

    def abort(self, request_id: str) -> None:
        """Drop a request at any time and free its blocks; unknown or finished names are ignored."""
        for request in self._groups.pop(request_id, []):
            if request.finish_reason is None:
                self.scheduler.finish(request)

    @torch.inference_mode()
    def step(self) -> list[RequestOutput]:
        """Compute one batch and give every request that is up to date its next token.

        Returns:
            The requests that finished in this step.

        Raises:
            PartError: a learner's part failed; the message names it.
        """
        if not self.has_unfinished:
            return []
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
            occupied = self._occupancy(scheduled)
            finished = self._compute(scheduled) if scheduled else []
        self.step_records.append(
            StepRecord(
                step=len(self.step_records),
                start=start,
                end=time.perf_counter(),
                num_preempted=len(preempted),
                num_admitted_tokens=self.kv.num_admitted_tokens - admitted,
                num_prefix_tokens_hit=self.kv.num_prefix_tokens_hit - hit,
                **occupied,
            )
        )
        deltas, self._deltas = self._deltas, []
        for deliver, delta in deltas:  # at the end: a listener that raises must find the engine in order
            deliver(delta)
        return finished

    # ------------------------------------------------------------ inside

    def _model_runner(self, model: Qwen3ForCausalLM, backend: AttentionBackend) -> ModelRunner:
        """The model's own runner, with CUDA graphs as large as a step can be."""
        graphs = None
        if not self.config.enforce_eager:
            max_batch = min(self.config.max_num_seqs, self.config.max_num_batched_tokens)
            max_blocks = -(-self.max_model_len // self.config.block_size)
            graphs = decode_graphs(model, self.kv, backend, max_batch, max_blocks)
        return ModelRunner(model, self.kv, backend, graphs)

    def _compute(self, scheduled: Sequence[ScheduledRequest]) -> list[RequestOutput]:
        """Run the model, note what is computed, sample, and collect what is finished."""
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
        finished = []
        for request, result in zip(sampling, results, strict=True):
            if isinstance(result, GenerationError):
                request.finish_reason, request.error = FinishReason.ERROR, str(result)
            else:
                self._accept(request, result, now)
            if request.finish_reason is not None:
                request.text.finish()
            if request.on_delta:
                self._deltas.append((request.on_delta, make_delta(request, result)))
            if request.finish_reason is not None and (output := self._finish(request)):
                finished.append(output)
        return finished

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
            self.kv.remember(request.request_id, request.token_ids)  # the prompt, now that its logits are known good
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

    def _finish(self, request: Request) -> RequestOutput | None:
        """Free a finished request's blocks; returns the whole group's output once its last member is done."""
        if not request.error:  # nobody else may meet the K and V of a request that failed
            self.kv.remember(request.request_id, request.token_ids[: request.num_computed_tokens])
        self.scheduler.finish(request)
        group = self._groups[request.group_id]
        if any(member.finish_reason is None for member in group):
            return None
        del self._groups[request.group_id]
        outputs = tuple(
            CompletionOutput(
                index=m.index,
                text=m.text.text,
                token_ids=tuple(m.output_token_ids),
                finish_reason=m.finish_reason,
                metrics=m.metrics,
                logprobs=None if m.params.logprobs is None else tuple(m.logprobs),
                error=m.error,
            )
            for m in group
            if m.finish_reason is not None
        )
        prompt = tuple(request.token_ids[: request.num_prompt_tokens])
        return RequestOutput(request.group_id, prompt, outputs)

    def _occupancy(self, scheduled: Sequence[ScheduledRequest]) -> dict[str, int]:
        """The part of a step record that is known once the step is scheduled."""
        sizes = [item.num_tokens for item in scheduled]
        tables = [self.kv.table(request.request_id) for request in self.scheduler.running]
        lens = [table.num_tokens for table in tables]
        return {
            "num_prefill_tokens": sum(size for size in sizes if size > 1),
            "num_decode_tokens": sum(size == 1 for size in sizes),
            "num_running": len(self.scheduler.running),
            "num_waiting": len(self.scheduler.waiting),
            "num_free_blocks": self.kv.num_free,
            "num_table_blocks": self.kv.num_blocks_in_tables,
            "num_block_references": self.kv.num_block_references,
            "num_cached_tokens": sum(lens),
            "num_wasted_slots": sum(-length % self.config.block_size for length in lens),
        }


def note_scheduling(scheduled: Iterable[ScheduledRequest], preempted: Iterable[Request], now: float) -> None:
    """Write down in the requests' metrics what a step's schedule means to them."""
    for item in scheduled:
        metrics = item.request.metrics
        if metrics.first_scheduled is None:
            metrics.first_scheduled = now
            metrics.num_prefix_tokens_hit = item.request.num_computed_tokens
    for request in preempted:
        request.metrics.num_preemptions += 1


def make_delta(request: Request, result: Sampled | GenerationError) -> OutputDelta:
    """What a step added to a request, once the result is in its text."""
    sampled = result if isinstance(result, Sampled) else None
    reports = (sampled.logprobs,) if sampled and sampled.logprobs else ()
    return OutputDelta(
        request_id=request.group_id,
        index=request.index,
        text=request.text.take(),
        token_ids=(sampled.token_id,) if sampled else (),
        metrics=request.metrics,
        logprobs=None if request.params.logprobs is None else reports,
        finish_reason=request.finish_reason,
        error=request.error,
    )
