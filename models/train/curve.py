"""Draws the loss curves of both models as an SVG picture."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

WIDTH, HEIGHT, LEFT, TOP = 760, 400, 56, 34
COLOURS = {"warm": "#889999", "target": "#2255aa", "draft": "#cc6622"}
LABELS = {"warm": "warm-up", "target": "target, with the copying circuit", "draft": "draft, mixed with distance from target"}


def smooth(values: list[float], span: int = 20) -> list[float]:
    return [sum(values[max(0, i - span + 1) : i + 1]) / len(values[max(0, i - span + 1) : i + 1]) for i in range(len(values))]


def draw(histories: dict[str, list[dict]], step_tokens: int) -> str:
    last = max(len(h) for h in histories.values()) * step_tokens / 1e6
    curves = {n: smooth([p["loss"] for p in h]) for n, h in histories.items()}
    top = 4.0
    inner_w, inner_h = WIDTH - LEFT - 20, HEIGHT - TOP - 46
    x = lambda tokens: LEFT + inner_w * tokens / last
    y = lambda loss: TOP + inner_h * (1 - min(loss, top) / top)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="12">', f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>']
    for loss in (0, 1, 2, 3, 4):
        parts.append(f'<line x1="{LEFT}" y1="{y(loss):.1f}" x2="{LEFT + inner_w}" y2="{y(loss):.1f}" stroke="#ddd"/><text x="{LEFT - 8}" y="{y(loss) + 4:.1f}" text-anchor="end">{loss}</text>')
    for tokens in range(0, int(last) + 1, max(2, round(last / 12))):
        parts.append(f'<text x="{x(tokens):.1f}" y="{TOP + inner_h + 18}" text-anchor="middle">{tokens}</text>')
    for i, (name, curve) in enumerate(curves.items()):
        every = max(1, len(curve) // 700)
        points = " ".join(f"{x((s + 1) * step_tokens / 1e6):.1f},{y(l):.1f}" for s, l in enumerate(curve) if s % every == 0)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{COLOURS[name]}" stroke-width="1.5"/><text x="{LEFT + 20 + i * 200}" y="20" fill="{COLOURS[name]}">{LABELS[name]}</text>')
        phases = histories[name]
        if name == "target":
            for s in range(1, len(phases)):
                if phases[s]["phase"] != phases[s - 1]["phase"]:
                    at = x(s * step_tokens / 1e6)
                    parts.append(f'<line x1="{at:.1f}" y1="{TOP}" x2="{at:.1f}" y2="{TOP + inner_h}" stroke="#999" stroke-dasharray="4 4"/><text x="{at + 4:.1f}" y="{TOP + 12}" fill="#666">phase {phases[s]["phase"]}</text>')
    parts.append(f'<text x="{LEFT + inner_w / 2}" y="{HEIGHT - 8}" text-anchor="middle">million tokens of each run (weighted next-token loss, mean of 20 steps; dashed: the target\'s next phase)</text></svg>')
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--runs", nargs="+", default=["main", "second", "third", "last"], help="the target's runs, in order")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    history = lambda names: [p for n in names if (arguments.work / f"{n}.pt").exists() for p in torch.load(arguments.work / f"{n}.pt", weights_only=True)["history"]]
    histories = {"warm": history(["warm"]), "target": history(arguments.runs), "draft": history(["draft"])}
    arguments.out.write_text(draw(histories, 8192), encoding="utf-8")


if __name__ == "__main__":
    main()
