"""What a step has made for users: outputs that wait to be fetched, and deltas for those who listen."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Sequence

from tinyllm.engine.request import CompletionOutput, OutputDelta, Request, RequestOutput
from tinyllm.engine.sampler import Sampled


class Outbox:
    """Outputs until somebody fetches them. A step that fails, or a loop that waits for others, loses none."""

    def __init__(self) -> None:
        self._finished: list[RequestOutput] = []
        self._deltas: deque[tuple[Callable[[OutputDelta], None], OutputDelta]] = deque()
        self._errors: list[BaseException] = []  # of listeners

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to fetch."""
        return not (self._finished or self._errors)

    def finish(self, group: Sequence[Request]) -> None:
        """Lay down the output of a request whose continuations are all done."""
        self._finished.append(make_output(group))

    def tell(self, request: Request, accepted: Sequence[Sampled]) -> None:
        """Note for a request's listener, where it has one, what happened to it; `accepted` is in its text already."""
        if request.on_delta:
            self._deltas.append((request.on_delta, make_delta(request, accepted)))

    def deliver(self) -> None:
        """Call the listeners. What they raise waits for `fetch`, so that one deprives no other of its deltas.

        Raises:
            KeyboardInterrupt: at once, since nobody may ever call `fetch`. The other deltas come with the next call.
        """
        while self._deltas:
            listener, delta = self._deltas.popleft()
            try:
                listener(delta)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                self._errors.append(error)

    def fetch(self) -> list[RequestOutput]:
        """All outputs.

        Raises:
            BaseException: what a listener raised, or a BaseExceptionGroup of what several raised. The outputs stay for
                the next call.
        """
        errors, self._errors = self._errors, []
        if len(errors) > 1:
            raise BaseExceptionGroup("several listeners (on_delta) raised", errors)
        if errors:
            raise errors[0]
        finished, self._finished = self._finished, []
        return finished

    def pick(self, request_ids: Container[str]) -> list[RequestOutput]:
        """The outputs of the given requests; the others stay, and so does what listeners raised."""
        picked = [output for output in self._finished if output.request_id in request_ids]
        self._finished = [output for output in self._finished if output.request_id not in request_ids]
        return picked


def make_delta(request: Request, accepted: Sequence[Sampled]) -> OutputDelta:
    """What a step added to a request; nothing to one that failed or was aborted."""
    reports = tuple(sampled.logprobs for sampled in accepted if sampled.logprobs)
    return OutputDelta(
        request_id=request.group_id,
        index=request.index,
        text=request.text.take(),
        token_ids=tuple(sampled.token_id for sampled in accepted),
        metrics=request.metrics,
        logprobs=None if request.params.logprobs is None else reports,
        finish_reason=request.finish_reason,
        error=request.error,
    )


def make_output(group: Sequence[Request]) -> RequestOutput:
    """The output of all continuations of a prompt, which are done."""
    first = group[0]
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
    return RequestOutput(first.group_id, tuple(first.token_ids[: first.num_prompt_tokens]), outputs)
