"""The last step of whatever makes a corpus: manifest, description and card, from the receipts."""

from collections import Counter
from pathlib import Path

from synth_ct.corpus.about import About, Counts, write_about
from synth_ct.corpus.card import write_card
from synth_ct.corpus.layout import RECEIPTS
from synth_ct.corpus.manifest import read_manifest, write_manifest
from synth_ct.corpus.receipts import FOLDED, Book
from synth_ct.corpus.row import digest_of
from synth_ct.kit.durable import sha256_of_file


def finish(corpus: Path, book: Book, about: About) -> About:
    """Write everything that is derived; `about` comes without counts, codes and digest."""
    for leftover in corpus.glob("*/*/.*.tmp.*"):  # of writers that were killed
        leftover.unlink()
    write_manifest(corpus, book.rows())
    counts = book.counts()
    codes = Counter(entry.code for entry in book.quarantined())
    whole = about.model_copy(
        update={
            "counts": Counts(
                total=len(book),
                committed=counts["committed"],
                rejected=counts["rejected"],
                quarantined=counts["quarantined"],
                duplicates=codes["duplicate"],
            ),
            "codes": dict(codes.most_common()),
            "digest": digest_of(read_manifest(corpus)),
            "receipts_sha256": sha256_of_file(corpus / RECEIPTS / FOLDED),
        }
    )
    write_about(corpus, whole)
    write_about(corpus / RECEIPTS, whole)  # the copy that `corpus repair` restores it from
    write_card(corpus, whole)
    return whole
