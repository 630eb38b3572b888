"""The engine: takes requests at any time and moves all of them forward one step at a time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from secrets import randbits

import torch

from tinyllm.attention.base import AttentionBackend
from tinyllm.attention.registry import attention_backend
from tinyllm.config import EngineConfig, ModelConfig
from tinyllm.engine.acceptance import accept, finish_text
from tinyllm.engine.bookkeeping import note_scheduling, plan_in_numbers
from tinyllm.engine.guard import EngineGuard
from tinyllm.engine.input_processor import InputProcessor
from tinyllm.engine.metrics import EngineStats, StepRecord
from tinyllm.engine.model_runner import ModelRunner, Runner, decode_graphs
from tinyllm.engine.outbox import Outbox
from tinyllm.engine.rank_runner import RankRunner
from tinyllm.engine.request import FinishReason, OutputDelta, Request, RequestOutput
from tinyllm.engine.sampler import Sampled
from tinyllm.engine.scheduler import Scheduler, count_computed, roll_back
from tinyllm.engine.scheduler_output import ScheduledRequest, SchedulerOutput
from tinyllm.engine.speculation import ExactVerifier, NoProposer, Proposer, Verifier, verify_step
from tinyllm.engine.step_log import StepLog
from tinyllm.errors import PartError, RequestError
from tinyllm.experts.backends import experts_backend
from tinyllm.experts.base import RunExperts
from tinyllm.experts.recording import RecordedExperts
from tinyllm.kv_cache.manager import KVCacheManager
from tinyllm.model.qwen3 import Qwen3ForCausalLM
from tinyllm.model.tokenizer import Tokenizer
from tinyllm.parallel.ranks import Ranks
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
        experts: RunExperts | None = None,
        proposer: Proposer | None = None,
        verifier: Verifier | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        """Reserve the whole pool now.

        Args:
            model: its dtype and device are those of the pool too.
            parts: what pool, attention, experts and scheduler are made of; see `tinyllm.parts.resolve`.
            backend: an attention backend of your own; the one that `config.attention_backend` names by default.
            runner: replaces the model's own, for studies that need no logits.
            experts: runs the experts of sparse layers; what `config.experts_backend` names by default.
            proposer: guesses tokens ahead; nothing by default.
            verifier: decides which guesses stay; by default those that sampling gives too.
            ranks: the processes that `model` is a part on, each with an engine like this one and the same requests.

        Raises:
            KernelsUnavailable: the config asks for Triton, which cannot run on the model's device.
            NativeUnavailable: the config asks for a C kernel, which cannot be compiled.
            OptionError: it asks for a C kernel with a device or dtype that this does not take.
        """
        self.model_config: ModelConfig = model.config
        self.tokenizer = tokenizer
        self.config = config
        weight = model.embed_tokens.weight
        backend = backend or attention_backend(config.attention_backend, weight.device, parts, weight.dtype)
        expert_parallel = config.parallel.expert_parallel_size > 1
        draw_seed = ranks.random.getrandbits if ranks else randbits
        experts = experts or experts_backend(
            config.experts_backend, weight.device, parts, ranks, expert_parallel, weight.dtype
        )
        self._recorded_experts = RecordedExperts(experts, parts["topk_router"]) if config.record_experts else None
        with name_failing_part():
            self.kv = KVCacheManager(model.config, config.cache, parts, weight.dtype, weight.device)
        self.input_processor = InputProcessor(tokenizer, model.config, config, draw_seed)
        self.scheduler: Scheduler = parts["Scheduler"](config, self.kv)
        self.proposer = proposer or NoProposer()
        self.verifier = verifier or ExactVerifier()
        self.runner = runner or self._model_runner(model, backend, self._recorded_experts or experts, ranks)
        self.step_log = StepLog()
        self.guard = EngineGuard()
        self.outbox = Outbox()
        self._groups: dict[str, list[Request]] = {}
        self._aborted: deque[str] = deque()  # names given to `abort` while a call went on

    @property
    def max_model_len(self) -> int:
        """Longest prompt plus output, in tokens; see `InputProcessor.max_model_len`."""
        return self.input_processor.max_model_len

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
        request = self.input_processor.make(prompt, params, request_id, on_delta)
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
        with name_failing_part(), self._all_or_nothing():
            output = self.scheduler.schedule()
            if not output.scheduled and not output.preempted:
                raise PartError(
                    f"nothing runs, and {self.kv.num_free} of {self.kv.num_blocks} blocks can be had: either the "
                    "Scheduler starts nobody, or one of BlockAllocator, BlockTable.release, CopyOnWrite and "
                    "PrefixCache.evict has lost blocks"
                )
            note_scheduling(output, start)
            plan = plan_in_numbers(self.kv, self.scheduler, output)
            if output.scheduled:
                self._compute(output)
        loads = self._recorded_experts.take() if self._recorded_experts and output.scheduled else ()
        self.step_log.add(
            StepRecord(step=self.step_log.num_steps, start=start, end=time.perf_counter(), experts=loads, **plan)
        )

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Let a step that breaks off leave no slot in a table whose token is not counted as computed."""
        try:
            yield
        except BaseException:
            with suppress(Exception):  # of a broken part: what broke the step is what must be told
                roll_back(self.kv, self.scheduler.running)
            raise

    def _model_runner(
        self, model: Qwen3ForCausalLM, backend: AttentionBackend, experts: RunExperts, ranks: Ranks | None
    ) -> ModelRunner:
        """The model's own runner, with CUDA graphs as large as a step can be."""
        if ranks is not None:
            tensor_parallel = self.config.parallel.tensor_parallel_size > 1
            block_size = self.config.cache.block_size
            return RankRunner(model, self.kv.storage, block_size, backend, experts, ranks, tensor_parallel)
        runner = ModelRunner(model, self.kv.storage, self.config.cache.block_size, backend, experts)
        if not self.config.enforce_eager:
            max_batch = min(self.config.max_num_seqs, self.config.max_num_batched_tokens)
            max_blocks = -(-self.max_model_len // self.config.cache.block_size)
            runner.graphs = decode_graphs(runner, max_batch, max_blocks, 1 + self.proposer.max_draft_tokens)
        return runner

    def _compute(self, output: SchedulerOutput) -> None:
        """Run the model, decide on the new tokens, hand them to their requests, and ask for the next drafts."""
        logits = self.runner.execute(output.scheduled)
        groups = [self._with_siblings(item) for item in output.scheduled]
        results = iter(verify_step(self.verifier, logits, output.scheduled, groups))
        now, longest = time.perf_counter(), self.max_model_len
        for item, group in zip(output.scheduled, groups, strict=True):
            accepted = accept(item.request, next(results), now, longest) if group else []
            count_computed(self.kv, item)
            if len(group) > 1:
                self._fork(item.request, group[1:])
            if group:
                self._settle(item.request, accepted)
            for sibling in group[1:]:
                self._settle(sibling, accept(sibling, next(results), now, longest))
        if self.proposer.max_draft_tokens:
            self._propose([request for group in groups for request in group if request.finish_reason is None])

    def _with_siblings(self, item: ScheduledRequest) -> list[Request]:
        """Who gets tokens from a share of the step: its request once it is up to date, and whom it forks then."""
        if not item.finishes_known_tokens:
            return []
        if not item.request.num_siblings_to_fork:
            return [item.request]
        return [item.request, *self.input_processor.make_siblings(item.request)]

    def _fork(self, request: Request, siblings: Sequence[Request]) -> None:
        """Start the other continuations of a prompt that has just been computed; they share its blocks."""
        self.scheduler.fork(request, siblings)
        self._groups[request.group_id] += siblings
        request.num_siblings_to_fork = 0

    def _settle(self, request: Request, accepted: Sequence[Sampled]) -> None:
        """Once a request's computed tokens are counted: keep them for others, and tell and finish what is to be."""
        if request.index == 0 and 0 < request.num_output_tokens == len(accepted):
            computed = request.token_ids[: request.num_computed_tokens]
            self.kv.cache_blocks(request.request_id, computed)  # the prompt, now that its logits are known good
        if request.finish_reason is not None:
            finish_text(request)
        self.outbox.tell(request, accepted)
        if request.finish_reason is not None:
            self._finish(request)

    def _propose(self, requests: Sequence[Request]) -> None:
        """Let the proposer guess; no more than can become output beside the token that each step gives anyway."""
        for request, drafts in zip(requests, self.proposer.propose(requests), strict=True):
            left = min(
                request.params.max_tokens - request.num_output_tokens, self.max_model_len - len(request.token_ids)
            )
            request.draft_token_ids = drafts[: left - 1]

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
                siblings = self.input_processor.make_siblings(group[0])
                group, open_members = group + siblings, open_members + siblings
            for request in open_members:
                request.finish_reason = FinishReason.ABORT
                request.text.finish(may_stop=False)
                self.outbox.tell(request, ())
            if group:
                self.outbox.finish(group)
