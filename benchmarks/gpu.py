"""What a machine makes of XctDiff: ceilings, parity, speed against the floors, volumes a second.

    PYTHONPATH=. python benchmarks/gpu.py --out build/gpu [--compile] [--size tiny] [--device cpu]

Needs torch, numpy, pydantic, safetensors, nibabel and isal, no more. Weights are random: speed does
not depend on them. At most eight minutes: what would begin later is left out, and says so.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from gpu_bench import SIZES, Bench, Table
from gpu_networks import ceiling_of, ceilings, decoder_speed, denoiser_speed, parity
from gpu_whole import generation, pieces, training

from synth_ct.kit.loop import Diverged

MINUTES = 8.0


def report(bench: Bench) -> list[Table]:
    """All sections that fit into the time; one that fails does not take the others with it."""
    begun = time.monotonic()
    ceiling = ceiling_of(bench)
    sections: dict[str, Callable[[], Table]] = {
        "Ceilings": lambda: ceilings(ceiling, bench.sizes),
        "Parity": lambda: parity(bench),
        "Volumes a second": lambda: generation(bench, ceiling),
        "Pieces": lambda: pieces(bench),
        "Training": lambda: training(bench),
        "Denoiser": lambda: denoiser_speed(bench, ceiling),
        "Decoder": lambda: decoder_speed(bench, ceiling),
    }
    tables = []
    for name, section in sections.items():
        gone = time.monotonic() - begun
        if gone > 60 * (MINUTES - 1):
            tables.append(Table(name, ("not run",), [(f"{gone:.0f} s were gone",)]))
            continue
        try:
            tables.append(section())
        except (RuntimeError, Diverged) as error:  # no memory, a kernel this machine lacks
            tables.append(Table(name, ("failed",), [(str(error).splitlines()[0],)]))
        print(tables[-1].markdown(), flush=True)
    print(f"{time.monotonic() - begun:.0f} s")
    return tables


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--size", choices=SIZES, default="paper")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--compile", action="store_true")
    asked = parser.parse_args()
    device = torch.device(asked.device)
    on_gpu = device.type == "cuda"
    torch.backends.cudnn.benchmark = on_gpu
    head = {
        "device": torch.cuda.get_device_name(device) if on_gpu else "CPU",
        "torch": torch.__version__,
        "cudnn": str(torch.backends.cudnn.version()),
        "size": asked.size,
    }
    title = "# XctDiff on one device\n\n" + ", ".join(f"{k} {v}" for k, v in head.items()) + "\n"
    print(title)
    tables = report(Bench(device, SIZES[asked.size], asked.compile))
    if asked.out:
        asked.out.mkdir(parents=True, exist_ok=True)
        text = "\n".join([title, *(table.markdown() for table in tables)])
        (asked.out / "gpu.md").write_text(text)
        data = head | {"tables": [asdict(table) for table in tables]}
        (asked.out / "gpu.json").write_text(json.dumps(data, indent=1))


if __name__ == "__main__":
    main()
