"""From a record to tokens, and which of them are learnt.

A template is asked for the text of the whole conversation, for that up to each of the assistant's turns with the
prompt for it, and for that up to the turn's end. The characters between the latter two are the turn's, and a token is
learnt if it begins among them. A template that writes earlier turns otherwise once later ones are there, as those do
that leave out earlier thoughts, gives such a turn a row of its own, as it was when the assistant was to answer.
"""

import numpy as np

from zoo.config import UserError
from zoo.data.examples.config import LossOn
from zoo.data.examples.records import Conversation, Labelled, Record
from zoo.data.tokenizers import ChatTemplate, Tokenizer

# Tokens of a row, and whether each is learnt; of a text to classify, whether each belongs to the second text.
Row = tuple[np.ndarray, np.ndarray]
_Span = tuple[int, int]


class ExampleEncoder:
    """Encodes the records of one data set for one model."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate | None, loss_on: LossOn) -> None:
        """Takes the tokenizer; without a template a prompt and its completion are joined, and there are no chats."""
        self._tokenizer, self._template, self._loss_on = tokenizer, template, loss_on
        self.num_own_rows = 0

    def rows(self, record: Record, where: str) -> list[Row]:
        """The rows of a record: one, but for templates that change earlier turns.

        Args:
            record: A text, a prompt with its completion, a conversation, or what is to be classified.
            where: Where it stands, for messages.

        Raises:
            UserError: If it cannot be rendered, or the assistant's turns cannot be found in what is rendered.
        """
        if isinstance(record, str):
            return [self._joined("", record, whole=True)]
        if isinstance(record, Labelled):
            tokens, types = self._tokenizer.encode_pair(record.text, record.text_pair)
            return [(np.array(tokens, dtype=np.int32), np.array(types, dtype=bool))]
        if isinstance(record, Conversation):
            return self._chat(record, where)
        if self._template is not None:
            return self._chat(record.as_conversation(), where)
        return [self._joined(record.prompt, record.completion, whole=self._loss_on == "all")]

    def _joined(self, before: str, text: str, *, whole: bool) -> Row:
        tokenizer = self._tokenizer
        if not before:
            prompt, rest = [], tokenizer.encode_prompt(text)
        else:
            prompt, rest = tokenizer.encode_prompt(before), tokenizer.encode(text)
        if not rest or rest[-1] != tokenizer.eos_id or len(rest) == 1:
            rest = [*rest, tokenizer.eos_id]
        trained = np.full(len(prompt) + len(rest), whole)
        trained[len(prompt) :] = True
        return np.array([*prompt, *rest], dtype=np.int32), trained

    def _chat(self, conversation: Conversation, where: str) -> list[Row]:
        if self._template is None:
            raise UserError(
                f"{where}: a conversation must have a chat template; the checkpoint has none (data.chat_template=FILE "
                "gives it one)"
            )
        try:
            found = self._rendered(conversation, where)
        except UserError as error:
            raise error if str(error).startswith(where) else UserError(f"{where}: {error}") from None
        self.num_own_rows += len(found) - 1
        return [self._encoded(text, spans) for text, spans in found]

    def _rendered(self, conversation: Conversation, where: str) -> list[tuple[str, list[_Span]]]:
        """Texts, and which characters of each are learnt."""
        whole = self._render(conversation, len(conversation.messages))
        if self._loss_on == "all":
            return [(whole, [(0, len(whole))])]
        inside: list[_Span] = []
        others: list[tuple[str, list[_Span]]] = []
        for index in self._turns(conversation):
            before = self._render(conversation, index, prompted=True)
            text = self._render(conversation, index + 1)
            if not text.startswith(before):
                raise UserError(
                    f"{where}: the chat template must write message {index + 1} behind the prompt for it; it does not "
                    "(data.loss_on=all learns all that it writes)"
                )
            if whole.startswith(text):
                inside.append((len(before), len(text)))
            else:
                others.append((text, [(len(before), len(text))]))
        return [*others, (whole, inside)] if inside or not others else others

    def _turns(self, conversation: Conversation) -> list[int]:
        turns = [index for index, each in enumerate(conversation.messages) if each["role"] == "assistant"]
        last = len(conversation.messages) - 1
        return turns if self._loss_on == "assistant" else [index for index in turns if index == last]

    def _render(self, conversation: Conversation, count: int, *, prompted: bool = False) -> str:
        assert self._template is not None
        messages = conversation.messages[:count]
        return self._template.render(messages, tools=conversation.tools, add_generation_prompt=prompted)

    def _encoded(self, text: str, spans: list[_Span]) -> Row:
        tokens, starts = self._tokenizer.encode_marked_with_starts(text)
        places = np.array(starts, dtype=np.int64)
        trained = np.zeros(len(tokens), dtype=bool)
        for start, end in spans:
            trained |= (places >= start) & (places < end)
        return np.array(tokens, dtype=np.int32), trained
