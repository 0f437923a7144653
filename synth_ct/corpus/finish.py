"""The last step of whatever makes a corpus: manifest, description and card, from the receipts."""

from collections import Counter
from pathlib import Path

from synth_ct.corpus.about import About, Counts, write_about
from synth_ct.corpus.card import write_card
from synth_ct.corpus.manifest import read_manifest, write_manifest
from synth_ct.corpus.receipts import Book
from synth_ct.corpus.row import digest_of


def finish(corpus: Path, book: Book, about: About, *, duplicates: int = 0) -> About:
    """Write everything that is derived; `about` comes without counts, codes and digest."""
    write_manifest(corpus, book.rows())
    counts = book.counts()
    codes = Counter(entry.code for entry in book.quarantined())
    if duplicates:
        codes["duplicate"] = duplicates
    whole = about.model_copy(
        update={
            "counts": Counts(
                total=len(book) + duplicates,
                committed=counts["committed"],
                rejected=counts["rejected"],
                quarantined=counts["quarantined"] + duplicates,
                duplicates=duplicates,
            ),
            "codes": dict(codes.most_common()),
            "digest": digest_of(read_manifest(corpus)),
        }
    )
    write_about(corpus, whole)
    write_card(corpus, whole)
    return whole
