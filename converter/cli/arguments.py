"""Spellings click does not know: underscores for dashes in options, and `True` or `False` after a flag."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import click

TRUTH = {"true": True, "false": False}


def normalise(argv: Sequence[str], flags: Collection[str]) -> list[str]:
    """`argv` as click wants it.

    `--model_id X` becomes `--model-id X`; for each option in `flags`, `--tiny True` and `--tiny=True` become
    `--tiny`, and with `False` the option is left out. What follows a bare `--` is left as it is.
    """
    result: list[str] = []
    position = 0
    while position < len(argv):
        token = argv[position]
        if token == "--":
            return [*result, *argv[position:]]
        position += 1
        name, equals, value = token.partition("=")
        if not token.startswith("--"):
            result.append(token)
            continue
        name = name.replace("_", "-")
        if name not in flags:
            result.append(name + equals + value)
            continue
        if not equals and position < len(argv) and argv[position].lower() in TRUTH:
            equals, value = "=", argv[position]
            position += 1
        if equals and value.lower() not in TRUTH:
            result.append(name + equals + value)
        elif TRUTH[value.lower()] if equals else True:
            result.append(name)
    return result


def flag_names(group: click.Group) -> frozenset[str]:
    """Every flag of the group and its commands but `--help` and `--version`, which act whatever follows."""
    return frozenset(
        name
        for command in (group, *group.commands.values())
        for option in command.params
        if isinstance(option, click.Option) and option.is_flag and not option.is_eager
        for name in option.opts
    )
