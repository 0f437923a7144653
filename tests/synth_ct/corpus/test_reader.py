"""A finished corpus opens, and says when it was changed."""

from pathlib import Path

import pytest

from synth_ct.corpus import Corpus
from synth_ct.corpus.row import digest_of


def test_all_is_accounted_for_and_every_kept_volume_opens(corpus: Path) -> None:
    opened = Corpus.open(corpus)
    counts = opened.about.counts
    assert (counts.total, counts.committed, counts.rejected, counts.quarantined) == (30, 23, 4, 3)
    assert opened.about.codes == {"E_IMG_TRUNCATED": 3}
    assert digest_of(opened.rows()) == opened.about.digest
    for row in opened.accepted():
        assert opened.volume(row).array_XYZ.shape == row.shape


def test_a_changed_manifest_is_refused(corpus: Path) -> None:
    data = bytearray((corpus / "manifest.parquet").read_bytes())
    data[len(data) // 2] ^= 1
    (corpus / "manifest.parquet").write_bytes(data)
    with pytest.raises(ValueError, match=r"manifest\.parquet was changed"):
        Corpus.open(corpus)


def test_an_unfinished_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a finished corpus"):
        Corpus.open(tmp_path)
