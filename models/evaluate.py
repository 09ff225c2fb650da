#!/usr/bin/env python3
"""Runs held-out prompts through the engine and counts exact answers.

    python3 evaluate.py --fulcrum ../target/release/fulcrum --model pocket.gguf heldout/*.jsonl

Every prompt is rendered as ChatML and answered greedily by `fulcrum generate --raw --json`. Exact match compares
the whole answer; free chat has no single right answer and is only recorded. `--out` keeps every answer with its
token ids, which `train/agreement.py` and `--compare` read.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

LONGEST = {"chat": 96, "rag": 64, "summary": 320, "ui": 96, "reply": 96}


def render(messages: list[dict]) -> str:
    """The chat template of the pocket models."""
    turns = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
    return turns + "<|im_start|>assistant\n"


def answer(arguments: argparse.Namespace, example: dict) -> dict:
    """One greedy answer, as the engine's JSON object."""
    n = arguments.n or LONGEST.get(example["task"], 128)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".txt") as prompt:
        # The engine drops one newline at the end of a file, since editors add one; the prompt ends with its own.
        prompt.write(render(example["messages"]) + "\n")
        prompt.flush()
        command = [arguments.fulcrum, "generate", "--json", "--raw", "-m", str(arguments.model), "-f", prompt.name, "-n", str(n), "--temp", "0", "--ctx", "2048"]
        done = subprocess.run([*command, *arguments.extra], capture_output=True, text=True, encoding="utf-8")
    if done.returncode != 0:
        raise SystemExit(f"{example['id']}: exit code {done.returncode}: {done.stderr.strip()[-400:]}")
    return json.loads(done.stdout)


def exact(example: dict, text: str) -> bool:
    """UI actions are compared as JSON, everything else as text."""
    if example["task"] == "ui":
        try:
            return json.loads(text) == json.loads(example["expected"])
        except ValueError:
            return False
    return text.strip() == example["expected"]


def run_file(arguments: argparse.Namespace, path: Path) -> list[dict]:
    examples = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    examples = examples[: arguments.limit] if arguments.limit else examples
    with ThreadPoolExecutor(arguments.jobs) as pool:
        answers = list(pool.map(lambda e: answer(arguments, e), examples))
    return [{"id": e["id"], "task": e["task"], "kind": e["kind"], "messages": e["messages"], "expected": e["expected"], "text": a["text"], "tokens": a["tokens"], "exact": exact(e, a["text"])} for e, a in zip(examples, answers)]


def compare(results: list[dict], path: Path) -> str:
    """How much of another run's greedy output is the same, over its first 64 tokens."""
    other = {r["id"]: r["tokens"][:64] for r in json.loads(path.read_text(encoding="utf-8"))}
    pairs = [(r["tokens"][:64], other[r["id"]]) for r in results if r["id"] in other]
    same = sum(a == b for a, b in pairs)
    tokens = sum(next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b))) for a, b in pairs)
    return f"{same} of {len(pairs)} outputs equal over 64 tokens; {tokens / max(1, sum(len(b) for _, b in pairs)):.4f} of tokens before the first difference"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--fulcrum", default="fulcrum", help="the engine's command line")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("-n", type=int, help="longest answer in tokens")
    parser.add_argument("--limit", type=int, help="examples per file")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--compare", type=Path, help="another run's --out")
    parser.add_argument("--show", type=int, default=0, help="print this many wrong answers per file")
    parser.add_argument("--extra", nargs=argparse.REMAINDER, default=[], help="further arguments for the engine; comes last")
    arguments = parser.parse_args()
    results: list[dict] = []
    for path in arguments.files:
        found = run_file(arguments, path)
        results += found
        right = sum(r["exact"] for r in found)
        print(f"{path.parent.name}/{path.stem}: {right} of {len(found)} exact ({right / len(found):.1%})", flush=True)
        for wrong in [r for r in found if not r["exact"]][: arguments.show]:
            print(f"  {wrong['id']} {wrong['kind']}\n    expected {wrong['expected']!r}\n    got      {wrong['text']!r}")
    if arguments.compare:
        print(compare(results, arguments.compare))
    if arguments.out:
        arguments.out.write_text(json.dumps(results, ensure_ascii=False, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
