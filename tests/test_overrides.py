"""Replacing and removing what others brought: said by name, shown, and never in silence; and which API is meant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from plugin_kit import Install, load, only_failure

from converter.cli.main import run
from converter.registry import Registry

HEAD = """
from converter import *
from converter import hookimpl
converter_api = "1.0"
def architecture(name, *model_types):
    variants = {"task": (Variant("text", ("model",), "vectors out"),)}
    return Architecture(name, model_types, "made up", "", None, lambda config, task: (), variants)
"""
REPLACE = (
    HEAD + "\n@hookimpl\ndef register_passes(register):\n"
    "    register(GraphPass('NAME-own', lambda model: False, 5), overrides='fold-transposes')\n"
)


def test_a_built_in_is_replaced_only_by_name_and_it_shows(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("swap", REPLACE)
    registry = load()
    names = [graph_pass.name for graph_pass in registry.passes]
    assert "fold-transposes" not in names
    assert names[0] == "swap-own"
    (override,) = registry.overrides
    said = "graph pass 'fold-transposes' of plugin 'passes' (converter 0.1.0) is replaced by 'swap-own'"
    said += ", by plugin 'swap'"
    assert str(override) == said
    assert run(["plugins"]) == 0
    shown = capsys.readouterr().out
    assert f"override: {said}" in shown
    assert "graph passes in their order: swap-own 5, inline-functions 100, " in shown
    assert "package files in their order: companions 100, tokenizer 150, " in shown
    assert "card sections in their order: introduction 100, usage 200, " in shown
    assert run(["plugins", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["overrides"][0]["by"] == "swap-own"


def test_a_built_in_is_removed_with_nothing_in_its_place(install: Install) -> None:
    install(
        "without",
        HEAD
        + "\n@hookimpl\ndef register_package_files(register):\n    register(None, overrides='companions')\n",
    )
    registry = load()
    assert "companions" not in [entry.name for entry in registry.package_files]
    assert str(registry.overrides[0]).endswith("is removed, by plugin 'without'")


def test_one_model_type_can_be_taken_from_a_family(install: Install) -> None:
    declare = "\n@hookimpl\ndef register_architectures(register):\n    register(architecture("
    install("family", HEAD + declare + "'family', 'first', 'second'))\n")
    install("taker", HEAD + declare + "'taker', 'second'), overrides='second')\n")
    registry = load()
    assert not registry.failures
    assert registry.find("second").name == "taker"
    assert registry.find("family").model_types == ("first",)


def test_an_architecture_is_replaced_whole(install: Install, builtin: Registry) -> None:
    name = next(iter(builtin.architectures))
    install(
        "whole",
        HEAD + "\n@hookimpl\ndef register_architectures(register):\n"
        f"    register(architecture('{name}', 'whole-type'), overrides='{name}')\n",
    )
    registry = load()
    assert registry.find(name).summary == "made up"
    assert registry.find("whole-type").name == name
    assert registry.for_model_type(builtin.architectures[name].model_types[0]) is None


def test_of_two_plugins_that_override_the_same_the_first_by_name_has_it(install: Install) -> None:
    install("b_second", REPLACE)
    install("a_first", REPLACE)
    registry = load()
    assert registry.passes[0].name == "a_first-own"
    failure = only_failure(registry)
    assert failure.plugin == "b_second"
    assert "'fold-transposes', which plugin 'a_first' overrides already" in failure.message
    assert "CONVERTER_PLUGINS" in failure.message


def test_a_plugin_may_override_another_strangers_whatever_their_names(install: Install) -> None:
    own = (
        HEAD
        + "\n@hookimpl\ndef register_passes(register):\n    register(GraphPass('theirs', lambda model: False))\n"
    )
    install("z_theirs", own)
    install("a_mine", REPLACE.replace("fold-transposes", "theirs"))
    registry = load()
    assert not registry.failures
    assert "theirs" not in [graph_pass.name for graph_pass in registry.passes]
    assert load(CONVERTER_PLUGINS="z_theirs").overrides == ()


def test_a_metric_that_was_taken_away_is_missed_before_anything_is_traced(
    install: Install, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = "\n@hookimpl\ndef register_metrics(register):\n    register(None, overrides='difference')\n"
    install("without", HEAD + gone)
    assert run(["--arch", "bert", "--tiny", "--output", str(tmp_path / "package")]) == 2
    said = capsys.readouterr().err
    assert "judged by metric 'difference', which no plugin registers" in said
    assert "`converter plugins` says which plugins failed, and which took something away" in said
    assert "trace" not in said


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("'fold-transpose'", "'fold-transpose', which does not exist; did you mean 'fold-transposes'?"),
        ("'NAME-own'", "'NAME-own', which does not exist"),
        ("3", "is not iterable"),
        ("('',)", "which are not names"),
    ],
    ids=["misspelt", "itself", "no name", "empty"],
)
def test_an_override_of_nothing_is_an_error(install: Install, overrides: str, message: str) -> None:
    install("wrong", REPLACE.replace("'fold-transposes'", overrides))
    assert message.replace("NAME", "wrong") in only_failure(load()).message


def test_a_variant_is_replaced_and_removed_by_its_path(install: Install, extras: Registry) -> None:
    text = "Extension('flawed', 'encoding', (Variant('text', ('model',), 'mine'),))"
    replace = f"register({text}, overrides='flawed/encoding/text')"
    remove = "register(None, overrides='flawed/scoring/scores')"
    install(
        "variants", HEAD + f"\n@hookimpl\ndef register_variants(register):\n    {replace}\n    {remove}\n"
    )
    registry = load()
    assert not registry.failures
    flawed = registry.find("flawed")
    assert {variant.name: variant.summary for variant in flawed.variants["encoding"]}["text"] == "mine"
    assert "scoring" not in flawed.tasks
    assert {override.name for override in registry.overrides} == {
        "flawed/encoding/text",
        "flawed/scoring/scores",
    }


@pytest.mark.parametrize(
    ("extension", "message"),
    [
        (
            "Extension('flowed', 'encoding', VARIANTS)",
            "'flowed', which does not exist; did you mean 'flawed'?",
        ),
        (
            "Extension('flawed', 'encoding', VARIANTS)",
            "variant 'flawed/encoding/text' is already registered by",
        ),
        ("Extension('flawed', 'encoding', ())", "has no variant"),
    ],
    ids=["no architecture", "taken", "empty"],
)
def test_an_extension_that_does_not_fit_is_one_named_line(
    install: Install, extras: Registry, extension: str, message: str
) -> None:
    variants = "VARIANTS = (Variant('text', ('model',), 'mine'),)\n"
    install(
        "misfit",
        HEAD + variants + f"\n@hookimpl\ndef register_variants(register):\n    register({extension})\n",
    )
    registry = load()
    assert message in only_failure(registry).message
    assert [variant.name for variant in registry.find("flawed").variants["encoding"]] == ["text", "pooled"]


# --- the version of the surface ---


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ('"2.0"', "written for plugin API 2.0; converter 0.1.0 has 1.0: upgrade the converter"),
        ('"1.7"', "written for plugin API 1.7; converter 0.1.0 has 1.0: upgrade the converter"),
        ('"0.3"', "written for plugin API 0.3; converter 0.1.0 has 1.0: upgrade the plugin"),
        ("1", 'its converter_api is 1, not a version such as "1.0"'),
        ('"new"', "its converter_api is 'new', not a version"),
    ],
)
def test_a_plugin_written_for_another_version_says_which_side_to_upgrade(
    install: Install, stated: str, message: str
) -> None:
    install("dated", REPLACE.replace('"1.0"', stated))
    assert message in only_failure(load()).message


def test_the_version_is_looked_at_before_hooks_this_converter_does_not_know(install: Install) -> None:
    install("future", HEAD.replace('"1.0"', '"1.9"') + "\n@hookimpl\ndef register_dreams(register): pass\n")
    assert "plugin API 1.9" in only_failure(load()).message


# --- what strangers' records may do to the engine ---


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("register(architecture('odd', ['a', 'list']))", "model_types is a tuple of names"),
        ("register(architecture(3, 'type'))", "AttributeError"),
    ],
    ids=["no model types", "no name"],
)
def test_records_full_of_nonsense_hurt_no_other_plugin(
    install: Install, builtin: Registry, code: str, message: str
) -> None:
    install("nonsense", HEAD + f"\n@hookimpl\ndef register_architectures(register):\n    {code}\n")
    registry = load()
    assert message in only_failure(registry).message
    assert set(builtin.architectures) <= set(registry.architectures)
    assert "odd" not in registry.architectures
