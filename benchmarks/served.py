"""What a model gives through `toastrack serve` of what it gives in the process that asks.

    python benchmarks/served.py [--models minilm] [--clients 64] [--repeats 3]

So many clients ask at once, each over a connection of its own and again as soon as it is answered:
for documents, so many in a request, against the same documents in one call of an embedder here; and
for lone queries, against as many coroutines that ask an embedder here. All take turns. The clients
are one process that sends prepared bytes and reads base64, so that they take little of the
processors that the server needs.

A request's processor time outside of the model is what the server's main thread takes for queries that
come one after another: it reads and answers, and the model runs on others. Every vector is compared with the one
that was made here, and the server's memory is read after each turn.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from inputs import Subject, passages, queries, subject
from measuring import Contestant, Table, main, needs, seconds, take_turns

from toastrack import Embedder
from toastrack.models.engine_choice import is_installed
from toastrack.utils import arrays

COLUMNS = {
    "": "",
    "texts/s": ",.0f",
    "of here": ".2f",
    "server's memory, MB": ",.0f",
    "wrong vectors": "d",
}
_TICKS = os.sysconf("SC_CLK_TCK")
# In bfloat16, a text's vector depends a little on what shares its batch.
_ALIKE = 0.999


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this part."""
    parser.add_argument("--models", nargs="+", default=["minilm"], metavar="MODEL")
    parser.add_argument("--clients", type=int, default=64, help="that ask at once")
    parser.add_argument("--texts", type=int, default=8, help="documents of a request")
    parser.add_argument("--requests", type=int, default=4, help="of each client and turn")
    parser.add_argument("--repeats", type=int, default=3, help="turns each; the median counts")


def tables(options: argparse.Namespace) -> Iterator[Table]:
    """Measure each model."""
    needs("uvicorn", "uvicorn")
    for name in options.models:
        yield measured(subject(name), options)


def measured(model: Subject, options: argparse.Namespace) -> Table:
    """Ask one server and one embedder here, in turns."""
    folder = model.exported if is_installed("openvino") else model.folder
    table = Table(
        f"{model.name} through a server, {options.clients} clients at once, beside an embedder here",
        COLUMNS,
    )
    clients, most = options.clients, options.clients * options.requests
    documents = passages(clients * options.requests * options.texts, seed=options.seed)
    questions = queries(most, seed=options.seed)
    embedder = Embedder(folder, on_truncate="ignore").load()
    want = {
        "document": embedder.embed_documents(documents),
        "query": embedder.embed_queries(questions),
    }
    with running(folder) as server:
        served = {
            "document": [
                documents[i : i + options.texts] for i in range(0, len(documents), options.texts)
            ],
            "query": [[question] for question in questions],
        }
        wrong = dict.fromkeys(served, 0)
        memory: dict[str, list[float]] = {role: [] for role in served}

        def through_the_server(role: str) -> None:
            found = asyncio.run(asked(server, served[role], role, clients))
            alike = np.einsum("ij,ij->i", found, want[role])
            wrong[role] += int((alike < _ALIKE).sum())
            memory[role].append(server.memory())

        async def one_by_one() -> None:
            share = [questions[i::clients] for i in range(clients)]

            async def client(some: Sequence[str]) -> None:
                for question in some:
                    await embedder.aembed_query(question)

            await asyncio.gather(*map(client, share))

        outcomes = take_turns(
            [
                Contestant(
                    "documents here, one call", lambda: lambda: embedder.embed_documents(documents)
                ),
                Contestant("documents, served", lambda: lambda: through_the_server("document")),
                Contestant(
                    "lone queries here, as many at once", lambda: lambda: asyncio.run(one_by_one())
                ),
                Contestant("lone queries, served", lambda: lambda: through_the_server("query")),
            ],
            options.repeats,
        )
        table.keep(outcomes)
        speeds = {
            name: (len(documents) if "documents" in name else most) / outcome.median
            for name, outcome in outcomes.items()
        }
        here: float = 1
        for name, speed in speeds.items():
            here = speed if "here" in name else here
            role = "document" if "documents" in name else "query"
            if "served" in name:
                table.add(name, speed, speed / here, memory[role][-1], wrong[role])
            else:
                table.add(name, speed)
        of_all = [value for role in served for value in memory[role]]
        table.note(
            f"The server's memory after the first turn and the last: {of_all[0]:,.0f} and {max(memory['query'][-1], memory['document'][-1]):,.0f} MB."
        )
        table.note(outside(server, embedder, questions[:200]))
    return table


def outside(server: Running, embedder: Embedder, questions: Sequence[str]) -> str:
    """Say what a request costs beside the model: processor time, and how long it takes."""
    requests = [[question] for question in questions]
    asyncio.run(asked(server, requests, "query", 1))
    before, started = server.outside(), time.perf_counter()
    asyncio.run(asked(server, requests, "query", 1))
    outside, served = server.outside() - before, time.perf_counter() - started
    embedder.embed_query(questions[0])
    here = seconds(lambda: [embedder.embed_query(question) for question in questions])
    each = 1_000 / len(questions)
    return (
        f"A lone query takes {outside * each:.2f} ms of the processor outside of the model; one "
        f"after another they take {served * each:.1f} ms each through the server and "
        f"{here * each:.1f} here."
    )


# -- the server, and who asks it ------------------------------------------------------------------


class Running:
    """A server in a process of its own."""

    def __init__(self, address: str, pid: int) -> None:
        parts = urlsplit(address)
        self.host, self.port = parts.hostname or "", parts.port or 0
        self._of = Path(f"/proc/{pid}")

    def memory(self) -> float:
        """What it holds in memory, in MB."""
        found = re.search(r"VmRSS:\s+(\d+)", (self._of / "status").read_text())
        return int(found[1]) / 1_000 if found else 0.0

    def outside(self) -> float:
        """The seconds of processor time that its main thread took so far."""
        of_main = self._of / "task" / self._of.name / "stat"
        fields = of_main.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS


@contextmanager
def running(folder: Path) -> Iterator[Running]:
    """Run `toastrack serve` until the block is left."""
    program = "from toastrack.cli import main; main()"
    words = [
        "serve",
        "--model",
        str(folder),
        "--name",
        "model",
        "--port",
        "0",
        "--max-waiting",
        "100000",
    ]
    with subprocess.Popen(
        [sys.executable, "-c", program, *words], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            found = re.search(r"at (\S+)/v1", line)
            assert found is not None, line + process.stderr.read()
            yield Running(found[1], process.pid)
        finally:
            process.terminate()


async def asked(
    server: Running, requests: Sequence[Sequence[str]], role: str, clients: int
) -> arrays.FloatMatrix:
    """Send requests, each client its share of them, and return all vectors in their order."""
    prepared = [
        json.dumps(
            {"model": "model", "input": texts, "input_type": role, "encoding_format": "base64"}
        ).encode()
        for texts in requests
    ]
    answers: list[bytes] = [b""] * len(requests)

    async def client(first: int) -> None:
        reader, writer = await asyncio.open_connection(server.host, server.port)
        for number in range(first, len(requests), clients):
            body = prepared[number]
            writer.write(
                b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
                + body
            )
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            size = re.search(rb"content-length: (\d+)", head)
            assert size is not None
            answers[number] = await reader.readexactly(int(size[1]))
        writer.close()

    await asyncio.gather(*map(client, range(clients)))
    rows = [
        np.frombuffer(base64.b64decode(item["embedding"]), "<f4")
        for answer in answers
        for item in json.loads(answer)["data"]
    ]
    return np.stack(rows)


if __name__ == "__main__":
    main(__doc__, arguments, tables)
