"""Measure toastrack against what else there is, and write one report.

    make bench                              # every part
    make bench PARTS="embedding latency"    # some of them
    python benchmarks/bench.py latency --repeats 1 --out /tmp/report
    make bench BENCH_ARGS="--models minilm --repeats 1 --passages 100"    # a quick look

All of it takes about an hour and a half on two cores, 16 GB of memory and 8 GB of disk.

Each part runs in a process of its own and teaches its own options with
`python benchmarks/PART.py --help`. Options that are not in this list go to the parts that know
them; one that no part knows is an error. The report is OUT.md and OUT.json.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import takewhile
from pathlib import Path
from typing import Any

from measuring import Watch, listed, machine, parser, progress

# A part more is a line more: its file has ``arguments`` and ``tables``, see measuring.py.
PARTS = {
    "embedding": "documents and tokens a second, against peers and against the processor's limit",
    "int8": "what a model in 8-bit integers gains and loses, against other precisions",
    "reranking": "pairs of query and document a second, against sentence-transformers",
    "writing": "rows a second into each store, against its own client and other libraries",
    "postgres_writing": "rows a second into Postgres over executemany's, near and far",
    "ingest": "from a file into each store, against other libraries, and how its parts overlap",
    "latency": "how long a query waits: alone, among 64, and behind documents",
    "round_trips": "what a question to Postgres takes over its bare statement, near and far",
    "served": "what a model gives through toastrack serve, of what it gives in one process",
    "hybrid": "nDCG@10 by vectors, by words and by both, over Postgres and Qdrant",
    "search_modes": "how long each of these takes over 200,000 passages in Postgres",
    "memory": "peak memory of an ingest by its number of records",
    "startup": "seconds to import, and from nothing to the first vector",
    "installed": "what a stack weighs on the disk",
    "cuda": "tokens a second on an NVIDIA card, and as a share of what it can do",
}
RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Run the parts, print their tables as they are done, and write the report."""
    known = "\n".join(f"  {name:<12} {what}" for name, what in PARTS.items())
    command = argparse.ArgumentParser(
        usage="bench.py [PART ...] [options]",
        description=f"{__doc__}\nParts, all of them if none is named:\n{known}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--out", type=Path, metavar="OUT", help="the report, without its suffix")
    command.add_argument("--seed", type=int, default=0, help="of everything drawn by chance")
    # Not by argparse: it would take the values of options that it does not know for parts.
    parts = list(takewhile(lambda word: not word.startswith("-"), sys.argv[1:]))
    options, others = command.parse_known_args(sys.argv[1 + len(parts) :])
    for part in parts:
        if part not in PARTS:
            command.error(f"no part is called {part!r}; there are {', '.join(PARTS)}")
    chosen = parts or list(PARTS)
    words = _shared_out(command, chosen, others)
    out: Path = options.out or RESULTS / f"{datetime.now():%Y-%m-%d-%H%M}"
    out.parent.mkdir(parents=True, exist_ok=True)

    watch, described = Watch(), machine()
    report: dict[str, Any] = {"machine": described, "parts": {}}
    text = f"# toastrack, measured\n\n{listed(described)}\n"
    print(text, flush=True)
    failed = []
    for part in chosen:
        progress(f"== {part}")
        with tempfile.TemporaryDirectory() as folder:
            figures = Path(folder) / "figures.json"
            more = ["--seed", str(options.seed), "--json", str(figures), "--machine-known"]
            markdown, code = _run(part, [*words[part], *more])
            if figures.is_file():
                report["parts"][part] = json.loads(figures.read_text(encoding="utf-8"))
            if code:
                failed.append(part)
                broken = f"\nThe part `{part}` ended with {code} before it was done.\n"
                print(broken, flush=True)
                markdown += broken
        text += f"\n## {part}: {PARTS[part]}\n{markdown}"
        # After each part, so that an interrupted run leaves what it has.
        _write(out, text, report)
    report["meanwhile"] = watch.described()
    _write(out, f"{text}\n{listed(report['meanwhile'])}\n", report)
    print(f"\nThe report: {out}.md and {out}.json", flush=True)
    return 1 if failed else 0


def _shared_out(
    command: argparse.ArgumentParser, chosen: Sequence[str], others: Sequence[str]
) -> Mapping[str, list[str]]:
    """Return for each part those of the further options that it knows."""
    given: list[list[str]] = []
    for word in others:
        if word.startswith("--"):
            given.append([word])
        elif given:
            given[-1].append(word)
        else:
            command.error(f"{word!r} is not an option; name the parts first")
    words: dict[str, list[str]] = {part: [] for part in chosen}
    for group in given:
        name = group[0].partition("=")[0]
        takers = []
        for part in chosen:
            module = importlib.import_module(part)
            known = {
                flag
                for action in parser(module.__doc__, module.arguments)._actions
                for flag in action.option_strings
            }
            if name in known:
                takers.append(part)
                words[part] += group
        if not takers:
            command.error(f"{name} is known to none of {', '.join(chosen)}")
    return words


def _run(part: str, words: Sequence[str]) -> tuple[str, int]:
    """Run a part, pass on what it prints, and return that and its exit status."""
    print(f"\n## {part}: {PARTS[part]}", flush=True)
    path = Path(__file__).parent / f"{part}.py"
    lines = []
    with subprocess.Popen(
        [sys.executable, str(path), *words], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    return "".join(lines), child.returncode


def _write(out: Path, text: str, report: Mapping[str, Any]) -> None:
    for suffix, content in ((".md", text), (".json", json.dumps(report, indent=2) + "\n")):
        Path(f"{out}{suffix}").write_text(content, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
