"""Where the thorax is found in real films, DRRs and the twin: the table of docs/radiographs.md.

    python benchmarks/radiograph_windows.py ../shared/data [--write docs/radiographs.md]

Edges are fractions of the film, mean and standard deviation; the last column is how the mean
framed film correlates with the mean framed real one.
"""

import argparse
from pathlib import Path

import numpy as np
from radiograph_sheet import TWIN, chest_films, phantom_films, real_film, real_paths, twin_films
from tables import put_table

from synth_ct.xray.frame import Framed, frame

Sources = dict[str, list[Framed]]
HEADING = "| films | n | top | bottom | left | right | correlation | no lung field | mean film |"
EVERY = 6
"""Of the real films, for speed."""


def sources(folder: Path) -> Sources:
    """Real films first: the others are compared with them."""
    films = {
        "DRRs of real chest CTs": chest_films(folder),
        "DRRs of phantoms A, 64³": phantom_films("A"),
        "DRRs of phantoms B, 64³": phantom_films("B"),
        f"twin of {TWIN.count} films": twin_films(),
    }
    real = [frame(real_film(path)) for path in real_paths(folder)[::EVERY]]
    framed = {name: [frame(film) for film in some] for name, some in films.items()}
    return {"ChestXray2017, every sixth": real, **framed}


def row(name: str, framed: list[Framed], real: list[Framed]) -> str:
    """Mean and deviation of each edge, and how the mean film correlates with the real one."""
    found = [(f.box.top, f.box.bottom, f.box.left, f.box.right, f.likeness) for f in framed]
    middle, spread = np.mean(found, axis=0), np.std(found, axis=0)
    cells = [f"{m:.2f} ± {s:.2f}" for m, s in zip(middle, spread, strict=True)]
    lost = sum("no_lung_field" in f.notes for f in framed)
    mean, mean_real = (np.mean([f.film_UV for f in some], axis=0) for some in (framed, real))
    alike = "-" if framed is real else f"{np.corrcoef(mean.ravel(), mean_real.ravel())[0, 1]:.2f}"
    return f"| {name} | {len(framed)} | {' | '.join(cells)} | {lost} | {alike} |"


def main() -> None:
    """Print the table, and put it in its page where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("real", type=Path, help="the folder of real images")
    parser.add_argument("--write", type=Path, metavar="PAGE")
    asked = parser.parse_args()
    found = sources(asked.real)
    real = next(iter(found.values()))
    table = [HEADING, "|---" * (HEADING.count("|") - 1) + "|"]
    table += [row(name, framed, real) for name, framed in found.items()]
    print("\n".join(table))
    if asked.write:
        put_table(asked.write, table)


if __name__ == "__main__":
    main()
