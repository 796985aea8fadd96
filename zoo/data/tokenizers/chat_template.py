"""A checkpoint's chat template: messages to the text that its model was trained on.

The template is a program in Jinja that a stranger may have written. It is rendered in transformers' sandbox, in a
process of its own with bounds on time, memory and the text that comes of it.
"""

import contextlib
import json
import os
import select
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.config import UserError
from zoo.config.errors import shortened

Message = Mapping[str, Any]

_WHAT = "checkpoint: the chat template"
_DEFAULT = "default"
_WORKER = Path(__file__).with_name("template_worker.py")
# A conversation takes a millisecond; the first answer waits for imports, on a machine that may be busy.
_SECONDS, _START_SECONDS = 10.0, 120.0
_LONGEST_TEXT = 2**26


class ChatTemplate:
    """A template and the process that renders it, which starts with the first rendering."""

    def __init__(self, source: str, variables: Mapping[str, Any]) -> None:
        """Takes the template.

        Args:
            source: In Jinja.
            variables: What it may refer to besides the messages: the tokenizer's special tokens, by their names.
        """
        self.source, self._variables = source, dict(variables)
        self._worker: _Worker | None = None

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = False,
    ) -> str:
        """The text of a conversation.

        Args:
            messages: Each with `role` and `content`, and whatever else the template knows.
            tools: Descriptions of tools that the model may call, as JSON schemas.
            add_generation_prompt: Whether the text ends where the assistant's next answer begins.

        Raises:
            UserError: If the template refuses the messages, is no template, or exceeds its bounds.
        """
        request = {
            "template": self.source,
            "variables": self._variables,
            "messages": list(messages),
            "tools": None if tools is None else list(tools),
            "add_generation_prompt": add_generation_prompt,
        }
        if self._worker is None:
            self._worker = _Worker()
        try:
            answer = self._worker.ask(json.dumps(request))
        except BaseException:
            # A late answer must not be taken for that of the next question.
            self.close()
            raise
        if "text" not in answer:
            raise UserError(f"{_WHAT} must render these messages; {shortened(answer.get('error'))}")
        return str(answer["text"])

    def close(self) -> None:
        """Ends the process; another rendering would start a new one."""
        if self._worker is not None:
            self._worker.end()
            self._worker = None


def chosen_template(source: Any, variables: Mapping[str, Any]) -> ChatTemplate | None:
    """The template of a tokenizer's settings, of several the one for messages alone; None if there is none.

    Raises:
        UserError: If it is no text, or there are several and none is the default.
    """
    if isinstance(source, dict):
        source = source.get(_DEFAULT, source)
    if source is None:
        return None
    if not isinstance(source, str):
        raise UserError(f"{_WHAT} must be a text, or one of several be named {_DEFAULT}; got {shortened(source)}")
    return ChatTemplate(source, variables)


class _Worker:
    """A process of `template_worker.py`."""

    def __init__(self) -> None:
        process = subprocess.Popen(
            # Not from its own folder, where our names would hide those of packages.
            [sys.executable, "-P", str(_WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # One thread: those of a BLAS reserve memory for themselves.
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            # A terminal's Ctrl-C is for the one who asked.
            start_new_session=True,
        )
        self._process = process
        self.end = weakref.finalize(self, _end, process)
        try:
            self._read(_START_SECONDS)
        except BaseException as error:
            self.end()
            if isinstance(error, UserError):
                raise UserError(f"{_WHAT} must be rendered in a process of its own; none can be started") from None
            raise

    def ask(self, question: str) -> dict[str, Any]:
        """The answer to a question.

        Raises:
            UserError: If it takes too long, or the process ends.
        """
        assert self._process.stdin is not None
        # If it has ended, that shows when its answer is read.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(question.encode() + b"\n")
            self._process.stdin.flush()
        return self._read(_SECONDS)

    def _read(self, seconds: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        descriptor, deadline = self._process.stdout.fileno(), time.monotonic() + seconds
        content = bytearray()
        while not content.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([descriptor], [], [], left)[0]:
                raise UserError(f"{_WHAT} must be rendered within {seconds:g} seconds; it was stopped then")
            piece = os.read(descriptor, 2**16)
            if not piece:
                raise UserError(f"{_WHAT} must be rendered within its bounds; it took all memory or time")
            content += piece
            if len(content) > _LONGEST_TEXT:
                raise UserError(f"{_WHAT} must give a text of at most {_LONGEST_TEXT} bytes; it gives more")
        answer: dict[str, Any] = json.loads(content)
        return answer


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):
                stream.close()
