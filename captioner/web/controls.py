"""What the visitor sets: how many captions, and how they are searched for."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr

from captioner.model.decoding_options import BOUNDS, DEFAULTS, STRATEGIES, DecodingOptions
from captioner.web import responses

COMPARE = "compare"  # on the page: all strategies side by side

# The address bar has the link whatever the browser lets a page do with the clipboard.
COPY_LINK = """async (...values) => {
    const names = ["captions", "strategy", "temperature", "top_p", "seed"];
    const link = new URL(location.href);
    link.search = new URLSearchParams(names.map((name, i) => [name, values[i]]));
    const example = document.querySelector("#viewer .result")?.dataset.example;
    if (example) link.searchParams.set("example", example);
    history.replaceState(null, "", link);
    const copied = await navigator.clipboard?.writeText(link.href).then(() => true, () => false);
    const button = document.querySelector("#copy-link");
    const before = button.textContent;
    button.textContent = copied ? "Copied; the link is in the address bar, too"
        : "The link is in the address bar";
    document.dispatchEvent(new CustomEvent("captioner:say", { detail: button.textContent }));
    setTimeout(() => { button.textContent = before; }, 4000);
}"""
# The name of each option in a link, what it may be, and whether it is a whole number.
_LIMITS = [
    (link, bounds.low, bounds.high, bounds.whole) if bounds else (link, None, None, False)
    for link, bounds in (
        ("captions", BOUNDS["num_captions"].for_visitors),
        ("strategy", None),
        ("temperature", BOUNDS["temperature"].for_visitors),
        ("top_p", BOUNDS["top_p"].for_visitors),
        ("seed", BOUNDS["seed"].for_visitors),
    )
]
# A link sets the options; what makes no sense in it is left as it is. In the browser, because an
# answer of the server, as the page loads, could come in the way of what the visitor asks for first.
READ_LINK = """(...values) => {
    const query = new URL(location.href).searchParams;
    const limits = LIMITS;
    return values.map((value, i) => {
        const [name, low, high, whole] = limits[i];
        const asked = query.get(name);
        if (name === "strategy") return STRATEGIES.includes(asked) ? asked : value;
        const number = asked === null || asked.trim() === "" ? NaN : Number(asked);
        return number >= low && number <= high ? (whole ? Math.floor(number) : number) : value;
    });
}""".replace("LIMITS", json.dumps(_LIMITS)).replace(
    "STRATEGIES", json.dumps((*STRATEGIES, COMPARE))
)


def add_options() -> tuple[list[gr.components.Component], gr.Button]:
    """How many captions, strategy, temperature, top-p and seed; and the link to these."""
    with gr.Accordion("How many captions, and how", open=False):
        options = [
            _slider("num_captions", DEFAULTS.num_captions, 1, label="Number of captions"),
            gr.Radio(
                (*STRATEGIES, COMPARE),
                value=DEFAULTS.strategy,
                label="Strategy",
                info="Samples differ; greedy takes the best next word; beam looks further ahead; "
                "compare shows all three.",
            ),
            _slider(
                "temperature",
                DEFAULTS.temperature,
                0.1,
                label="Temperature",
                info="For samples: higher is wilder.",
            ),
            _slider(
                "top_p",
                1.0,
                0.05,
                label="Top-p",
                info="For samples: only from the likeliest words that have this much probability.",
            ),
            gr.Number(
                DEFAULTS.seed,
                label="Seed",
                precision=0,
                minimum=BOUNDS["seed"].low,
                info="The same seed, the same samples.",
            ),
        ]
        link = gr.Button("Copy a link to these options", size="sm", elem_id="copy-link")
    return options, link


def _slider(option: str, value: float, step: float, **looks: Any) -> gr.Slider:
    bounds = BOUNDS[option].for_visitors
    return gr.Slider(bounds.low, bounds.high, value, step=step, **looks)


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
