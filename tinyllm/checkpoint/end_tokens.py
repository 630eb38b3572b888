"""Which tokens end a sequence. A checkpoint can say so in three files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tinyllm.checkpoint.files import read_json
from tinyllm.errors import CheckpointError


def end_token_ids(folder: Path) -> tuple[int, ...]:
    """The end tokens of the checkpoint in `folder`, from the first file that names any.

    The order is `generation_config.json` (a chat model often ends turns with a token of its own), `config.json`, and
    the `eos_token` of `tokenizer_config.json`. A file that is not there, or whose entry is missing, null or an empty
    list, says nothing: the next one is asked.

    Raises:
        CheckpointError: an entry is no token id, or `eos_token` is a token that the tokenizer does not have.
    """
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        if path.is_file():
            try:
                ids = as_token_ids(read_json(path).get("eos_token_id"))
            except CheckpointError as error:
                raise CheckpointError(f"{path}: {error}") from None
            if ids:
                return ids
    return tokenizer_end_ids(folder)


def as_token_ids(entry: Any) -> tuple[int, ...]:
    """An `eos_token_id` as a config gives it: a token id, a list of them, or null.

    Raises:
        CheckpointError: it is anything else.
    """
    ids = [] if entry is None else entry if isinstance(entry, list) else [entry]
    if not all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in ids):
        raise CheckpointError(f"eos_token_id is {entry!r}; expected a token id, a list of token ids, or null")
    return tuple(ids)


def tokenizer_end_ids(folder: Path) -> tuple[int, ...]:
    """The id of `eos_token` in `tokenizer_config.json`, where the folder has a tokenizer that names one."""
    config, tokenizer = folder / "tokenizer_config.json", folder / "tokenizer.json"
    if not (config.is_file() and tokenizer.is_file()):
        return ()
    token = text_of_token(read_json(config).get("eos_token"))
    if token is None:
        return ()
    raw = read_json(tokenizer)
    added = raw.get("added_tokens") or []
    vocabulary = (raw.get("model") or {}).get("vocab")
    known = vocabulary if isinstance(vocabulary, dict) else {}  # a Unigram's is a list of tokens and scores
    if isinstance(vocabulary, list):
        known = {piece: i for i, (piece, _) in enumerate(vocabulary)}
    known = known | {entry["content"]: entry["id"] for entry in added}
    if token not in known:
        raise CheckpointError(
            f"{config}: eos_token is {token!r}, which {tokenizer.name} does not have; "
            "name the end tokens as eos_token_id in generation_config.json"
        )
    return (known[token],)


def text_of_token(entry: Any) -> str | None:
    """The text of a token in `tokenizer_config.json`, which is a string or an object that holds it as `content`."""
    text = entry.get("content") if isinstance(entry, dict) else entry
    return text if isinstance(text, str) else None
