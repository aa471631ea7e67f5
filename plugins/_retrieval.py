"""What architectures share that embed text, page images or both: their graphs, and dummy rows of text around images.

Not a plugin itself: it registers nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from converter import Axis, Component, DummyInputs, Output, Size, Tolerance, Variant

if TYPE_CHECKING:
    import torch
    from torch import nn

    from converter.records import Dtype

TOKENS = {0: "batch_size", 1: "sequence_length"}
OUTPUTS = (Output("embeddings", TOKENS),)
TASK = "feature-extraction"
VARIANTS = (
    Variant("text", ("text_model",), "queries: token ids and mask in, one vector per token out"),
    Variant("image", ("image_model",), "pages: an image and its prompt in, one vector per token out"),
    Variant("unified", ("model",), "both in one graph, mixed in one batch: text rows bring a neutral image"),
)


# (config, whether some rows are text, size)
PageInputs = Callable[[Any, bool, Size], DummyInputs]
# (whether there are images, model)
Wrapper = Callable[[bool, Any], "nn.Module"]
Reference = Callable[[Any, Mapping[str, "torch.Tensor"]], dict[str, "torch.Tensor"]]


def retrieval_components(
    config: Any,
    wrapper: Wrapper,
    pages: PageInputs,
    reference: Reference,
    axes: Sequence[Axis],
    tolerance: Mapping[Dtype, Tolerance] | None = None,
) -> tuple[Component, ...]:
    """A graph of text, one of pages, and one of both, which is the graph of pages under a wider use.

    `axes` are those of pages beside `batch_size` and `text_length`; `tolerance` is that of graphs with images.
    """
    batch = Axis("batch_size", 2, high=5)
    text = Component(
        stem="text_model",
        wrapper=partial(wrapper, False),
        inputs=partial(_text_inputs, config),
        reference=reference,
        axes=(batch, Axis("sequence_length", 7, high=24)),
        outputs=OUTPUTS,
    )
    with_images = partial(wrapper, True)
    return text, *(
        Component(
            stem=stem,
            wrapper=with_images,
            inputs=partial(pages, config, mixed),
            reference=reference,
            axes=(batch, Axis("text_length", 5, high=9), *axes),
            outputs=OUTPUTS,
            tolerance=tolerance or {},
        )
        for stem, mixed in (("image_model", False), ("model", True))
    )


def _text_inputs(config: Any, size: Size) -> DummyInputs:
    tensors = text_tensors(tokens_of(config.vlm_config), size)
    return DummyInputs(tensors, dict.fromkeys(tensors, TOKENS))


@dataclass(frozen=True)
class Tokens:
    """The ids a dummy row is made of. `special` ids never stand for text."""

    vocabulary: int
    pad: int
    image: int
    special: frozenset[int]

    def text(self, count: int, generator: torch.Generator) -> list[int]:
        import torch

        taken = sorted(token for token in self.special if token < self.vocabulary)
        picks = torch.randint(0, self.vocabulary - len(taken), (count,), generator=generator)
        for token in taken:
            picks = picks + (picks >= token)
        return list(map(int, picks))

    def page(self, count: int, images: int, generator: torch.Generator) -> list[int]:
        """`images` image tokens in one run, with `count` of text before and behind."""
        import torch

        text = self.text(count, generator)
        split = int(torch.randint(0, count + 1, (1,), generator=generator))
        return [*text[:split], *[self.image] * images, *text[split:]]


def tokens_of(vlm_config: Any) -> Tokens:
    """The ids of a vision language model's config."""
    text = vlm_config.get_text_config()
    image = int(vlm_config.image_token_id)
    pad = text.pad_token_id if isinstance(text.pad_token_id, int) else 0
    special = {image, pad, getattr(vlm_config, "video_token_id", image)}
    return Tokens(int(text.vocab_size), pad, image, frozenset(special))


def page_rows(
    tokens: Tokens, size: Size, images: Sequence[int], generator: torch.Generator
) -> list[list[int]]:
    """One row for each entry of `images`, the number of its image tokens; 0 makes a row of text.

    Rows have `size["text_length"]` tokens of text. Without padding the shorter rows get more of it, up to the
    longest; with padding the later ones get less.
    """
    text = size["text_length"]
    longest = text + max(images)
    rows = []
    for index, count in enumerate(images):
        wanted = longest - count if size.padding == "none" else max(1, text - index)
        rows.append(tokens.page(wanted, count, generator) if count else tokens.text(wanted, generator))
    return rows


def pad_rows(rows: Sequence[Sequence[int]], length: int, size: Size, pad: int) -> dict[str, torch.Tensor]:
    """Rows of ids to `input_ids` and `attention_mask`, int64 (batch, length), padded on the asked side."""
    import torch

    left = size.padding == "left"
    ids = torch.full((len(rows), length), pad, dtype=torch.int64)
    mask = torch.zeros(len(rows), length, dtype=torch.int64)
    for index, row in enumerate(rows):
        span = slice(length - len(row), length) if left else slice(0, len(row))
        ids[index, span] = torch.tensor(row, dtype=torch.int64)
        mask[index, span] = 1
    return {"input_ids": ids, "attention_mask": mask}


def text_tensors(tokens: Tokens, size: Size) -> dict[str, torch.Tensor]:
    """Rows of text, `size["sequence_length"]` wide; with padding, each row has some if there is room."""
    import torch

    generator = torch.Generator().manual_seed(size.seed)
    length = size["sequence_length"]
    short = 0 if size.padding == "none" else 1
    rows = [tokens.text(max(1, length - short * (row + 1)), generator) for row in range(size["batch_size"])]
    return pad_rows(rows, length, size, tokens.pad)


def page_tensors(
    tokens: Tokens, size: Size, images: Sequence[int], generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """Rows of `page_rows`, padded: one column more than the longest row where padding is asked for."""
    rows = page_rows(tokens, size, images, generator)
    longest = max(len(row) for row in rows)
    return pad_rows(rows, longest + (size.padding != "none"), size, tokens.pad)


def pages_and_text(
    model: Any,
    tensors: Mapping[str, torch.Tensor],
    embed: Callable[[Mapping[str, torch.Tensor]], torch.Tensor],
) -> dict[str, torch.Tensor]:
    """What `embed` makes of rows with image tokens, given all their tensors, and of the others, given ids and mask."""
    ids = tensors["input_ids"]
    if "pixel_values" not in tensors:
        return {"embeddings": embed(tensors)}
    page = (ids == model.config.vlm_config.image_token_id).any(dim=1)
    rows = ids.new_zeros(*ids.shape, model.embedding_dim, dtype=tensors["pixel_values"].dtype)
    if page.any():
        rows[page] = embed({name: tensor[page] for name, tensor in tensors.items()})
    if not page.all():
        rows[~page] = embed({name: tensors[name][~page] for name in ("input_ids", "attention_mask")})
    return {"embeddings": rows}


def text_row_flags(batch: int, generator: torch.Generator) -> list[bool]:
    """Which rows of a mixed batch are text: at random, but some of each kind wherever there are two rows."""
    import torch

    flags = [bool(draw) for draw in torch.randint(0, 2, (batch,), generator=generator).tolist()]
    if batch > 1 and len(set(flags)) == 1:
        flags[0] = not flags[0]
    return flags
