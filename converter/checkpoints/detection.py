"""What a checkpoint was made for, read off its own files: config.json, the tokenizer's, modules.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from converter.errors import AmbiguousError, UsageError
from converter.json_files import object_or_empty
from converter.records import Checkpoint
from converter.sentence_modules import embeds

# Names that other tools have for tasks.
SYNONYMS: Mapping[str, str] = {
    "masked-lm": "fill-mask",
    "causal-lm": "text-generation",
    "causal-lm-with-past": "text-generation-with-past",
    "seq2seq-lm": "text2text-generation",
    "seq2seq-lm-with-past": "text2text-generation-with-past",
    "summarization": "text2text-generation-with-past",
    "translation": "text2text-generation-with-past",
    "summarization-with-past": "text2text-generation-with-past",
    "translation-with-past": "text2text-generation-with-past",
    "speech2seq-lm-with-past": "automatic-speech-recognition-with-past",
    "sequence-classification": "text-classification",
    "zero-shot-classification": "text-classification",
    "text-ranking": "text-classification",
    "reranking": "text-classification",
    "sentiment-analysis": "text-classification",
    "ner": "token-classification",
    "embedding": "feature-extraction",
    "ctc": "automatic-speech-recognition",
}


def own_name(task: str, tasks: Sequence[str]) -> str:
    """The task as the architecture calls it; unknown ones come back as they are."""
    synonym = SYNONYMS.get(task, task)
    return synonym if task not in tasks and synonym in tasks else task


def detect_task(
    checkpoint: Checkpoint, classes: Mapping[str, str | None], strangers: Sequence[str] = ()
) -> str:
    """The task a checkpoint was made for, among those of `classes`: task -> name of its class, None without one.

    `strangers` are the classes that config.json names where it is sure that none of them is a task's.

    modules.json of sentence-transformers comes first: if it lists what embeds, then whatever head its transformer was
    trained with. Then the classes that config.json names, then a chat template. Raises AmbiguousError where that leaves
    several tasks, and UsageError where the one there is would convert another class than the checkpoint's.
    """
    tasks = list(classes)
    if "feature-extraction" in tasks and embeds(checkpoint.root):
        return "feature-extraction"
    named = [str(name) for name in checkpoint.config.get("architectures") or ()]
    # Classes change their capitals: early checkpoints name LLaMAForCausalLM.
    spelt = {name.casefold() for name in named}
    # Tasks that share a class are variations on one; the first is the usual one.
    matching: dict[str, str] = {}
    for task, name in classes.items():
        if name is not None and name.casefold() in spelt:
            matching.setdefault(name, task)
    if len(matching) == 1:
        return next(iter(matching.values()))
    if not matching and len(set(classes.values())) == 1:
        if strangers:
            raise UsageError(
                f"{checkpoint.source}: config.json names {', '.join(strangers)}, and the one task of its model type,"
                f" {tasks[0]}, is {classes[tasks[0]]}'s",
                remedy=f"--task {tasks[0]} converts what the checkpoint has of it, without the rest",
                topic="task",
            )
        return tasks[0]
    generating = [task for task in tasks if task.startswith("text-generation")]
    if not named and generating and _chats(checkpoint.folder):
        return generating[0]
    says = f"names {', '.join(named)}" if named else "names no class"
    raise AmbiguousError(
        f"{checkpoint.source}: config.json {says}, which does not tell the task",
        option="task",
        choices=[task for task, name in classes.items() if not matching or name in matching],
    )


def _chats(folder: Path) -> bool:
    """Whether there is a chat template: among the tokenizer's entries, or since 2025 in a file of its own."""
    entries = object_or_empty(folder / "tokenizer_config.json")
    return "chat_template" in entries or (folder / "chat_template.jinja").is_file()
