"""Monitor a model during training: held-out answers, a quick probe of its encoder, and the encoder's drift.

Everything is a function of the weights: fixed clips, greedy answers, no random generator. The training state is not
touched. Every rank takes part, because a sharded model needs all of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from uniwhisper.config import Config
from uniwhisper.data.examples import SAMPLE_RATE, Example, Question
from uniwhisper.model.build import load_encoder
from uniwhisper.model.collate import FRAME, log_mel
from uniwhisper.model.generate import answer
from uniwhisper.model.model import AudioModel
from uniwhisper.model.tokens import Classes, open_answers
from uniwhisper.model.transcribe import Transcriber, plain_words
from uniwhisper.sampling.clips import WHOLE_TASKS
from uniwhisper.sampling.held_out import HeldOut
from uniwhisper.training.geometry import cluster_quality, effective_rank
from uwbench.api import InputError

_BATCH = 8  # clips
_TRANSCRIPTS = "asr"
_MINI = ("mini_speech", "mini_sound", "mini_music")
_N_DRIFT = 8  # clips whose features are compared with the original encoder's


class Monitor:
    """Evaluates a model on held-out clips; keeps the original encoder's features of the first ones."""

    def __init__(self, config: Config, held_out: HeldOut, device: str) -> None:
        self._config, self._held_out, self._text = config, held_out, open_answers(config)
        self._examples = (*held_out.examples, *(mini_clips() if config.run.monitor_mini else ()))
        fixed = sorted(self._examples, key=lambda example: example.domain != "speech")[:_N_DRIFT]
        self._mel = log_mel([example.audio for example in fixed], config.encoder.mels).to(device)
        original = AudioModel(load_encoder(config)).to(device).eval()
        with torch.no_grad():
            self._original = original.encode(self._mel).float()
        self._speech = Speech(config, held_out, original, device) if config.run.monitor_speech else None

    def look(self, model: AudioModel) -> dict[str, Any]:
        """Return `exact` or `wer` per task, `knn` per task, the encoder's geometry, and what is left of its speech.

        The geometry is `effective_rank`, `clusters` if there are enough clips, and `cosine` to the original features;
        `whisper_wer` are Whisper's own decoder's errors on the `original` and the `trained` encoder, if asked for.
        """
        was_training = model.training
        model.eval()
        with torch.no_grad():
            pooled = torch.cat([self._pooled(model, part) for part in _parts(self._examples)])
            geometry = {"effective_rank": effective_rank(pooled), "cosine": self._cosine(model)}
            clusters = cluster_quality(pooled)
            if clusters is not None:
                geometry["clusters"] = clusters
            scores = self._answers(model) | {"knn": self._probe(pooled)} | geometry
            if self._speech is not None:
                scores["whisper_wer"] = {"original": self._speech.original, "trained": self._speech.wer(model)}
        model.train(was_training)
        return scores

    def _answers(self, model: AudioModel) -> dict[str, dict[str, float]]:
        import jiwer

        if isinstance(self._text, Classes):  # heads write no answers
            return {"exact": {}, "wer": {}}
        config, examples = self._config, self._held_out.examples
        answers: list[str] = []
        for start in range(0, len(examples), _BATCH):
            part = examples[start : start + _BATCH]
            answers += answer(
                model,
                self._text,
                [example.audio for example in part],
                [example.questions[0].instruction for example in part],
                mels=config.encoder.mels,
                stack=config.adapter.stack,
                longest=max(len(self._text.encode(example.questions[0].answer)) for example in part) + 1,
            )
        pairs: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for question, text in zip(self._held_out.questions, answers, strict=True):
            pairs[question.task].append((question.answer, text))
        scores: dict[str, dict[str, float]] = {"exact": {}, "wer": {}}
        for task, both in sorted(pairs.items()):
            if task in WHOLE_TASKS:
                expected, transcripts = (list(side) for side in zip(*both, strict=True))
                scores["wer"][task] = float(jiwer.wer(expected, transcripts))
            else:
                scores["exact"][task] = sum(expected == text for expected, text in both) / len(both)
        return scores

    def _probe(self, pooled: torch.Tensor) -> dict[str, float]:
        """Return per task the share of clips whose nearest clip, by cosine of mean frames, has the same answer."""
        groups: dict[tuple[str, str], list[int]] = defaultdict(list)
        for index, example in enumerate(self._examples):
            if example.questions[0].task not in WHOLE_TASKS:
                groups[example.dataset, example.questions[0].task].append(index)
        shares = {}
        for (dataset, task), members in sorted(groups.items()):
            answers = [self._examples[index].questions[0].answer for index in members]
            if len(set(answers)) < 2 or len(set(answers)) == len(answers):
                continue  # all answers equal, or all different
            vectors = torch.nn.functional.normalize(pooled[members] - pooled[members].mean(dim=0), dim=1)
            near = (vectors @ vectors.T).fill_diagonal_(-2).argmax(dim=1).tolist()
            shares[f"{dataset}:{task}"] = sum(answers[i] == answers[j] for i, j in enumerate(near)) / len(members)
        return shares

    def _pooled(self, model: AudioModel, examples: Sequence[Example]) -> torch.Tensor:
        mel = log_mel([example.audio for example in examples], self._config.encoder.mels).to(self._mel.device)
        frames = model.encode(mel).float()
        counts = [-(-len(example.audio) // FRAME) for example in examples]
        return torch.stack([clip[:count].mean(dim=0) for clip, count in zip(frames, counts, strict=True)]).cpu()

    def _cosine(self, model: AudioModel) -> float:
        frames = model.encode(self._mel).float()
        return float(torch.nn.functional.cosine_similarity(frames, self._original, dim=-1).mean())


class Speech:
    """Held-out speech in English, and how well Whisper's own decoder transcribes it from an encoder's output."""

    def __init__(self, config: Config, held_out: HeldOut, original: AudioModel, device: str) -> None:
        spoken = [example for example in held_out.examples if example.questions[0].task == _TRANSCRIPTS]
        self._audio = [example.audio for example in spoken]
        self._texts = [plain_words(example.questions[0].answer) for example in spoken]
        if not any(self._texts):
            what, remedy = f"no held-out clip has the task {_TRANSCRIPTS}", "give --held-out a folder with transcripts"
            raise InputError(what, where="run.monitor_speech", remedy=remedy)
        self._transcriber = Transcriber(str(config.encoder.init), device)
        self.original = self.wer(original)

    def wer(self, model: AudioModel) -> float:
        """Return the word error rate with this encoder; above 1 if more words are wrong than were said."""
        import jiwer

        words = [len(text.split()) for text in self._texts]
        return float(jiwer.wer(self._texts, self._transcriber.write(model, self._audio, words)))


def mini_clips() -> tuple[Example, ...]:
    """Return the clips of the benchmark's suite mini, which it generates, with their labels for answers."""
    from uwbench.api import decode, load_task

    return tuple(
        Example(clip.id, task, decode(clip.audio, SAMPLE_RATE), (Question("", str(clip.labels), "label"),))
        for task in _MINI
        for clip in load_task(task).clips
    )


def mean_knn(scores: Mapping[str, Any]) -> float | None:
    """Return the mean of a look's `knn` over its tasks, by which the best encoder is kept; None without any."""
    shares = list(scores["knn"].values())
    return sum(shares) / len(shares) if shares else None


def _parts(examples: Sequence[Example]) -> list[Sequence[Example]]:
    return [examples[start : start + _BATCH] for start in range(0, len(examples), _BATCH)]
