"""An encoder from a corpus of one's own: made, continued, told of, and refused in one line."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from corpora import make_corpus

from pretrain.encoder import Encoder
from ray_jobs import pretrain_commands
from ray_jobs.cli import app
from ray_jobs.console import guarded
from synth_ct.corpus import Corpus
from synth_ct.kit.recipe import changed

SHORT = [
    "--recipe=tiny",
    "--network=unet",
    "--set=pretraining.networks.unet.training.steps=3",
    "--set=pretraining.networks.unet.probe_crops=8",
]


def synth_ct(*arguments: object) -> int:
    return guarded(lambda given: app(args=given, standalone_mode=False), [*map(str, arguments)])


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Volumes of forty people."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    make_corpus(tmp_path / "corpus", range(40), patients=40)
    return tmp_path / "corpus"


def test_a_corpus_becomes_an_encoder_and_a_second_call_makes_nothing(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "encoder"
    assert synth_ct("pretrain", corpus, out, *SHORT, "--seed", 7, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told.keys() == {"out", "steps", "seed", "evidence", "probe"}
    assert (told["steps"], told["seed"], told["evidence"]) == (3, 7, "plumbing")
    assert told["probe"].keys() == {"untrained", "trained", "gain"}
    made = Encoder.open(out)
    assert (made.adaptation.arm, made.adaptation.seed) == ("own", 7)
    assert made.adaptation.corpora[0].digest == Corpus.open(corpus).about.digest
    assert synth_ct("pretrain", corpus, out, *SHORT, "--seed", 7) == 0
    assert Encoder.open(out).fingerprint == made.fingerprint
    assert "probe before  R^2" in capsys.readouterr().out
    assert synth_ct("pretrain", corpus, out, *SHORT, "--seed", 8) == 1
    assert "recipe.network.training.seed" in capsys.readouterr().err


def test_a_network_that_is_not_there_is_named_with_those_that_are(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["pretrain", corpus, tmp_path / "out", "--recipe", "tiny", "--network", "vit"]
    assert synth_ct(*arguments) == 2
    assert "there are swin, unet" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_volumes_of_several_spacings_are_no_grid_to_learn_on(corpus: Path) -> None:
    opened = Corpus.open(corpus)
    mixed = replace(opened, about=changed(opened.about, spacing_mm=()))
    with pytest.raises(ValueError, match="have several spacings"):
        pretrain_commands._recipe(mixed, "tiny", "unet", [], 0)
