"""Rule: what TensorBoard gets beside the figures is there when it is due, costs at most 5 %, and never ends a run."""

import io
import re
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.plugin_event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout  # type: ignore[import-untyped]
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData  # type: ignore[import-untyped]
from tensorboard.util.tensor_util import make_ndarray  # type: ignore[import-untyped]

from common import models
from common.layers import load
from common.mnist import Images
from common.preprocessing import Preprocessing
from common.settings import Settings
from common.training import Evaluation, evaluate
from server.phases import Phases
from server.report import LocalModel, NodeEvaluation, NodeReport, Round
from server.storage import tensorboard
from server.storage.gallery import Gallery
from server.storage.overview import CHARTS, METRICS, TELLING, hyperparameters, settings_table
from server.storage.tensorboard import TensorBoardWriter

pytestmark = pytest.mark.usefixtures("one_thread")

PICTURES = {
    "confusion_matrix": (350, 350), "surest_mistakes": (350, 470),
    "filters/conv1": (516, 96), "features/conv1": (426, 612), "features/conv2": (910, 612),
}  # fmt: skip
TEST = Images(torch.arange(20 * 784).remainder(251).to(torch.uint8).view(20, 28, 28), torch.arange(20) % 10)


def settings_of(**changes: Any) -> Settings:
    values = {"tensorboard.images_every": 2, "federation.rounds": 6}
    return load(("the test", values | {key.replace("_", ".", 1): value for key, value in changes.items()}))


class Run:
    """A gallery and its writer, as a server has them."""

    def __init__(self, folder: Path, settings: Settings | None = None, first_step: int = 0, **how: Any) -> None:
        settings = settings or settings_of()
        self.notices: list[str] = []
        self.model = models.build(settings.model.name)
        self.model.load_state_dict(models.initial_state(settings.model.name, seed=1))
        self.prepare = Preprocessing.of(settings.model, settings.preprocessing).prepare
        self.writer = TensorBoardWriter(folder, first_step, self.notices.append)
        self.gallery = Gallery(self.writer, settings, self.model, TEST, self.prepare, self.notices.append, **how)

    def keep(self, number: int, seconds: float = 100.0) -> None:
        evaluation = evaluate(self.model, TEST.images, TEST.labels, self.prepare, with_answers=True)
        done = round_of(number, seconds) if number else None
        self.show(number, evaluation, done)

    def show(self, number: int, evaluation: Evaluation, done: Round | None) -> None:
        self.writer.write(number, evaluation, done)
        self.gallery.show(number, evaluation, done)


def round_of(number: int, seconds: float, norms: tuple[float, ...] = (1.0, 3.0)) -> Round:
    reports = tuple(
        NodeReport("t", number, f"pi-{place}", place, 9, None, "accepted", "", 0.5, 1.0, 1.0, 1, 1, 1, norm)
        for place, norm in enumerate(norms)
    )
    tests = (NodeEvaluation("pi-0", 0.5, 0.75, 9),)
    alone = (LocalModel("pi-0", 0.5, 1.0),)
    phases = Phases(train=1.0)
    return Round(number, {}, reports, bool(norms), 0.5, 0.1, seconds, 1.0, 0.0, 1, 1, tests, alone, phases)


