"""The chat template of a checkpoint: which one counts, and the text that it makes of a conversation.

A template is a Jinja program that came with the checkpoint. It runs in a sandbox, with the same environment, variables
and data as in `transformers`, so that it renders the same text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from tinyllm.checkpoint.end_tokens import text_of_token
from tinyllm.errors import CheckpointError, RequestError

#: The tokens that a template may name as variables, where `tokenizer_config.json` has them.
NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
#: The names under which a message may carry what the model thought before it answered; the first is the usual one.
REASONING = ("reasoning_content", "thinking", "reasoning")


class ChatTemplate:
    """One compiled template.

    Attributes:
        source: its text.
        variables: the named tokens.
    """

    def __init__(self, source: str, variables: Mapping[str, str], origin: str) -> None:
        """Compile `source`; `origin` is the file that error messages name.

        Raises:
            CheckpointError: it is no valid Jinja.
        """
        self.source = source
        self.variables = dict(variables)
        self.origin = origin
        self.environment = make_environment()
        try:
            self.tree = self.environment.parse(source)
            self._compiled = self.environment.from_string(source)
        except TemplateError as error:
            raise CheckpointError(f"the chat template of {origin} is no valid jinja2 ({error})") from None

    def render(self, given: Mapping[str, Any], tree: nodes.Template | None = None) -> str:
        """The text of a conversation.

        Args:
            given: `messages`, `tools` and `add_generation_prompt`, from `template_data`.
            tree: a changed copy of the template's syntax tree, to render in its place.

        Raises:
            RequestError: the template refuses the conversation or fails on it.
        """
        compiled = self._compiled if tree is None else self.environment.from_string(tree)
        try:
            return compiled.render(**self.variables, **given, documents=None)
        except Exception as error:  # a template is a program: it can divide by zero, too
            raise RequestError(f"the chat template of {self.origin} refuses these messages: {error}") from None


def find_template(folder: Path, config: Mapping[str, Any], with_tools: bool) -> ChatTemplate:
    """The template that counts in a checkpoint folder.

    Templates in files of their own (`chat_template.jinja`, and `additional_chat_templates/NAME.jinja`) come before
    those in `tokenizer_config.json`. Of several with names, `tool_use` serves conversations with tools and `default`
    the rest.

    Args:
        folder: the checkpoint.
        config: the parsed `tokenizer_config.json`.
        with_tools: the conversation has tools, if only an empty list.

    Raises:
        CheckpointError: there is none, none of the right name, or it is damaged.
    """
    sources = template_files(folder) or named_templates(folder, config.get("chat_template"))
    if not sources:
        raise CheckpointError(
            f"{folder} has no chat template (chat_template.jinja, or chat_template in tokenizer_config.json): "
            "it is no chat model; give a plain prompt to generate() instead"
        )
    # A single template serves everything; transformers chooses by name only where there are several.
    name = "tool_use" if with_tools and "tool_use" in sources else "default"
    if name not in sources:
        raise CheckpointError(
            f"{folder} has the chat templates {', '.join(sorted(sources))} and none of the name default; "
            "write the one to use to chat_template.jinja"
        )
    tokens = {key: text_of_token(config.get(key)) for key in NAMED_TOKENS}
    variables = {key: token for key, token in tokens.items() if token is not None}
    return ChatTemplate(sources[name], variables, str(folder))


def template_files(folder: Path) -> dict[str, str]:
    """The templates that have a file of their own, by name."""
    paths = {"default": folder / "chat_template.jinja"} if (folder / "chat_template.jinja").is_file() else {}
    paths |= {path.stem: path for path in (folder / "additional_chat_templates").glob("*.jinja")}
    try:
        return {name: path.read_text(encoding="utf-8") for name, path in paths.items()}
    except UnicodeDecodeError as error:
        raise CheckpointError(f"a chat template of {folder} is no UTF-8 text ({error}); copy it again") from None


def named_templates(folder: Path, entry: Any) -> dict[str, str]:
    """The `chat_template` of a `tokenizer_config.json`, which is a string or a list of templates with names."""
    if entry is None:
        return {}
    if isinstance(entry, str):
        return {"default": entry}
    if isinstance(entry, list) and all(isinstance(item, Mapping) for item in entry):
        entry = {item.get("name"): item.get("template") for item in entry}
    if isinstance(entry, Mapping) and all(isinstance(text, str) for pair in entry.items() for text in pair):
        return dict(entry)
    raise CheckpointError(
        f"{folder / 'tokenizer_config.json'}: chat_template is {entry!r:.100}; expected a template, or a list of "
        '{"name": ..., "template": ...}'
    )


def template_data(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None, add_generation_prompt: bool
) -> dict[str, Any]:
    """A conversation as a template sees it in `transformers`.

    That is a copy without the entries that are None, and with a message's reasoning under each name that templates use.
    """
    chat = []
    for message in messages:
        message = {key: value for key, value in message.items() if value is not None}
        reasoning = next((message[key] for key in REASONING if key in message), None)
        if reasoning is not None:
            message = {"thinking": reasoning, **message, "reasoning_content": reasoning}
        chat.append(message)
    return {
        "messages": chat,
        "tools": None if tools is None else list(tools),
        "add_generation_prompt": add_generation_prompt,
    }


def make_environment() -> ImmutableSandboxedEnvironment:
    """The sandbox in which templates run, with what `transformers` adds to the language of Jinja."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationBlock, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = strftime_now
    environment.globals["namespace"] = PublicNamespace
    return environment


class GenerationBlock(Extension):
    """`{% generation %}...{% endgeneration %}` marks what the model wrote, for training; here it is just rendered."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        """The body as a block that calls `_render`, so that it has a scope of its own, as in `transformers`."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_render"), [], [], body).set_lineno(line)

    def _render(self, caller: Macro) -> str:
        return str(caller())


class PublicNamespace(Namespace):
    """`namespace()` without names that begin with an underscore: they could reach into the interpreter."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, args = args[0], args[1:]
        names = dict(*args, **kwargs)
        for name in names:
            check_public(name)
        Namespace.__init__(self, names)

    def __setitem__(self, name: str, value: Any) -> None:
        check_public(name)
        super().__setitem__(name, value)


def check_public(name: Any) -> None:
    """Raise SecurityError for a name that begins with an underscore."""
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a chat template may not store {name!r} in a namespace")


def to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """The filter `tojson`. Jinja's own escapes HTML, which no model was trained on."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def strftime_now(form: str) -> str:
    """The present time, as some templates tell it to the model."""
    return datetime.now().strftime(form)


def refuse(message: str) -> None:
    """`raise_exception`: what a template calls to reject a conversation."""
    raise TemplateError(message)
