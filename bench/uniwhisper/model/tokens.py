"""Tokenise instructions and answers; the prompt is masked by position, never by comparing ids.

The prompt is the language model's chat format, without thinking: the audio first, so that its states do not depend on
what is asked, then the instruction, then whatever the format puts before an answer. Segments are tokenised one by one,
so no merge crosses from the prompt into the answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uniwhisper.config import Config
from uniwhisper.data.answers import SEPARATOR
from uniwhisper.data.examples import Question
from uniwhisper.language_model import model_configuration
from uwbench.api import EncoderError, InputError, UsageError

# ChatML, and the empty think block with which Qwen3 answers at once.
_BEFORE = "<|im_start|>user\n"
_BETWEEN = "<|im_end|>\n<|im_start|>assistant\n"
_THOUGHT = "<think>\n\n</think>\n\n"
_CHATML = ("<|im_start|>", "<|im_end|>")
_QUESTION, _ANSWER = "QUESTION-5f1c", "ANSWER-5f1c"  # stand for the texts while a chat template is read
_BYTE_SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")


@dataclass(frozen=True, slots=True)
class Span:
    """The places of a question in its row: `[start, end)`, with the answer and its end token from `answer` on."""

    start: int
    answer: int
    end: int


@dataclass(frozen=True, slots=True)
class Row:
    """The tokens of one or more questions about a clip: `audio` slots from `audio_start`, then the questions."""

    ids: list[int]
    audio_start: int
    audio: int
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Text:
    """A tokenizer with the constant pieces of its prompt; `longest` is the maximum number of tokens per row."""

    encode: Callable[[str], list[int]]
    decode: Callable[[Sequence[int]], str]
    before: list[int]
    between: list[int]
    end: int
    pad: int
    longest: int | None = None

    def prompt(self, instruction: str, audio: int) -> Row:
        """Return a row that ends where the answer begins."""
        shared = self._shared(audio)
        ids = [*shared, *self.encode(instruction), *self.between]
        return Row(ids, len(self.before), audio, (Span(len(shared), len(ids), len(ids)),))

    def row(self, questions: Sequence[Question], audio: int) -> Row:
        """Return the audio's places, and each question with its answer and end token.

        Raises InputError for a row that is too long: nothing is ever cut.
        """
        ids, spans = self._shared(audio), []
        for question in questions:
            start = len(ids)
            ids += [*self.encode(question.instruction), *self.between]
            spans.append(Span(start, len(ids), len(ids) + len(answer := [*self.encode(question.answer), self.end])))
            ids += answer
        if self.longest is not None and len(ids) > self.longest:
            what = f"{len(ids)} tokens are more than the decoder's {self.longest}"
            raise InputError(what, where=", ".join(question.task for question in questions))
        return Row(ids, len(self.before), audio, tuple(spans))

    def _shared(self, audio: int) -> list[int]:
        """Return what stands before a question, whatever is asked."""
        return [*self.before, *[self.pad] * audio]


@dataclass(frozen=True, slots=True)
class Classes:
    """The answers of `Heads` in place of a tokenizer: an answer is one token, the number of its class.

    A row holds a place before the answer and the answer, or the place alone for a question without a head. Of two clips
    heard together, the answers are two tokens: the head is to give each half of its probability.
    """

    numbers: Mapping[tuple[str, str], int]
    pad: int = 0
    longest: int | None = 3  # tokens a row: with a bound, audio has no places in it

    def row(self, questions: Sequence[Question], audio: int) -> Row:
        """Return the row of one question; raise InputError for an answer that is none of its question's classes."""
        (question,) = questions
        name = question.name or question.task
        answers = question.parts or (question.answer,)
        numbers = dict.fromkeys(self._number(name, answer) for answer in answers)
        ids = [self.pad, *(number for number in numbers if number is not None)]
        return Row(ids, 0, audio, (Span(0, 1, len(ids)),))

    def _number(self, name: str, answer: str) -> int | None:
        """Return the number of an answer's class, None for a question without a head."""
        number = self.numbers.get((name, class_of(answer)))
        if number is None and any(asked == name for asked, _ in self.numbers):
            raise InputError(f"{answer!r} is none of its classes", where=f"lm.classes.{name}")
        return number


def numbered(classes: Mapping[str, Sequence[str]]) -> dict[tuple[str, str], int]:
    """Return the number of each class, by question and answer, question after question."""
    pairs = [(name, class_of(answer)) for name, answers in classes.items() for answer in answers]
    return {pair: number for number, pair in enumerate(dict.fromkeys(pairs))}


def class_of(answer: str) -> str:
    """Return an answer as a class: a list of labels, which are drawn in any order, in the order of the alphabet."""
    return SEPARATOR.join(sorted(answer.split(SEPARATOR)))


def open_answers(config: Config) -> Text | Classes:
    """Return what makes rows of questions: the tokenizer that a configuration names, or the classes of its heads."""
    return Classes(numbered(config.lm.classes)) if config.lm.kind == "heads" else open_text(config)


def open_text(config: Config) -> Text:
    """Return the tokenizer that a configuration names; raise UsageError for heads, which have none."""
    if config.lm.kind == "heads":
        raise UsageError("heads write no text", where="lm.kind")
    if config.lm.kind == "whisper":
        return _whisper_text(config.encoder.init)
    source = config.lm.tokenizer or config.lm.init
    if source is None:
        raise InputError("names neither init nor tokenizer", where="lm")
    text, size = (_byte_text(), 256 + len(_BYTE_SPECIALS)) if source == "bytes" else _chat_text(source)
    rows = model_configuration(config.lm).vocab_size
    if size > rows:
        raise InputError(f"has {size} tokens, the language model {rows}", where=source, remedy="give its own tokenizer")
    return text


