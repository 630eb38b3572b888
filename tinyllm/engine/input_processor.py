"""What users send becomes a request, or is refused before anything runs."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import replace
from operator import index

from tinyllm.config import EngineConfig, ModelConfig
from tinyllm.engine.metrics import RequestMetrics
from tinyllm.engine.output_text import OutputText
from tinyllm.engine.request import OutputDelta, Request
from tinyllm.errors import RequestError
from tinyllm.model.tokenizer import Tokenizer
from tinyllm.sampling_params import SamplingParams


class InputProcessor:
    """Makes the requests of one engine. It changes nothing, so that any thread may use it at any time."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        model: ModelConfig,
        config: EngineConfig,
        draw_seed: Callable[[int], int] = secrets.randbits,
    ) -> None:
        """`draw_seed` gives a number of so many bits to each request that names no seed."""
        self.tokenizer = tokenizer
        self.model = model
        self.config = config
        self.draw_seed = draw_seed

    @property
    def max_model_len(self) -> int:
        """Longest prompt plus output, in tokens: what was asked for, at most what the model and the pool can hold."""
        asked = self.config.max_model_len or self.model.max_position_embeddings
        return min(asked, self.model.max_position_embeddings, self.config.cache.num_slots)

    def make(
        self,
        prompt: str | Sequence[int],
        params: SamplingParams | None = None,
        request_id: str | None = None,
        on_delta: Callable[[OutputDelta], None] | None = None,
    ) -> Request:
        """A request that arrives now; see `LLMEngine.add_request`.

        Raises:
            RequestError: the prompt is empty or too long, it or the parameters hold unknown tokens, or something is of
                another kind.
        """
        params = as_params(params)
        if not isinstance(request_id, str | None):
            raise RequestError(f"the request's name is {request_id!r:.100}; give a text")
        if not (on_delta is None or callable(on_delta)):
            raise RequestError(f"on_delta is {on_delta!r:.100}; give a function of one OutputDelta")
        token_ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else as_token_ids(prompt)
        self._check_length(token_ids)
        self._check_known("the prompt", token_ids)
        self._check_known("stop_token_ids", params.stop_token_ids)
        self._check_known("logit_bias", params.logit_bias)
        if params.seed is None:
            params = replace(params, seed=self.draw_seed(63))
        request_id = request_id if request_id is not None else f"request-{secrets.token_hex(4)}"
        eos_token_ids = () if params.ignore_eos else self.model.eos_token_ids
        return Request(
            request_id=f"{request_id}.0",
            group_id=request_id,
            index=0,
            token_ids=token_ids,
            num_prompt_tokens=len(token_ids),
            params=params,
            metrics=RequestMetrics(arrival=time.perf_counter()),
            text=OutputText(self.tokenizer.decode, params.stop),
            end_token_ids=frozenset([*params.stop_token_ids, *eos_token_ids]),
            num_siblings_to_fork=params.n - 1,
            on_delta=on_delta,
        )

    def make_siblings(self, request: Request) -> list[Request]:
        """The other continuations of a request that has no output yet; none where they are forked already."""
        return [
            replace(
                request,
                request_id=f"{request.group_id}.{index}",
                index=index,
                token_ids=list(request.token_ids),
                metrics=replace(request.metrics, token_times=[]),
                text=OutputText(self.tokenizer.decode, request.params.stop),
                logprobs=[],
                num_siblings_to_fork=0,
                draft_token_ids=[],
            )
            for index in range(1, 1 + request.num_siblings_to_fork)
        ]

    def _check_length(self, token_ids: Sequence[int]) -> None:
        """Refuse an empty prompt and one that can never fit."""
        if not token_ids:
            raise RequestError("the prompt is empty; give at least one token")
        if len(token_ids) >= self.max_model_len:
            cache = self.config.cache
            raise RequestError(
                f"the prompt has {len(token_ids)} tokens; with one to generate it must fit in {self.max_model_len}: "
                f"the model takes {self.model.max_position_embeddings}, the KV pool {cache.num_slots} "
                f"({cache.num_blocks} blocks of {cache.block_size}). Shorten the prompt, or raise num_blocks or "
                "max_model_len."
            )

    def _check_known(self, name: str, token_ids: Iterable[int]) -> None:
        """Refuse tokens that the model does not have."""
        if not all(0 <= token < self.model.vocab_size for token in token_ids):
            raise RequestError(f"{name} holds token ids outside 0 to {self.model.vocab_size - 1}")


def as_token_ids(prompt: Sequence[int]) -> list[int]:
    """A prompt that is no text as a list of ints.

    Raises:
        RequestError: it is no sequence of whole numbers.
    """
    refuse_other_kinds(prompt)
    try:
        return [index(token) for token in prompt]
    except TypeError:
        raise RequestError(f"the prompt is {prompt!r:.100}; give a text or a list of token ids") from None


def refuse_other_kinds(prompt: object) -> None:
    """Refuse what Python would read as a list of numbers or names, but whose sender meant something else.

    Raises:
        RequestError: it is a mapping, a set or bytes.
    """
    if isinstance(prompt, bytes | bytearray | memoryview):
        raise RequestError(f"the prompt is {prompt!r:.100}; bytes are no text: decode them, as in prompt.decode()")
    if isinstance(prompt, Mapping) and "role" in prompt:
        raise RequestError(f"the prompt is {prompt!r:.100}; a message belongs in a list that is given to LLM.chat()")
    if isinstance(prompt, Mapping | Set):
        raise RequestError(f"the prompt is {prompt!r:.100}; give a text or a list of token ids")


def as_params(params: object) -> SamplingParams:
    """The sampling parameters of one request; greedy where there are none.

    Raises:
        RequestError: they are something else.
    """
    if params is None:
        return SamplingParams()
    if not isinstance(params, SamplingParams):
        hint = ", as in SamplingParams(**params)" if isinstance(params, Mapping) else ""
        raise RequestError(f"the sampling parameters are {params!r:.100}; give SamplingParams(...){hint}")
    return params
