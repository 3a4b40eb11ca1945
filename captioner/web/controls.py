"""What the visitor sets: how many captions, and how they are searched for."""

from __future__ import annotations

import math
from typing import Any

import gradio as gr

from captioner.model.decoding import STRATEGIES, DecodingOptions
from captioner.web import responses
from captioner.web.responses import MAX_CAPTIONS

COMPARE = "compare"  # on the page: all strategies side by side

# The address bar has the link whatever the browser lets a page do with the clipboard.
COPY_LINK = """(...values) => {
    const names = ["captions", "strategy", "temperature", "top_p", "seed"];
    const link = new URL(location.href);
    link.search = new URLSearchParams(names.map((name, i) => [name, values[i]]));
    const example = document.querySelector("#viewer .result")?.dataset.example;
    if (example) link.searchParams.set("example", example);
    history.replaceState(null, "", link);
    navigator.clipboard?.writeText(link.href).catch(() => {});
}"""
LINK_COPIED = "The link is in the address bar, and in the clipboard if your browser allows that."


def add_options() -> tuple[list[gr.components.Component], gr.Button]:
    """How many captions, strategy, temperature, top-p and seed; and the link to these."""
    with gr.Accordion("How many captions, and how", open=False):
        options = [
            gr.Slider(1, MAX_CAPTIONS, 3, step=1, label="Number of captions"),
            gr.Radio(
                (*STRATEGIES, COMPARE),
                value="sample",
                label="Strategy",
                info="Samples differ; greedy takes the best next word; beam looks further ahead; "
                "compare shows all three.",
            ),
            gr.Slider(
                0.1, 2.0, 0.5, step=0.1, label="Temperature", info="For samples: higher is wilder."
            ),
            gr.Slider(
                0.05,
                1.0,
                1.0,
                step=0.05,
                label="Top-p",
                info="For samples: only from the likeliest words that have this much probability.",
            ),
            gr.Number(
                0, label="Seed", precision=0, minimum=0, info="The same seed, the same samples."
            ),
        ]
        link = gr.Button("Copy a link to these options", size="sm")
    return options, link


def search_plan(
    num_captions: Any, strategy: Any, temperature: Any, top_p: Any, seed: Any
) -> list[DecodingOptions]:
    """What the controls ask for: one search, or one of each strategy.

    Raises gr.Error naming the control whose value is wrong.
    """
    several = ("greedy", "beam", "sample") if strategy == COMPARE else (strategy,)
    return [
        responses.search_options(num_captions, each, temperature, seed, top_p) for each in several
    ]


def from_link(request: gr.Request) -> list[Any]:
    """The options that a link asks for; what makes no sense is left as it is."""
    query = request.query_params
    numbers: dict[str, float] = {}
    for name, low, high in (
        ("captions", 1, MAX_CAPTIONS),
        ("temperature", 0.1, 2.0),
        ("top_p", 0.05, 1.0),
        ("seed", 0, 2**32 - 1),
    ):
        try:
            value = float(query.get(name, "nan"))
        except ValueError:
            continue
        if low <= value <= high:
            numbers[name] = value if name in ("temperature", "top_p") else math.floor(value)
    strategy = query.get("strategy")
    return [
        numbers.get("captions", gr.skip()),
        strategy if strategy in (*STRATEGIES, COMPARE) else gr.skip(),
        *(numbers.get(name, gr.skip()) for name in ("temperature", "top_p", "seed")),
    ]
