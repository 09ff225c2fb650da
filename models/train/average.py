"""Averages the weights of several checkpoints: the ends of runs that began with one another.

Each end has forgotten something that another remembers; their mean lies in the same valley and is better than any of them (Wortsman et
al., "Model soups", 2022).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("checkpoints", type=Path, nargs="+")
    arguments = parser.parse_args()
    states = [torch.load(path, weights_only=True) for path in arguments.checkpoints]
    masters = [state["optimizer"]["masters"] for state in states]
    states[-1]["optimizer"]["masters"] = {name: sum(m[name] for m in masters) / len(masters) for name in masters[0]}
    torch.save(states[-1], arguments.out)


if __name__ == "__main__":
    main()