def _byte_text() -> Text:
    """Return a tokenizer of UTF-8 bytes, with ids 0-255, and five special tokens."""
    marks = {mark: 256 + index for index, mark in enumerate(_BYTE_SPECIALS)}

    def template(text: str) -> list[int]:
        pieces = re.split("(" + "|".join(map(re.escape, marks)) + ")", text)
        return [token for piece in pieces for token in ([marks[piece]] if piece in marks else piece.encode())]

    return Text(
        encode=_to_bytes,
        decode=_from_bytes,
        before=template(_BEFORE),
        between=template(_BETWEEN + _THOUGHT),
        end=marks["<|im_end|>"],
        pad=marks["<|endoftext|>"],
    )


def _to_bytes(text: str) -> list[int]:
    return list(text.encode("utf-8"))


def _from_bytes(ids: Sequence[int]) -> str:
    return bytes(token for token in ids if token < 256).decode("utf-8", errors="replace")


def _tokenizer(source: str) -> Any:
    """Return a checkpoint's tokenizer; never runs code from the checkpoint, and never asks on the terminal to do so."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError, ImportError, LookupError) as error:
        what = f"has no tokenizer that can be loaded ({' '.join(str(error).split())})"
        raise EncoderError(what, where=source) from error


def _chat_text(source: str) -> tuple[Text, int]:
    """Return the text of a tokenizer in its own chat format, and the number of its tokens."""
    tokenizer = _tokenizer(source)
    before, between, after = _chatml(tokenizer) if _is_chatml(tokenizer) else _chat_template(tokenizer, source)
    pieces = [tokenizer.encode(piece, add_special_tokens=False) for piece in (before, between, after)]
    end = pieces[2][0]
    pad = tokenizer.pad_token_id
    text = Text(
        encode=_Plain(tokenizer),
        decode=_Readable(tokenizer),
        before=pieces[0],
        between=pieces[1],
        end=end,
        pad=end if pad is None else pad,  # never learnt unless it stands in an answer's place: masks are by position
    )
    return text, len(tokenizer)


def _is_chatml(tokenizer: Any) -> bool:
    return set(_CHATML) <= set(tokenizer.get_vocab())


def _chatml(tokenizer: Any) -> tuple[str, str, str]:
    """Return what stands before the question, between question and answer, and after the answer.

    ChatML without the system message that some templates add: every clip would pay for it. The empty think block stands
    where the model's template puts it, and without a template where the tokenizer knows it.
    """
    if tokenizer.chat_template is None:
        thinks = "<think>" in tokenizer.get_vocab()
    else:
        thinks = _THOUGHT in _rendered(tokenizer, answered=False)
    return _BEFORE, _BETWEEN + (_THOUGHT if thinks else ""), _CHATML[1]


def _chat_template(tokenizer: Any, source: str) -> tuple[str, str, str]:
    """Return the same three texts as the tokenizer's chat template writes them; raise EncoderError without one."""
    if tokenizer.chat_template is None:
        remedy = "take the model's instruction-tuned version, or give --set lm.tokenizer=FOLDER"
        raise EncoderError("has no chat format (no chat template, no <|im_start|>)", where=source, remedy=remedy)
    before, question, between = _rendered(tokenizer, answered=False).partition(_QUESTION)
    after = _rendered(tokenizer, answered=True).rpartition(_ANSWER)[2]
    ids = tokenizer.encode(after, add_special_tokens=False)
    if not question or not ids or ids[0] not in tokenizer.all_special_ids + list(tokenizer.added_tokens_decoder):
        raise EncoderError("has a chat template whose answers do not end with a special token", where=source)
    return before, between, after


def _rendered(tokenizer: Any, *, answered: bool) -> str:
    """Return a chat as the tokenizer's template writes it: up to where the answer begins, or with the answer."""
    chat = [{"role": "user", "content": _QUESTION}, {"role": "assistant", "content": _ANSWER}]
    return tokenizer.apply_chat_template(
        chat if answered else chat[:1], tokenize=False, add_generation_prompt=not answered, enable_thinking=False
    )


@dataclass(frozen=True, slots=True)
class _Plain:
    """Tokenises user text; special tokens inside it are plain text."""

    tokenizer: Any

    def __call__(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)


@dataclass(frozen=True, slots=True)
class _Readable:
    tokenizer: Any

    def __call__(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)


def _whisper_text(source: str) -> Text:
    """Return Whisper's tokenizer, or the bytes of its vocabulary if the folder has no tokenizer."""
    from transformers import WhisperConfig

    config: Any = WhisperConfig.from_pretrained(source)
    if Path(source).is_dir() and not any((Path(source) / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        encode, decode = _GptBytes(), _GptBytes().decode
    else:
        tokenizer = _tokenizer(source)
        encode, decode = _Plain(tokenizer), _Readable(tokenizer)
    return Text(
        encode=encode,
        decode=decode,
        before=[config.decoder_start_token_id],
        between=encode("\n"),
        end=config.eos_token_id,
        pad=config.eos_token_id,  # masks are by position, so the end is learnt although it also pads
        longest=config.max_target_positions,
    )


def _gpt_order() -> list[int]:
    """Return the bytes in the order of the first 256 ids of GPT-2's vocabulary: printable ones first."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [*printable, *(byte for byte in range(256) if byte not in printable)]


class _GptBytes:
    """GPT-2's byte-level vocabulary without its merges."""

    def __init__(self) -> None:
        self._order = _gpt_order()
        self._ids = {byte: token for token, byte in enumerate(self._order)}

    def __call__(self, text: str) -> list[int]:
        return [self._ids[byte] for byte in text.encode("utf-8")]

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(self._order[token] for token in ids if token < 256).decode("utf-8", errors="replace")
