"""The command line of a conversion: what it accepts, and what it asks of the pipeline."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.cli.arguments import flag_names, normalise
from converter.cli.main import cli, run
from converter.request import ConversionRequest

Capture = pytest.CaptureFixture[str]
FLAGS = flag_names(cli)


@pytest.mark.parametrize(
    ("given_argv", "expected"),
    [
        (["--model_id", "a_b"], ["--model-id", "a_b"]),
        (["--model_id=a_b"], ["--model-id=a_b"]),
        (["--tiny", "True"], ["--tiny"]),
        (["--tiny", "false"], []),
        (["--tiny=True"], ["--tiny"]),
        (["--trust_remote_code=False"], []),
        (["--no_post_process", "False", "--tiny"], ["--tiny"]),
        (["--tiny=maybe"], ["--tiny=maybe"]),
        (["--model", "True"], ["--model", "True"]),
        (["--tiny", "list"], ["--tiny", "list"]),
        (["--", "--model_id", "--tiny", "True"], ["--", "--model_id", "--tiny", "True"]),
        (["some_folder", "-x_y"], ["some_folder", "-x_y"]),
    ],
)
def test_underscores_and_truth_values_are_accepted(given_argv: list[str], expected: list[str]) -> None:
    assert normalise(given_argv, FLAGS) == expected


@given(
    st.lists(
        st.sampled_from(["--tiny", "--model", "x_y", "True", "False", "--", "--quiet=True", "--a_b=c_d"])
    )
)
def test_normalising_twice_changes_nothing_more_than_once_unless_truth_values_pile_up(
    argv: list[str],
) -> None:
    once = normalise(argv, FLAGS)
    assert len(once) <= len(argv)
    if not {"True", "False"} & set(once):
        assert normalise(once, FLAGS) == once


def test_the_defaults_of_the_options_are_those_of_the_record(asked: list[ConversionRequest]) -> None:
    assert run(["--tiny", "False", "--seed", "0"]) == 0
    assert asked == [ConversionRequest()]


def test_every_option_reaches_the_record(asked: list[ConversionRequest], tmp_path: Path) -> None:
    argv = (
        "--arch a --model_id m --revision r --cache_dir c --output o --task k --variants text,,image "
        "--token t --dtype fp16 --opset 21 --batch-size 3 --sequence_length 9 --no_post_process "
        "--external-data always --parity full --atol 0.5 --seed 7 --device cuda --tiny True --overwrite "
        "--keep-failed --no-stamp --allow-pickle --trust_remote_code True --quiet"
    )
    assert run(argv.split()) == 0
    assert asked == [
        ConversionRequest(
            arch="a",
            model="m",
            output=Path("o"),
            revision="r",
            token="t",
            cache_dir=Path("c"),
            task="k",
            variants=("text", "image"),
            dtype="fp16",
            opset=21,
            batch_size=3,
            sequence_length=9,
            optimize="none",
            stamp=False,
            external_data="always",
            parity="full",
            atol=0.5,
            seed=7,
            device="cuda",
            tiny=True,
            overwrite=True,
            keep_failed=True,
            allow_pickle=True,
            trust_remote_code=True,
        )
    ]


def test_skipping_validation_is_parity_off(asked: list[ConversionRequest]) -> None:
    assert run(["--model", "m", "--skip-validation"]) == 0
    assert asked[0].parity == "off"
    assert run(["--model", "m", "--skip-validation", "--parity", "full"]) == 2
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--dtype", "fp8"], "fp8"),
        (["--batch-size", "1"], "size 1 anyway"),
        (["--output", "a", "--output-parent-dir", "b"], "both an output folder and an output parent"),
        (["--archh", "x"], "Did you mean '--arch'?"),
        (["pluggins"], "Did you mean 'plugins'?"),
        (["--tiny", "list"], "--tiny before the command 'list' has no effect"),
        (["verify", "somewhere"], "--model"),
        (["list", "--arch", "no_such_arch"], "unknown architecture 'no_such_arch'"),
        (["list", "--arch", "ast"], "did you mean 'audio_spectrogram_transformer'?"),
        (["--opset", "9"], "opset"),
    ],
)
def test_wrong_usage_exits_with_2_and_starts_nothing(
    asked: list[ConversionRequest], capsys: Capture, argv: list[str], words: str
) -> None:
    assert run(argv) == 2
    assert words in capsys.readouterr().err
    assert not asked


def test_no_arguments_at_all_show_the_help(asked: list[ConversionRequest], capsys: Capture) -> None:
    assert run([]) == 0
    assert "Usage: converter" in capsys.readouterr().out
    assert not asked


def test_a_target_is_named_after_the_model() -> None:
    assert ConversionRequest().target("org/some-model", "arch") == Path("models/some-model")
    assert ConversionRequest().target("/data/some-model/", "arch") == Path("models/some-model")
    assert ConversionRequest(output=Path("o")).target("org/m", "arch") == Path("o")
    assert ConversionRequest(output_parent=Path("p")).target("org/m", "arch") == Path("p/m")
    assert ConversionRequest().target("..", "arch").name not in ("", "..")


def test_the_token_does_not_show_when_a_request_is_printed() -> None:
    assert "hf_secret" not in repr(ConversionRequest(token="hf_secret"))
