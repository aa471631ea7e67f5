"""Asking back what a request leaves open, where somebody sits at a terminal to answer."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import click

from converter.errors import AmbiguousError
from converter.request import ConversionRequest

Result = TypeVar("Result")


def ask_back(request: ConversionRequest, run: Callable[[ConversionRequest], Result]) -> Result:
    """`run(request)`, with each ambiguity put to the user; without a terminal it stays the error it is."""
    while True:
        try:
            return run(request)
        except AmbiguousError as question:
            if not (sys.stdin.isatty() and sys.stderr.isatty()):
                raise
            click.echo(question.message, err=True)
            chosen: dict[str, Any] = {
                question.option: click.prompt(question.option, type=click.Choice(question.choices), err=True)
            }
            request = replace(request, **chosen)
