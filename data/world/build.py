"""Makes the shipped encyclopaedia from a seed: `python -m data.world.build [FOLDER]`.

Articles, the same facts as an SQL script, and request traces. Every name is of the held-out split, so that no model
has met what it is asked to look up; the phrases are those of training, so that it can read what it finds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from random import Random

from data.world.database import as_sql
from data.world.facts import World, draw_world
from data.world.passages import article
from tinyllm.traces import PUBLISHED_MEANS, make_trace

FOLDER = Path(__file__).parents[1] / "encyclopaedia"
SEED = 20
#: 2,000 articles; people are many because every other kind refers to them.
COUNTS = {"person": 700, "town": 400, "company": 300, "bridge": 200, "dish": 200, "event": 200}

NUM_REQUESTS = 500
#: Arrivals: name -> shape of the gamma distribution of the gaps (mean: a second). Shape 1 is a Poisson process;
#: below, requests come in bursts (the `burstiness` of vLLM's `bench serve`).
ARRIVALS = {"poisson": 1.0, "bursty": 0.25}


def draw_encyclopaedia() -> World:
    """The world that the shipped files tell about."""
    return draw_world(Random(SEED), COUNTS, held_out=True)


def articles(world: World) -> list[dict[str, int | str]]:
    """An article for each entity: id (from 1), kind, title and text."""
    rng = Random(f"articles:{SEED}")
    rows: list[dict[str, int | str]] = []
    for number, entity in enumerate(world.entities.values(), 1):
        title, _, text = article(rng, world, entity).partition("\n\n")
        rows.append({"id": number, "kind": entity.kind, "title": title, "text": text})
    return rows


def traces() -> dict[str, dict[str, list[int]] | dict[str, list[float]]]:
    """Lengths in tokens by data set, and arrival times in seconds by process; any of one goes with any of the other."""
    lengths = {}
    for name in PUBLISHED_MEANS:
        trace = make_trace(name, NUM_REQUESTS, seed=SEED)
        lengths[f"{name} prompt tokens"] = [len(request.prompt_token_ids) for request in trace]
        lengths[f"{name} output tokens"] = [request.output_len for request in trace]
    return {"lengths": lengths, "arrivals": {name: arrival_times(shape) for name, shape in ARRIVALS.items()}}


def arrival_times(shape: float) -> list[float]:
    """When each request comes, in seconds with three decimals; multiply by seconds per request for another rate."""
    rng = Random(f"arrivals:{SEED}")
    now, times = 0.0, []
    for _ in range(NUM_REQUESTS):
        now += rng.gammavariate(shape, 1 / shape)
        times.append(round(now, 3))
    return times


def build(folder: Path) -> None:
    """Write the three files into a folder; the bytes follow from the seed alone."""
    world = draw_encyclopaedia()
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "articles.jsonl": "".join(json.dumps(row) + "\n" for row in articles(world)),
        "facts.sql": as_sql(world),
        "traces.json": json.dumps(traces()) + "\n",
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    build(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
