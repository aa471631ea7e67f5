"""Plugins here come as strangers' do, as distributions on the path; what one does, the others survive."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from plugin_kit import GOOD, Install, load, only_failure, pass_names

from converter.cli.main import run
from converter.errors import PluginError, UsageError
from converter.registry import Registry


def test_the_built_in_plugins_load_without_a_failure(builtin: Registry) -> None:
    assert not builtin.failures
    assert builtin.architectures
    assert builtin.passes
    assert {plugin.distribution for plugin in builtin.plugins} == {"converter"}


def test_a_strangers_plugin_stands_beside_the_built_in_ones(install: Install, builtin: Registry) -> None:
    install("foreign", version="2.3")
    registry = load()
    assert set(registry.architectures) == {*builtin.architectures, "foreign"}
    plugin = registry.plugins[-1]
    assert (plugin.name, plugin.label) == ("foreign", "converter-foreign 2.3")
    assert plugin.architectures == ("foreign",)


def test_an_entry_point_may_name_an_object_with_hooks_as_methods(install: Install) -> None:
    code = """
        from converter import GraphPass, hookimpl

        class Plugin:
            @hookimpl
            def register_passes(self, register):
                register(GraphPass("mine", lambda model: False, order=1))

        plugin = Plugin()
        """
    install("objects", code, target="converter_objects_objects:plugin")
    registry = load()
    assert not registry.failures
    assert registry.passes[0].name == "mine"


def test_a_plugin_that_imports_what_is_large_at_once_is_shown_to_do_so(
    install: Install, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "jax", sys)  # so that it is taken out again afterwards
    del sys.modules["jax"]
    install("eager", "import sys\nsys.modules['jax'] = sys\n" + GOOD)
    install("lazy")
    assert run(["plugins"]) == 0
    lines = capsys.readouterr().out.splitlines()
    said = "  imports jax when it is loaded: every command waits for that"
    assert lines.index(said) == lines.index("  architectures: eager") + 1
    assert lines.count(said) == 1


def test_two_distributions_with_one_entry_point_name_refuse_each_other(install: Install) -> None:
    install("twice", distribution="converter-one")
    install("twice", distribution="converter-two", version="2.0")
    registry = load()
    failure = only_failure(registry)
    assert failure.plugin == "twice"
    assert failure.distribution == "converter-one 1.0, converter-two 2.0"
    assert "twice" not in registry.architectures


def test_a_distribution_found_twice_on_the_path_counts_once(install: Install, tmp_path: Path) -> None:
    install("again")
    sys.path.append(str(tmp_path / "converter-again" / ".."))
    try:
        sys.path.append(str(tmp_path / "converter-again" / "."))
        registry = load()
    finally:
        del sys.path[-2:]
    assert not registry.failures
    assert "again" in registry.architectures


def test_an_entry_point_named_like_a_built_in_plugin_is_refused(install: Install, builtin: Registry) -> None:
    install(builtin.plugins[0].name, distribution="converter-copycat")
    assert "another plugin already has this name" in only_failure(load()).message


@pytest.mark.parametrize("claim", ["name", "model type", "name like a model type"])
def test_what_is_registered_already_stays_and_the_second_is_refused_whole(
    install: Install, builtin: Registry, claim: str
) -> None:
    taken = next(entry for entry in builtin.architectures.values() if entry.model_types[0].isidentifier())
    second = {
        "name": f'architecture("{taken.name}", "new-type")',
        "model type": f'architecture("new_name", "{taken.model_types[0]}")',
        "name like a model type": f'architecture("{taken.model_types[0]}", "new-type")',
    }[claim]
    install("greedy", GOOD + f"    register({second})\n")
    registry = load()
    failure = only_failure(registry)
    assert "is already registered by plugin" in failure.message
    assert "(converter " in failure.message
    assert "greedy" not in registry.architectures  # its good one neither: all or none
    assert registry.find(taken.name).summary == taken.summary


def test_two_strangers_with_one_model_type_keep_the_first_by_name(install: Install) -> None:
    install("a_first", GOOD.replace("NAME-type", "shared-type"))
    install("b_second", GOOD.replace("NAME-type", "shared-type"))
    registry = load()
    assert registry.find("shared-type").name == "a_first"
    assert "plugin 'a_first' (converter-a_first 1.0)" in only_failure(registry).message


def test_a_graph_pass_cannot_be_replaced_without_a_word(install: Install, builtin: Registry) -> None:
    code = f"""
        from converter import GraphPass, hookimpl

        @hookimpl
        def register_passes(register):
            register(GraphPass("{builtin.passes[0].name}", lambda model: False))
        """
    install("replacing", code)
    registry = load()
    assert "graph pass" in only_failure(registry).message
    assert pass_names(registry) == pass_names(builtin)


def test_one_object_behind_two_entry_points_is_refused_the_second_time(install: Install) -> None:
    install("original")
    install("alias", target="converter_original_original")
    registry = load()
    assert [plugin.name for plugin in registry.plugins][-1] == "alias"
    failure = only_failure(registry)
    assert (failure.plugin, failure.message) == ("original", "plugin 'alias' is the same object")


def test_unreadable_metadata_of_one_distribution_hurts_no_other(
    install: Install, tmp_path: Path, builtin: Registry
) -> None:
    install("fine")
    install("damaged")
    info = tmp_path / "converter-damaged" / "converter_damaged-1.0.dist-info"
    (info / "entry_points.txt").write_text("[converter]\nno equals sign here\n")
    registry = load()
    assert "entry_points.txt cannot be read" in only_failure(registry).message
    assert "fine" in registry.architectures
    (info / "METADATA").write_bytes(b"\xff\xfe\x00Name: \xff")
    assert "fine" in load().architectures


def test_the_setting_chooses_third_party_plugins_and_leaves_the_built_in_ones(
    install: Install, builtin: Registry
) -> None:
    install("wanted")
    install("unwanted", "raise RuntimeError")
    assert set(load(CONVERTER_PLUGINS="").architectures) == set(builtin.architectures)
    chosen = load(CONVERTER_PLUGINS=" wanted ,")
    assert "wanted" in chosen.architectures
    assert not chosen.failures


def test_a_chosen_plugin_that_is_not_installed_is_named(install: Install) -> None:
    install("wanted")
    failure = only_failure(load(CONVERTER_PLUGINS="wantd"))
    assert failure.plugin == "wantd"
    assert "did you mean 'wanted'?" in failure.message


def test_strict_makes_a_failure_fatal_and_names_them_all(install: Install) -> None:
    install("bad_one", "raise RuntimeError")
    install("bad_two", "x = 1")
    with pytest.raises(PluginError, match=r"(?s)bad_one.*bad_two"):
        load(CONVERTER_STRICT_PLUGINS="1")
    load(CONVERTER_STRICT_PLUGINS="1", CONVERTER_PLUGINS="")
    load(CONVERTER_STRICT_PLUGINS="0")


@pytest.mark.parametrize("setting", ["soon", "-1", "0", "nan", "inf"])
def test_a_timeout_that_is_no_time_is_a_usage_error(setting: str) -> None:
    with pytest.raises(UsageError, match="CONVERTER_PLUGIN_TIMEOUT"):
        load(CONVERTER_PLUGIN_TIMEOUT=setting)


def test_a_conversion_says_that_plugins_failed(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    """What they would have added is missing from the package, so it may not pass in silence."""
    install("bad_one", "raise RuntimeError")
    assert run(["--arch", "bert", "--tiny", "--task", "no-such-task"]) == 2
    assert "1 plugin(s) failed to load; `converter plugins` says why" in capsys.readouterr().err


def test_a_stand_in_is_found_by_the_name_that_packages_record(builtin: Registry) -> None:
    """A package of `kosmos-2.5` says `kosmos_2_5`, which nothing found: it could not be verified."""
    for name in ("kosmos-2.5", "kosmos_2_5", "Kosmos-2-5"):
        assert builtin.find(name).model_types == ("kosmos-2.5",)


def test_an_architecture_is_found_by_name_by_model_type_and_by_loose_spelling(install: Install) -> None:
    install("my_arch")
    registry = load()
    expected = registry.architectures["my_arch"]
    assert registry.find("my_arch") is expected
    assert registry.find("my_arch-type") is expected
    assert registry.find("My-Arch") is expected
    assert registry.for_model_type("my_arch-type") is expected
    assert registry.for_model_type("my_arch") is None


def test_an_unknown_architecture_names_its_near_misses_and_the_failed_plugins(install: Install) -> None:
    install("my_arch")
    install("broken", "import surely_not_there")
    with pytest.raises(UsageError) as caught:
        load().find("my_arhc")
    assert "did you mean 'my_arch'" in str(caught.value)
    assert "broken (converter-broken 1.0): it needs the package 'surely_not_there'" in str(caught.value)
    assert caught.value.exit_code == 2