def shown(folder: Path) -> EventAccumulator:
    """What TensorBoard itself makes of the files: everything but graphs is a tensor there."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def steps(folder: Path, tag: str) -> list[int]:
    return [event.step for event in shown(folder).Tensors(tag)]


def values(folder: Path, tag: str) -> list[Any]:
    return [make_ndarray(event.tensor_proto) for event in shown(folder).Tensors(tag)]


def tags(folder: Path, plugin: str) -> set[str]:
    return set(shown(folder).PluginTagToContent(plugin)) if plugin in shown(folder).ActivePlugins() else set()


def test_pictures_come_every_so_many_rounds_and_with_the_first_and_the_last(tmp_path: Path) -> None:
    run = Run(tmp_path, settings_of(tensorboard_images_every=3, federation_rounds=5))
    for number in range(6):
        run.keep(number)
    assert steps(tmp_path, "images/confusion_matrix") == [0, 3, 5]
    assert steps(tmp_path, "weights/conv1.weight") == [0, 3, 5]
    assert steps(tmp_path, "pr/digit_0") == [0, 3, 5]
    assert steps(tmp_path, "update/norm") == [1, 2, 3, 4, 5]
    assert run.notices == []


def test_without_pictures_the_page_and_the_settings_remain(tmp_path: Path) -> None:
    run = Run(tmp_path, settings_of(tensorboard_images_every=0))
    for number in (0, 2, 6):
        run.keep(number)
    assert not shown(tmp_path).Tags()["graph"]
    assert shown(tmp_path).ActivePlugins() == {"scalars", "text", "custom_scalars", "histograms"}
    assert tags(tmp_path, "histograms") == {"update/norm"}


def test_every_picture_can_be_opened(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.keep(0)
    assert tags(tmp_path, "images") == {f"images/{name}" for name in PICTURES}
    for name, size in PICTURES.items():
        [(width, height, data)] = values(tmp_path, f"images/{name}")
        opened = Image.open(io.BytesIO(data))
        opened.load()
        assert (opened.format, opened.mode, opened.size) == ("PNG", "P", size)
        assert (int(width), int(height)) == size


def test_histograms_count_every_weight_and_every_update(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.keep(0)
    run.keep(1)
    for name, weights in run.model.state_dict().items():
        [buckets] = values(tmp_path, f"weights/{name}")  # [30, 3]: from, to, how many
        assert buckets[:, 2].sum() == weights.numel()
        assert (buckets[0, 0], buckets[-1, 1]) == (weights.min(), weights.max())
    [buckets] = values(tmp_path, "update/norm")
    assert (buckets[0].tolist(), buckets[-1, 1:].tolist()) == ([1.0, pytest.approx(1 + 2 / 30), 1.0], [3.0, 1.0])


def test_pr_curves_are_of_each_digit_against_the_rest(tmp_path: Path) -> None:
    run = Run(tmp_path)
    answers = torch.full((20, 10), -100.0)
    answers[torch.arange(20), TEST.labels] = 100.0  # sure of every label
    answers[13] = answers[4]  # but takes one 3 for a 4
    run.show(0, Evaluation(1.0, 0.95, answers=answers), None)
    of_3, of_4 = (
        values(tmp_path, f"pr/digit_{digit}")[0][:, 64] for digit in (3, 4)
    )  # [6, 127 thresholds]: true and false positives, true and false negatives, precision, recall
    assert of_3.tolist() == [1, 0, 18, 1, 1.0, 0.5]
    assert of_4.tolist() == [2, 1, 17, 0, pytest.approx(2 / 3), 1.0]


def test_the_graph_leads_from_the_image_through_every_layer_to_the_answer(tmp_path: Path) -> None:
    Run(tmp_path).keep(0)
    takes = {node.name: list(node.input) for node in shown(tmp_path).Graph().node}
    assert takes == {
        "images": [],
        "conv1/weight": [], "conv1/bias": [], "conv1/convolution": ["images", "conv1/weight", "conv1/bias"],
        "relu": ["conv1/convolution"], "max_pool2d": ["relu"],
        "conv2/weight": [], "conv2/bias": [], "conv2/convolution": ["max_pool2d", "conv2/weight", "conv2/bias"],
        "relu_2": ["conv2/convolution"], "max_pool2d_2": ["relu_2"], "flatten": ["max_pool2d_2"],
        "fc1/weight": [], "fc1/bias": [], "fc1/linear": ["flatten", "fc1/weight", "fc1/bias"], "relu_3": ["fc1/linear"],
        "fc2/weight": [], "fc2/bias": [], "fc2/linear": ["relu_3", "fc2/weight", "fc2/bias"], "relu_4": ["fc2/linear"],
        "fc3/weight": [], "fc3/bias": [], "fc3/linear": ["relu_4", "fc3/weight", "fc3/bias"],
        "output": ["fc3/linear"],
    }  # fmt: skip


def test_the_page_shows_tags_that_there_are(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.keep(0)
    run.keep(1)
    [layout] = values(tmp_path, "custom_scalars__config__")
    [page] = Layout.FromString(layout.item()).category
    assert [chart.title for chart in page.chart] == list(CHARTS)
    for chart in page.chart:
        for pattern in chart.multiline.tag:
            assert [tag for tag in tags(tmp_path, "scalars") if re.match(pattern, tag)], pattern


def test_settings_are_a_table_in_which_changes_stand_out(tmp_path: Path) -> None:
    Run(tmp_path).keep(0)
    [table] = values(tmp_path, "settings")
    lines = table.item().decode().splitlines()
    assert lines[:2] == ["| setting | value | default |", "|---|---|---|"]
    assert lines[2] == "| **federation.rounds** | **6** | 10 |"
    assert "| model.name | lenet5 |  |" in lines
    assert "| run.name | (empty) |  |" in lines
    assert "| link.announce | true |  |" in lines
    assert any(line.startswith("| version of torch | 2.") for line in lines)


def test_a_bar_in_a_setting_does_not_break_the_table() -> None:
    assert "| **run.out** | **a\\|b** | runs |" in settings_table(settings_of(run_out="a|b")).splitlines()


def test_hyperparameters_are_what_decides_the_model() -> None:
    values = hyperparameters(settings_of(training_learning_rate=0.5))
    assert (values["training.learning_rate"], values["model.name"], values["federation.rounds"]) == (0.5, "lenet5", 6)
    assert not [key for key in values if key.startswith(("client.", "tensorboard.", "run.out"))]
    of_link = {key for key in values if key.startswith("link.")}
    assert of_link == {"link.codec", "link.broadcast_codec", "link.top_k"}


def test_hyperparameters_stand_once_at_the_end(tmp_path: Path) -> None:
    run = Run(tmp_path, settings_of(federation_rounds=1))
    run.keep(0)
    run.keep(1)
    assert tags(tmp_path, "hparams") == set()
    run.gallery.end(1, 0.875)
    assert session(tmp_path)["federation.rounds"].number_value == 1
    assert (steps(tmp_path, "best/accuracy"), values(tmp_path, "best/accuracy")) == ([1], [0.875])


def test_the_telling_hyperparameters_are_shown_first(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.gallery.end(6, 0.5)
    content = shown(tmp_path).PluginTagToContent("hparams")["_hparams_/experiment"]
    experiment = HParamsPluginData.FromString(content).experiment
    assert {info.name for info in experiment.hparam_infos if info.differs} == {*TELLING}
    assert {info.name for info in experiment.hparam_infos} == {*hyperparameters(settings_of())}
    assert [info.name.tag for info in experiment.metric_infos] == [*METRICS]


def session(folder: Path) -> Any:
    content = shown(folder).PluginTagToContent("hparams")["_hparams_/session_start_info"]
    return HParamsPluginData.FromString(content).session_start_info.hparams


def test_a_finished_run_that_goes_on_ends_once(tmp_path: Path) -> None:
    first = Run(tmp_path, settings_of(federation_rounds=1))
    first.keep(0)
    first.keep(1)
    first.gallery.end(1, 0.5)
    second = Run(tmp_path, settings_of(federation_rounds=2), first_step=2)
    second.keep(2)
    second.gallery.end(2, 0.75)
    assert len(list(tmp_path.glob("*.end"))) == 1
    assert session(tmp_path)["federation.rounds"].number_value == 2
    assert (steps(tmp_path, "best/accuracy"), values(tmp_path, "best/accuracy")) == ([2], [0.75])
    assert steps(tmp_path, "test/accuracy") == [0, 1, 2]
    assert steps(tmp_path, "settings") == [0, 2]  # the rounds are others now


def test_no_picture_is_shown_twice_after_a_resume(tmp_path: Path) -> None:
    killed = Run(tmp_path)
    for number in range(5):
        killed.keep(number)
    resumed = Run(tmp_path, first_step=4)  # round 4 was shown and not saved
    for number in (4, 5, 6):
        resumed.keep(number)
    assert steps(tmp_path, "images/confusion_matrix") == [0, 2, 4, 6]
    assert steps(tmp_path, "weights/fc3.bias") == [0, 2, 4, 6]
    assert steps(tmp_path, "update/norm") == [1, 2, 3, 4, 5, 6]
    assert steps(tmp_path, "custom_scalars__config__") == [0]
    assert steps(tmp_path, "settings") == [0, 4]


def test_a_round_that_pictures_would_slow_by_over_5_percent_has_none(tmp_path: Path) -> None:
    run = Run(tmp_path, settings_of(tensorboard_images_every=1), clock=ticks(1.0))  # drawing takes one second
    for number, seconds in ((0, 0.0), (1, 19.0), (2, 20.0), (3, 19.0), (6, 1.0)):
        run.keep(number, seconds)
    assert steps(tmp_path, "images/confusion_matrix") == [0, 2, 6]  # round 6 is the last: nothing waits for it


def ticks(step: float) -> Any:
    times = count(0.0, step)
    return lambda: next(times)


def test_what_cannot_be_drawn_is_told_once_and_the_figures_are_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(tmp_path)
    answers = torch.zeros(21, 10)  # there are 20 test images
    for number in (0, 2):
        run.show(number, Evaluation(1.0, 0.5, answers=answers), round_of(number, 100.0) if number else None)
    [notice] = run.notices
    assert notice.startswith("cannot draw for TensorBoard (")
    assert notice.endswith("; the run goes on without these pictures, and run.log says more")
    assert len([record for record in caplog.records if record.exc_info]) == 2
    assert steps(tmp_path, "test/accuracy") == [0, 2]
    assert tags(tmp_path, "images") == set()
    assert steps(tmp_path, "update/norm") == [2]


def test_a_round_without_updates_has_no_norms(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.show(1, Evaluation(1.0, 0.5), round_of(1, 100.0, norms=()))
    assert tags(tmp_path, "histograms") == set()
    assert run.notices == []


def test_pictures_that_cannot_be_written_are_let_go_and_no_point_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path)
    run.keep(0)
    with monkeypatch.context() as full:
        full.setattr(tensorboard, "append", _no_space)
        run.keep(2)
    run.keep(3)
    assert len(run.notices) == 1
    assert steps(tmp_path, "test/accuracy") == [0, 2, 3]
    assert steps(tmp_path, "images/confusion_matrix") == [0]


def _no_space(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_an_end_that_cannot_be_written_is_a_notice(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("a file")
    run = Run(tmp_path / "tensorboard")
    run.gallery.end(1, 0.5)
    [notice] = run.notices
    assert notice.startswith(f"cannot write {tmp_path / 'tensorboard'}: Not a directory; the run goes on")
