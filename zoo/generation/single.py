"""Streaming the continuation of one prompt."""

from collections.abc import Callable, Collection, Generator, Sequence

from zoo.data.tokenizers import Tokenizer
from zoo.generation.config import GenerationConfig
from zoo.generation.context import Context, TextContext
from zoo.generation.model import LanguageModel, evaluating, require_language_model
from zoo.generation.prompt import prompt_ids, reads_whole
from zoo.generation.result import GenerationResult, TextPiece
from zoo.generation.row import Row
from zoo.generation.sampling import RowSampler, logits_processors


def stream_text(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str | Sequence[int],
    config: GenerationConfig,
    *,
    context: TextContext | None = None,
    end_ids: Collection[int] = (),
    interrupted: Callable[[], bool] = lambda: False,
) -> Generator[TextPiece, None, None]:
    """Continues one prompt.

    Args:
        model: A language model.
        tokenizer: Its tokenizer.
        prompt: Text, possibly empty, or tokens.
        config: How to sample and when to end.
        context: What the model has read before the prompt, if anything; holds prompt and text afterwards.
        end_ids: Tokens that end the text besides the tokenizer's.
        interrupted: Asked after each token and each chunk of the prompt; the text ends where it says true.

    Yields:
        Pieces of text as they come; the last one carries the result.

    Raises:
        UserError: If the model cannot generate, cannot continue this prompt, or gives scores that are no numbers.
    """
    require_language_model(model)
    context = Context(model) if context is None else context
    num_before, limit = len(context.tokens), model.config.position_limit
    ids = prompt_ids(prompt, model=model, tokenizer=tokenizer, num_before=num_before)
    room = None if limit is None else limit - num_before
    row = Row(0, ids, config, tokenizer=tokenizer, max_seq_len=room, end_ids=end_ids)
    vocab_size = model.config.vocab_size
    # What goes on draws otherwise than what began.
    sampler = RowSampler(config, vocab_size=vocab_size, row=num_before)
    sampler.warm_up(vocab_size)
    with evaluating(model):
        row.start()
        whole = reads_whole(model.config, num_before + len(ids))
        step_size = len(ids) if whole else config.prefill_step_size
        if not context.read(ids if whole else ids[:-1], step_size=step_size, interrupted=interrupted):
            yield row.cut_short(cache_bytes=context.nbytes)
            return
        if whole:
            # The last token is what writing begins with.
            context.return_to(num_before + len(ids) - 1)
        processors = logits_processors(
            config, num_texts=tokenizer.vocab_size, vocab_size=vocab_size, before=context.tokens
        )
        written = context.write(ids[-1], limit=row.limit, sampler=sampler, processors=processors)
        for index, token in enumerate(written):
            if index == 0:
                row.prefilled()
            yield row.add(token, cache_bytes=context.nbytes, interrupted=interrupted())
            if row.ended:
                return


def generate_text(
    model: LanguageModel, tokenizer: Tokenizer, prompt: str | Sequence[int], config: GenerationConfig
) -> GenerationResult:
    """Continues one prompt and returns the whole result; arguments and errors as in `stream_text`."""
    results = [piece.result for piece in stream_text(model, tokenizer, prompt, config)]
    assert results[-1] is not None
    return results[-1]
