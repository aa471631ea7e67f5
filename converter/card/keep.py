"""A new card over an old one, without losing what somebody wrote into the old one."""

from __future__ import annotations

from converter.card.front_matter import join_front_matter, split_front_matter

BEGIN = "<!-- Written by converter from converter.json. Text above and below this block is kept, text in it is not. -->"
END = "<!-- End of what converter writes. -->"


def merge_card(new: str, old: str | None, generated: str | None) -> str:
    """The new card with what people added to the old one.

    `generated` is the card as the old record makes it. Where the old one still is that, nothing was added.
    Otherwise entries of the front matter that were added or changed stay, and so does all text outside of the
    block between the markers. A text without markers is wholly somebody's own: the block goes below it.
    """
    if old is None or old == generated:
        return new
    entries, body = split_front_matter(new)
    theirs, text = split_front_matter(old)
    ours, _ = split_front_matter(generated or "")
    kept = {name: value for name, value in theirs.items() if ours.get(name) != value}
    before, after = _around_block(text)
    parts = [part.strip("\n") for part in (before, body, after) if part.strip()]
    return join_front_matter({**entries, **kept}, "\n\n".join(parts) + "\n")


def _around_block(text: str) -> tuple[str, str]:
    before, begin, rest = text.partition(BEGIN)
    if not begin:
        return text, ""
    _, end, after = rest.partition(END)
    return before, after if end else rest
