"""What clients look for beside the graphs and a checkpoint does not have under that name.

transformers 5 writes files that transformers 4 and transformers.js do not read: settings of image processors and
feature extractors inside processor_config.json, special tokens as a list under a name that was a mapping before. Both
spellings mean the same to transformers 5, so a package has the older one. Nothing else of a file is changed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from converter.json_files import object_or_empty

PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"
TOKENIZER, CONFIG = "tokenizer_config.json", "config.json"
# Of what is nested in processor_config.json, in the order in which one file can stand for all.
_PARTS = ("image_processor", "feature_extractor")
_LIMIT = 10**9  # transformers writes a number near 1e30 where a tokenizer knows no maximum


def write_client_files(package: Path) -> list[str]:
    """Add and adapt files of a package, before it is sealed. Returns a note on each that differs from the checkpoint's.

    Doing it twice changes nothing. Files that hold no JSON object are left as they are: they are not ours.
    """
    steps: tuple[Callable[[Path], str | None], ...] = (_preprocessor, _tokenizer, _data_files)
    return [note for step in steps if (note := step(package))]


def _preprocessor(package: Path) -> str | None:
    """preprocessor_config.json, which is all that transformers.js reads, and transformers 4 too."""
    if (package / PREPROCESSOR).exists():
        return None
    config = object_or_empty(package / PROCESSOR)
    parts = [config[part] for part in _PARTS if isinstance(config.get(part), dict)]
    if not parts:
        return None
    merged = {key: value for part in parts for key, value in part.items()}
    for name in ("processor_class", "auto_map"):
        if name in config:
            merged.setdefault(name, config[name])
    _write(package / PREPROCESSOR, merged)
    return f"{PREPROCESSOR} was written from {PROCESSOR}"


def _tokenizer(package: Path) -> str | None:
    config = object_or_empty(package / TOKENIZER)
    adapted = dict(config)
    if isinstance(config.get("extra_special_tokens"), list):
        tokens = adapted.pop("extra_special_tokens")
        adapted["additional_special_tokens"] = config.get("additional_special_tokens") or tokens
    if config.get("tokenizer_class") == "TokenizersBackend":
        adapted["tokenizer_class"] = "PreTrainedTokenizerFast"
    if not _is_limit(config.get("model_max_length")):
        longest = object_or_empty(package / "sentence_bert_config.json").get("max_seq_length")
        if config and _is_limit(longest):  # fastembed opens no tokenizer without a limit
            adapted["model_max_length"] = longest
    if adapted == config:
        return None
    _write(package / TOKENIZER, adapted)
    return f"{TOKENIZER} is spelt for older clients too"


def _is_limit(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < _LIMIT


def _data_files(package: Path) -> str | None:
    """Tell transformers.js of data files in config.json: in a browser it fetches only what it is told of."""
    graphs = sorted(path.name for path in (package / "onnx").glob("*.onnx"))
    found = {name: 1 for name in graphs if (package / "onnx" / f"{name}_data").exists()}
    config = object_or_empty(package / CONFIG)
    said = config.get("transformers.js_config")
    known = said.get("use_external_data_format") if isinstance(said, dict) else None
    if not config or not found or known == found:
        return None
    settings = {**(said if isinstance(said, dict) else {}), "use_external_data_format": found}
    _write(package / CONFIG, {**config, "transformers.js_config": settings})
    return f"{CONFIG} names the data files for transformers.js"


def _write(path: Path, content: dict[str, Any]) -> None:
    """A new file: the old one may be a link to another package's."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    path.unlink(missing_ok=True)
    path.write_text(text, encoding="utf-8")
