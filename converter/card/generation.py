"""Greedy generation with onnxruntime alone, for decoders with past key values and for encoder-decoder pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from converter.card.facts import CardFacts

_PAST, _PRESENT = "past_key_values.", "present."
_ENCODER, _DECODER = "encoder_model", "decoder_model_merged"
_STEP = {
    "input_ids": "np.array([step])",
    "attention_mask": "np.ones((1, len(tokens)), dtype=np.int64)",
    "position_ids": "np.arange(len(tokens) - len(step), len(tokens))[None]",
}
_PAIR = {
    "input_ids": "np.array([tokens[-1:]])",
    "encoder_hidden_states": "hidden",
    "encoder_attention_mask": "np.ones((1, hidden.shape[1]), dtype=np.int64)",
    "use_cache_branch": "np.array([step > 0])",
}


def generation_snippet(facts: CardFacts) -> str:
    """A loop that runs, or nothing where the graphs take more than a loop of this form gives them."""
    if {_ENCODER, _DECODER} <= set(facts.graphs):
        return _pair(facts)
    if len(facts.graphs) == 1:
        (stem,) = facts.graphs
        return _decoder(facts, stem) if _has_past(facts, stem) else ""
    return ""


def _has_past(facts: CardFacts, stem: str) -> bool:
    """Whether each present output comes in the place of its past input, so that they can be paired in order."""
    past = [name for name in facts.inputs(stem) if name.startswith(_PAST)]
    logits, *present = facts.outputs(stem) or ("",)
    return bool(past) and logits == "logits" and past == [name.replace(_PRESENT, _PAST) for name in present]


def _decoder(facts: CardFacts, stem: str) -> str:
    names = [name for name in facts.inputs(stem) if not name.startswith(_PAST)]
    if not set(names) <= set(_STEP):
        return ""
    text = "tokenizer.json" in facts.files
    return (
        _imports(text)
        + ('tokenizer = Tokenizer.from_file("tokenizer.json")\n' if text else "")
        + (
            'tokens = tokenizer.encode("Once upon a time").ids\n'
            if text
            else "tokens = [5, 6, 7]  # a prompt's\n"
        )
        + f'session = ort.InferenceSession("{facts.graphs[stem]["file"]}")\n'
        + _empty_past("session", facts, stem)
        + "step = list(tokens)\n"
        "for _ in range(20):\n"
        + _feed(names, _STEP)
        + "    logits, *present = session.run(None, {**feed, **past})\n"
        "    past = dict(zip(past, present, strict=True))\n"
        "    step = [int(logits[0, -1].argmax())]\n"
        "    tokens += step\n" + ("print(tokenizer.decode(tokens))\n" if text else "print(tokens)\n")
    )


def _pair(facts: CardFacts) -> str:
    names = [name for name in facts.inputs(_DECODER) if not name.startswith(_PAST)]
    source = _encoder_feed(facts)
    known = set(names) <= set(_PAIR) and facts.start_token is not None
    if not known or not source or not _has_past(facts, _DECODER):
        return ""
    text = "tokenizer.json" in facts.files
    return (
        _imports(text)
        + ('tokenizer = Tokenizer.from_file("tokenizer.json")\n' if text else "")
        + f'encoder = ort.InferenceSession("{facts.graphs[_ENCODER]["file"]}")\n'
        f'decoder = ort.InferenceSession("{facts.graphs[_DECODER]["file"]}")\n'
        + source
        + _empty_past("decoder", facts, _DECODER)
        + f"tokens = [{facts.start_token}]\n"
        "for step in range(20):\n"
        + _feed(names, _PAIR)
        + "    logits, *present = decoder.run(None, {**feed, **past})\n"
        "    found = dict(zip(past, present, strict=True))\n"
        "    # What the decoder keeps of the encoder is given by the first step alone.\n"
        '    past = {name: past[name] if step and ".encoder." in name else found[name] for name in past}\n'
        "    tokens.append(int(logits[0, -1].argmax()))\n"
        + ("print(tokenizer.decode(tokens))\n" if text else "print(tokens)\n")
    )


def _encoder_feed(facts: CardFacts) -> str:
    names = facts.inputs(_ENCODER)
    if set(names) == {"input_ids", "attention_mask"}:
        ids = 'tokenizer.encode("Once upon a time").ids' if "tokenizer.json" in facts.files else "[5, 6, 7]"
        mask = "np.ones_like(ids)"
        return (
            f"ids = np.array([{ids}])\n"
            f'(hidden,) = encoder.run(["{facts.outputs(_ENCODER)[0]}"], '
            f'{{"input_ids": ids, "attention_mask": {mask}}})\n'
        )
    (value, *others) = facts.graphs[_ENCODER]["inputs"]
    if others or any(isinstance(size, str) for size in value["shape"][1:]):
        return ""
    shape = ", ".join(map(str, (1, *value["shape"][1:])))
    return (
        f"features = np.zeros(({shape}), dtype=np.{_numpy(value)})  # a feature extractor's output\n"
        f'(hidden,) = encoder.run(["{facts.outputs(_ENCODER)[0]}"], {{"{value["name"]}": features}})\n'
    )


def _numpy(value: Mapping[str, Any]) -> str:
    return "float16" if value["dtype"] == "FLOAT16" else "float32"


def _imports(text: bool) -> str:
    tokenizers = "from tokenizers import Tokenizer\n" if text else ""
    return f"import numpy as np\nimport onnxruntime as ort\n{tokenizers}\n"


def _empty_past(session: str, facts: CardFacts, stem: str) -> str:
    """Past key values of batch 1 and length 0."""
    past = next(value for value in facts.graphs[stem]["inputs"] if value["name"].startswith(_PAST))
    return (
        "past = {\n"
        f"    value.name: np.zeros([1, *(size if isinstance(size, int) else 0 for size in value.shape[1:])],"
        f" np.{_numpy(past)})\n"
        f"    for value in {session}.get_inputs()\n"
        f'    if value.name.startswith("{_PAST}")\n'
        "}\n"
    )


def _feed(names: Sequence[str], values: Mapping[str, str]) -> str:
    lines = "".join(f'        "{name}": {values[name]},\n' for name in names)
    return f"    feed = {{\n{lines}    }}\n"
