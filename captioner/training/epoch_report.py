"""The report after each epoch: captions of some validation photos, and the curves so far."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import keras
import numpy as np

from captioner.checkpoint.file_names import LOSS_PLOT
from captioner.data.datasets import Record
from captioner.data.images import load_image, to_network_input
from captioner.data.mixture import captions_of_people
from captioner.data.vocabulary import Vocabulary
from captioner.data.words import join_words
from captioner.errors import CaptionerError
from captioner.files import write_bytes
from captioner.model.backend import compiles_whole_steps, predict
from captioner.model.caption_model import CaptionModel, EndToEndModel
from captioner.model.decoding import DecodingLoop, chooser_for, decode
from captioner.model.decoding_options import DecodingOptions
from captioner.model.feature_cache import FeatureCache
from captioner.model.function_words import UNFINISHED, repeatable_ids
from captioner.training.loss_plot import loss_plot
from captioner.training.training_state import History, Model

logger = logging.getLogger(__name__)

PHOTOS = 3  # the number of photos that are captioned after each epoch
GREEDY = DecodingOptions("greedy")


@dataclass(frozen=True)
class EpochReport:
    """Reports on a run. It is called after each epoch.

    The photos are the same in every epoch, and are spread over the validation photos.
    """

    records: Sequence[Record]
    vocabulary: Vocabulary
    cache: FeatureCache
    output: Path
    finished: tuple[tuple[str, History], ...] = ()  # the phases before this one
    # The decoding loop of each model, and a copy of each network.
    compiled: dict[keras.Model, keras.Model] = field(default_factory=dict)

    @classmethod
    def of(
        cls, val: Sequence[Record], vocabulary: Vocabulary, cache: FeatureCache, output: Path
    ) -> EpochReport:
        """The report of a run that validates on `val`."""
        step = max(1, len(val) // PHOTOS)
        return cls(list(val[::step][:PHOTOS]), vocabulary, cache, output)

    def after(self, phase: str, history: History) -> EpochReport:
        """The report of the phase that follows `phase`."""
        return replace(self, finished=(*self.finished, (phase, history)))

    def __call__(self, phase: str, model: Model, history: History) -> None:
        """Draws `loss.png` in the output folder, and logs captions, each with a reference.

        If this fails, the run continues, because the epoch has been saved already.

        Args:
            phase: What an epoch of the phase is called.
            model: The model after the epoch.
            history: The history of the phase so far.
        """
        self.draw((phase, history))
        try:
            for record, caption in zip(self.records, self.captions(model), strict=True):
                reference = (captions_of_people(record) or record.captions)[0]
                logger.info('  %s: "%s" (a reference: "%s")', record.image_id, caption, reference)
        except (CaptionerError, OSError) as error:
            logger.warning("nothing to look at after this epoch: %s", error)

    def draw(self, *phases: tuple[str, History]) -> None:
        """Draws the finished phases and `phases` in the output folder, or logs why that failed."""
        try:
            write_bytes(self.output / LOSS_PLOT, self.plot(*phases))
        except OSError as error:
            logger.warning("no plot of the losses: %s", error)

    def plot(self, *phases: tuple[str, History]) -> bytes:
        """Draws the finished phases and `phases` as a PNG."""
        return loss_plot([*self.finished, *phases])

    def captions(self, model: Model) -> list[str]:
        """Captions of the photos, by greedy search."""
        if isinstance(model, EndToEndModel):
            features, model = self._seen_by(model.backbone), model.captions
        else:
            features = self.cache.gather([record.image_id for record in self.records])
        words = decode(self._loop(model), features, GREEDY).words[:, 0]  # (photos, steps)
        known = [self.vocabulary.decode(row.tolist())[: GREEDY.max_words] for row in words]
        return [join_words(some) for some in known]

    def _loop(self, model: CaptionModel) -> DecodingLoop:
        if model not in self.compiled:
            self.compiled[model] = DecodingLoop(
                model,
                chooser_for(GREEDY),
                GREEDY.rows,
                # As captions are decoded later, when the checkpoint is used.
                unfinished=self.vocabulary.ids(UNFINISHED),
                repeatable=repeatable_ids(self.vocabulary),
            )
        return self.compiled[model]

    def _seen_by(self, backbone: keras.Model) -> np.ndarray:
        """Features by a backbone that is being trained: float32 (photos, locations, channels)."""
        if backbone not in self.compiled:
            # This is a separate model with the same layers, so that the trained one is not changed.
            twin = keras.Model(backbone.inputs, backbone.outputs[0])
            twin.compile(jit_compile=compiles_whole_steps())
            self.compiled[backbone] = twin
        size = backbone.input_shape[1]
        photos = [to_network_input(load_image(record.path), size) for record in self.records]
        maps = np.asarray(predict(self.compiled[backbone], np.stack(photos)))
        return maps.astype(np.float32).reshape(len(photos), -1, maps.shape[-1])
