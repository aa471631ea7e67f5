"""A package as the model class it was made from, whose forward is the graph."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack, cast

from converter.errors import PackageError, UsageError
from converter.runtime.files import PackageFiles, open_package
from converter.runtime.session import SessionKeywords, SessionSettings


@dataclass(frozen=True)
class Task:
    """How a task is run: transformers' class that knows the models for it, the output it gives, the graphs it takes."""

    auto_class: str
    output: str
    stems: tuple[str, ...] = ("model",)

    @property
    def generates(self) -> bool:
        return self.output.endswith(("LMOutput", "WithPast"))


PAIR = ("encoder_model", "decoder_model_merged")
TASKS: Mapping[str, Task] = {
    "feature-extraction": Task("AutoModel", "BaseModelOutputWithPooling", ("model", "text_model")),
    "text-classification": Task("AutoModelForSequenceClassification", "SequenceClassifierOutput"),
    "token-classification": Task("AutoModelForTokenClassification", "TokenClassifierOutput"),
    "question-answering": Task("AutoModelForQuestionAnswering", "QuestionAnsweringModelOutput"),
    "image-classification": Task("AutoModelForImageClassification", "ImageClassifierOutput"),
    "text-generation": Task("AutoModelForCausalLM", "CausalLMOutputWithPast"),
    "text2text-generation": Task("AutoModelForSeq2SeqLM", "Seq2SeqLMOutput", PAIR),
    "automatic-speech-recognition": Task("AutoModelForSpeechSeq2Seq", "Seq2SeqLMOutput", PAIR),
}
ALIASES = {
    "sentiment-analysis": "text-classification",
    "ner": "token-classification",
    "translation": "text2text-generation",
    "summarization": "text2text-generation",
}


def load(
    task: str, package: str | Path, *, precision: str = "auto", **session: Unpack[SessionKeywords]
) -> Any:
    """A package, a folder or a hub id, as a model for `transformers.pipeline(task, model=...)` or by itself.

    It is an instance of the class that the checkpoint was trained with, so `generate` and whatever asks for that class
    work; it holds no weights, and calling it runs the graph. `precision` and the settings of the session are as for
    `Encoder`. Raises UsageError for an unknown task, and PackageError for a package made for another one.
    """
    name = ALIASES.get(task, task)
    if name not in TASKS:
        raise UsageError(f"there is no task {task!r}", remedy=f"choose from {', '.join((*TASKS, *ALIASES))}")
    from converter.extras import require_export

    require_export()
    settings = SessionSettings(**session)
    files = open_package(package, settings.precisions(precision))
    _check_task(name, files)
    return _model_class(TASKS[name], files)(TASKS[name], files, precision, settings)


def _check_task(name: str, files: PackageFiles) -> None:
    """Logits of texts and of tokens have one name: which of them a graph gives, its package says."""
    recorded = str(files.read_object("converter.json").get("task", name))
    made_for = ALIASES.get(recorded, recorded).removesuffix("-with-past")
    if made_for in TASKS and made_for != name:
        raise PackageError(
            f"{files.folder} was made for {made_for}, not for {name}", remedy=f"load({made_for!r}, ...)"
        )


def _model_class(task: Task, files: PackageFiles) -> Any:
    """A subclass of transformers' class that bears its name, by which pipelines tell what a model can do."""
    from converter.adapters.models import DecoderAdapter, EncoderDecoderAdapter, GraphAdapter

    adapter: Any = GraphAdapter
    if task.generates:
        adapter = EncoderDecoderAdapter if task.stems == PAIR else DecoderAdapter
    original = _original_class(task, files)

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self.run_graph(*args, **kwargs)

    signature = inspect.signature(original.forward)
    cast(Any, forward).__signature__ = signature  # pipelines and generate() look at it
    namespace = {"forward": forward, "call_signature": signature, "__doc__": original.__doc__}
    return type(original.__name__, (adapter, original), namespace)


def _original_class(task: Task, files: PackageFiles) -> Any:
    import transformers

    files.require("config.json", purpose="building the model's class")
    config = transformers.AutoConfig.from_pretrained(files.folder)
    auto: Any = getattr(transformers, task.auto_class)
    known = auto._model_mapping
    if type(config) not in known:
        raise PackageError(
            f"{files.folder} holds a {config.model_type}, of which transformers has no {task.auto_class}",
            remedy="load it for the task it was converted for",
        )
    found = known[type(config)]
    choices = found if isinstance(found, tuple | list) else (found,)
    wanted = config.architectures or ()
    return next((choice for choice in choices if choice.__name__ in wanted), choices[0])
