"""Rule: every picture shows what it says, of every network, and a model that diverged is drawn as well."""

import numpy as np
import pytest
import torch

from common import models
from common.layers import load
from common.mnist import Images
from common.preprocessing import Preprocessing
from server.pictures.album import pictures
from server.pictures.colours import BLUES, SIGNED, coloured, grey, signed
from server.pictures.confusion import CELL, MARGIN, confusion_matrix, confusions
from server.pictures.layers import feature_maps, first_filters, one_of_each
from server.pictures.mistakes import Mistake, mistakes_sheet, probabilities_of, surest_mistakes
from server.pictures.sheet import beside, enlarged, in_columns

pytestmark = pytest.mark.usefixtures("one_thread")
WHITE, BLACK = [255, 255, 255], [0, 0, 0]

# Of each network its pictures, with their heights and widths in pixels.
CONV_28, CONV_10 = (
    (612, 426),
    (612, 910),
)  # ten rows of 56 + 4 less 4, in a margin of 8; 56 + 8 + maps of 56 + 2, or 50 + 2
SHEETS = {
    "lenet5": {"filters/conv1": (96, 516), "features/conv1": CONV_28, "features/conv2": CONV_10},
    "lenet5-sigmoid": {
        "filters/conv1": (96, 516), "features/conv1": CONV_28, "features/conv2": CONV_10, "features/conv3": (672, 558),
    },
    "lenet5-28": {"filters/conv1": (96, 516), "features/conv1": (612, 378), "features/conv2": (612, 1006)},
    "mlp": {"filters/fc1": (612, 612)},
    "cnn": {"filters/conv1": (188, 716), "features/conv1": (612, 942)},
}  # fmt: skip


def digits(count: int = 30) -> Images:
    """Noise, labelled 9, 8, … 0 and again."""
    noise = torch.randint(0, 256, (count, 28, 28), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    return Images(noise, 9 - torch.arange(count) % 10)


def preprocessing(name: str) -> Preprocessing:
    settings = load(("the test", {"model.name": name}))
    return Preprocessing.of(settings.model, settings.preprocessing)


def network(name: str, factor: float = 1.0) -> models.Network:
    model = models.build(name)
    model.load_state_dict({key: value * factor for key, value in models.initial_state(name, seed=1).items()})
    return model.eval()


@pytest.mark.parametrize("name", models.MODELS)
def test_every_network_has_its_pictures(name: str) -> None:
    model, test, prepare = network(name), digits(), preprocessing(name).prepare
    with torch.no_grad():
        found = dict(pictures(model, test, prepare, model(prepare(test.images))))
    assert {name: picture.shape[:2] for name, picture in found.items()} == {
        "confusion_matrix": (350, 350),  # ten cells of 28 in margins of 35
        "surest_mistakes": (470, 350),  # five places of 66 x 90, gaps of 2, margins of 6
    } | SHEETS[name]
    for picture in found.values():
        assert picture.dtype == np.uint8
        assert len(np.unique(picture)) > 10  # shades: it is no empty sheet


@pytest.mark.parametrize("name", models.MODELS)
@pytest.mark.filterwarnings("error")
def test_a_model_that_diverged_is_drawn(name: str) -> None:
    model, test, prepare = network(name, factor=1e37), digits(), preprocessing(name).prepare
    with torch.no_grad():
        answers = model(prepare(test.images))
    assert not answers.isfinite().all()
    assert len(dict(pictures(model, test, prepare, answers))) == 2 + len(SHEETS[name])


def test_confusions_are_counted_by_what_it_is_and_what_it_was_taken_for() -> None:
    labels = torch.tensor([3, 3, 3, 5, 0])
    taken_for = torch.tensor([3, 8, 8, 5, 6])
    answers = torch.nn.functional.one_hot(taken_for, 10).float()
    counts = confusions(labels, answers)
    assert {(row, column): int(counts[row, column]) for row, column in counts.nonzero().tolist()} == {
        (3, 3): 1, (3, 8): 2, (5, 5): 1, (0, 6): 1,
    }  # fmt: skip


def test_the_confusion_matrix_colours_right_answers_blue_and_mistakes_orange() -> None:
    counts = torch.zeros(10, 10, dtype=torch.int64)
    counts[3, 3], counts[3, 8], counts[5, 8] = 12, 4, 1
    picture = confusion_matrix(counts)
    red, _, blue = corner(picture, 3, 3)
    assert blue > red  # 12 of 16
    commonest, rarer = corner(picture, 3, 8), corner(picture, 5, 8)
    assert commonest[0] > rarer[2] > commonest[2]  # orange; the more, the darker
    assert rarer[0] > rarer[2]
    assert corner(picture, 0, 0) == corner(picture, 8, 3) == WHITE  # none


def corner(picture: np.ndarray, row: int, column: int) -> list[int]:
    """The colour of a cell where no number is written."""
    return picture[MARGIN + row * CELL + 1, MARGIN + column * CELL + 1].tolist()  # type: ignore[no-any-return]


def test_the_surest_mistakes_come_first() -> None:
    labels = torch.tensor([0, 1, 2, 3, 4])
    probabilities = torch.zeros(5, 10)
    probabilities[0, 0] = 1.0  # right
    probabilities[1, 7] = 0.75
    probabilities[2, 5] = 0.5
    probabilities[3, 8] = 0.75
    probabilities[4, 9] = 0.625
    found = surest_mistakes(labels, probabilities, most=3)
    assert found == [Mistake(1, 1, 7, 0.75), Mistake(3, 3, 8, 0.75), Mistake(4, 4, 9, 0.625)]


def test_a_mistake_is_shown_as_the_image_it_was_made_on() -> None:
    images = torch.zeros(2, 28, 28, dtype=torch.uint8)
    images[1, 0, 0] = 255
    sheet = mistakes_sheet(images, [Mistake(1, 4, 9, 0.5)])
    assert (sheet[6:8, 11:13] == 0).all()  # its first pixel, twice as large, after margins of 6 and 5
    assert sheet[8, 13].tolist() == WHITE
    assert (sheet[6 + 56 : 6 + 90, 6 : 6 + 66] < 128).any()  # its caption
    assert (sheet[:, 6 + 66 :] == 255).all()  # the other places are empty


def test_a_model_without_mistakes_has_an_empty_sheet() -> None:
    assert (mistakes_sheet(torch.zeros(1, 28, 28, dtype=torch.uint8), []) == 255).all()


def test_probabilities_are_the_same_from_logits_and_from_log_probabilities() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0]])
    assert torch.allclose(probabilities_of(logits), probabilities_of(logits.log_softmax(dim=1)))
    assert probabilities_of(torch.tensor([[float("nan"), 1.0]])).tolist() == [[0.0, 0.0]]


