"""The controls with which visitors choose how many captions they get and how these are found."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import gradio as gr

from captioner.model.decoding_options import (
    BOUNDS,
    DEFAULTS,
    MEANINGS,
    STRATEGIES,
    DecodingOptions,
)
from captioner.web import responses

COMPARE = "compare"  # the choice on the page that shows all strategies side by side

# The options of the search that the page has a control for, and the name of each in a link.
_LINK_NAMES = {
    "num_captions": "captions",
    "strategy": "strategy",
    "temperature": "temperature",
    "top_p": "top_p",
    "seed": "seed",
}
_LABELS = {
    "num_captions": "Number of captions",
    "strategy": "Strategy",
    "temperature": "Temperature",
    "top_p": "Top-p",
    "seed": "Seed",
}
_STEPS = {"num_captions": 1, "temperature": 0.1, "top_p": 0.05}  # of the sliders

# Browsers may forbid a page to use the clipboard, so the link appears in the address bar as well.
COPY_LINK = """async (...values) => {
    const names = NAMES;
    const link = new URL(location.href);
    link.search = new URLSearchParams(names.map((name, i) => [name, values[i]]));
    const example = document.querySelector("#viewer .result")?.dataset.example;
    if (example) link.searchParams.set("example", example);
    history.replaceState(null, "", link);
    const copied = await navigator.clipboard?.writeText(link.href).then(() => true, () => false);
    const button = document.querySelector("#copy-link");
    button.dataset.label ??= button.textContent;
    button.textContent = copied ? "Copied; the link is in the address bar, too"
        : "The link is in the address bar";
    document.dispatchEvent(new CustomEvent("captioner:say", { detail: button.textContent }));
    clearTimeout(button.flashing);
    button.flashing = setTimeout(() => { button.textContent = button.dataset.label; }, 4000);
}""".replace("NAMES", json.dumps(list(_LINK_NAMES.values())))


def _limits(option: str) -> tuple[str, float | None, float | None, bool]:
    """The option's name in a link, its bounds if it is a number, and whether it is a whole one."""
    if option not in BOUNDS:
        return _LINK_NAMES[option], None, None, False
    bounds = BOUNDS[option].for_visitors
    return _LINK_NAMES[option], bounds.low, bounds.high, bounds.whole


# A link sets the options; values in it that are not valid are ignored. The browser does this,
# because an answer of the server that comes while the page loads could arrive after the visitor's
# first request.
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
}""".replace("LIMITS", json.dumps([_limits(option) for option in _LINK_NAMES])).replace(
    "STRATEGIES", json.dumps((*STRATEGIES, COMPARE))
)


def add_options() -> tuple[list[gr.components.Component], gr.Button]:
    """Adds the controls of the search to the `gr.Blocks` that is being built.

    Returns:
        The controls, in the order that `search_plan` takes their values, and the button that
        copies a link to them.
    """
    with gr.Accordion("How many captions, and how", open=False):
        options = [
            search_control(
                option,
                also=(COMPARE,),
                info="Samples differ; greedy takes the most probable next word; beam looks further "
                "ahead; compare shows all three.",
            )
            if option == "strategy"
            else search_control(option)
            for option in _LINK_NAMES
        ]
        link = gr.Button("Copy a link to these options", size="sm", elem_id="copy-link")
    return options, link


def search_control(
    option: str, also: Sequence[str] = (), info: str | None = None, visible: bool = True
) -> gr.components.Component:
    """The control of one option, with its default and its bounds for visitors.

    Args:
        option: The option's name in `DecodingOptions`.
        also: Further strategies to choose from.
        info: The text below the label; None: what the option means.
        visible: Whether visitors see the control.
    """
    looks: dict[str, Any] = {
        "label": _LABELS[option],
        "info": info or f"{MEANINGS[option][0].upper()}{MEANINGS[option][1:]}.",
        "visible": visible,
    }
    if option == "strategy":
        return gr.Radio((*STRATEGIES, *also), value=DEFAULTS.strategy, **looks)
    bounds = BOUNDS[option].for_visitors
    if option == "seed":
        return gr.Number(DEFAULTS.seed, precision=0, minimum=bounds.low, **looks)
    default = DEFAULTS.top_p or 1.0 if option == "top_p" else getattr(DEFAULTS, option)
    return gr.Slider(bounds.low, bounds.high, default, step=_STEPS[option], **looks)


def search_plan(
    num_captions: Any, strategy: Any, temperature: Any, top_p: Any, seed: Any
) -> list[DecodingOptions]:
    """The searches that the values of the controls ask for: one, or one per strategy.

    Raises:
        gr.Error: A value is out of its bounds; the message names its control.
    """
    several = ("greedy", "beam", "sample") if strategy == COMPARE else (strategy,)
    return [
        responses.search_options(num_captions, each, temperature, seed, top_p) for each in several
    ]
