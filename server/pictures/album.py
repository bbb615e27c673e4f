"""All pictures of one model on one set of test images, by name."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from common.mnist import Images
from common.models import Network
from common.training import Prepare
from server.pictures.colours import Picture
from server.pictures.confusion import confusion_matrix, confusions
from server.pictures.layers import feature_maps, first_filters, one_of_each
from server.pictures.mistakes import mistakes_sheet, probabilities_of, surest_mistakes


def pictures(model: Network, test: Images, prepare: Prepare, answers: Tensor) -> Iterator[tuple[str, Picture]]:
    """The pictures of ``model`` with their names: letters, digits, ``_`` and ``/``.

    Args:
        model: holding the weights to look at.
        test: the test images.
        prepare: from these images to what the network reads.
        answers: float32 [N, 10], what the model answered to the test images.
    """
    yield "confusion_matrix", confusion_matrix(confusions(test.labels, answers))
    yield "surest_mistakes", mistakes_sheet(test.images, surest_mistakes(test.labels, probabilities_of(answers)))
    layer, picture = first_filters(model)
    yield f"filters/{layer}", picture
    for layer, picture in feature_maps(model, test.images[one_of_each(test.labels)], prepare):
        yield f"features/{layer}", picture