def test_the_first_example_of_each_digit_is_the_sample() -> None:
    assert one_of_each(torch.tensor([7, 2, 7, 0, 2])).tolist() == [3, 1, 0]


def test_a_filter_is_red_where_it_is_positive_and_blue_where_negative() -> None:
    model = models.LeNet5()
    with torch.no_grad():
        model.conv1.weight.zero_()
        model.conv1.weight[0, 0, 0, 0] = 2.0
        model.conv1.weight[0, 0, 4, 4] = -2.0
    name, picture = first_filters(model)
    assert name == "conv1"
    assert picture[8, 8].tolist() == SIGNED[254].tolist()  # after the margin
    assert picture[8 + 79, 8 + 79].tolist() == SIGNED[0].tolist()  # 5 x 16 pixels
    assert picture[8 + 40, 8 + 40].tolist() == SIGNED[127].tolist() == [247, 247, 247]


def test_feature_maps_are_what_the_convolution_answers() -> None:
    model, prepare = models.LeNet5(), preprocessing("lenet5").prepare
    with torch.no_grad():
        model.conv1.weight.zero_()
        model.conv1.bias = torch.nn.Parameter(torch.tensor([1.0, -1.0, 0.0, 0.0, 0.0, 0.0]))
    picture = dict(feature_maps(model, digits(1).images, prepare))["conv1"]
    middles = [picture[36, 8 + 56 + 8 + 58 * place + 28].tolist() for place in range(3)]
    assert middles == [SIGNED[254].tolist(), SIGNED[0].tolist(), SIGNED[127].tolist()]


def test_looking_leaves_no_hook_behind() -> None:
    model = network("lenet5")
    list(feature_maps(model, digits(1).images, preprocessing("lenet5").prepare))
    assert [layer for layer in model.modules() if layer._forward_hooks] == []


def test_colours_run_from_one_end_of_a_scale_to_the_other() -> None:
    assert coloured(np.array([0.0, 1.0, -3.0, 3.0, np.nan]), BLUES).tolist() == [
        BLUES[0].tolist(), BLUES[254].tolist(), BLUES[0].tolist(), BLUES[254].tolist(), BLUES[0].tolist(),
    ]  # fmt: skip
    assert signed(torch.tensor([-4.0, 0.0, 2.0])).tolist() == SIGNED[[0, 127, 190]].tolist()
    assert grey(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [WHITE, BLACK]


def test_pictures_are_laid_out_with_paper_between() -> None:
    dot = np.zeros((1, 1, 3), dtype=np.uint8)
    assert in_columns([dot, dot, dot], columns=2, gap=1)[..., 0].tolist() == [
        [0, 255, 0],
        [255, 255, 255],
        [0, 255, 255],
    ]
    assert enlarged(dot, 2)[..., 0].tolist() == [[0, 0], [0, 0]]
    assert beside(enlarged(dot, 3), dot, gap=1)[..., 0].tolist() == [
        [0, 0, 0, 255, 255],
        [0, 0, 0, 255, 0],
        [0, 0, 0, 255, 255],
    ]
