"""The table people read: measured and quoted never share a column."""

from synth_ct.evaluation.render import markdown, written
from synth_ct.evaluation.table import Row, System
from synth_ct.kit.statistics import Estimate

QUOTES = {"ours": {"psnr": "23.57 ± 1.205"}, "theirs": {"psnr": "22.28"}, "odd": {"gpu_gb": "3"}}
ROWS = [
    Row(
        system=System(name="ours", params=7_300_000, tmacs=1.67),
        protocol=protocol,
        n=30,
        metrics={"psnr": Estimate(24.123, 1.0, 23.9, 24.4)},
        absent={"lpips": "no weights"},
    )
    for protocol in ("hu1500", "x2ct")
]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_quoted_values_have_a_column_of_their_own() -> None:
    lines = markdown(ROWS, ("psnr", "lpips"), QUOTES).splitlines()
    header, first, second, cited = (cells(lines[n]) for n in (0, 2, 3, 4))
    measured, quoted = header.index("PSNR (dB)"), header.index("PSNR (dB), quoted")
    assert first[measured] == "24.12 ± 1.00 [23.90, 24.40]"
    assert first[quoted] == "23.57 ± 1.205"
    assert second[quoted] == "-", "a quote is not repeated under another protocol"
    assert cited[0] == "theirs"
    assert (cited[measured], cited[quoted]) == ("not run", "22.28")
    assert lines[5] == "", "a system without a quote in these columns is left out"
    assert "LPIPS, quoted" not in header


def test_lines_are_aligned_so_that_the_source_reads_as_a_table() -> None:
    table = markdown(ROWS, ("psnr",), QUOTES).split("\n\n")[0].splitlines()
    assert len({len(line) for line in table}) == 1


def test_below_it_stands_what_must_be_known() -> None:
    text = markdown(ROWS, ("psnr", "lpips"), {}, ("* Phantoms.",))
    assert "* hu1500: HU window [-1000, 1500]" in text
    assert "* x2ct: " in text
    assert "* No LPIPS: no weights." in text
    assert text.endswith("* Phantoms.\n")
    assert "quoted" not in text.splitlines()[0]


def test_an_estimate_is_written_as_far_as_it_goes() -> None:
    assert written(Estimate(0.12345), 3) == "0.123"
    assert written(Estimate(0.1, None, 0.05, 0.15), 2) == "0.10 [0.05, 0.15]"


def test_a_reason_says_for_which_rows_it_holds() -> None:
    def row(system: str, protocol: str, why: str) -> Row:
        name = System(name=system)
        return Row(system=name, protocol=protocol, n=3, metrics={}, absent={"psnr": why})

    rows = [
        row("x", "hu1500", "perfect"),
        row("y", "hu1500", "lost"),
        row("x", "x2ct", "none"),
        row("y", "x2ct", "none"),
    ]
    text = markdown(rows, ("psnr",), {})
    assert "* No PSNR (dB) of x: perfect." in text
    assert "* No PSNR (dB) under x2ct: none." in text
