"""What TensorBoard shows beside scalars, each as an event without time and step.

The event format's own builders are used where they need no TensorFlow: TensorBoard's and PyTorch's.
"""

from __future__ import annotations

import io
import re
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import torch
from google.protobuf.message import Message
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
from tensorboard.compat.proto.graph_pb2 import GraphDef  # type: ignore[import-untyped]
from tensorboard.compat.proto.node_def_pb2 import NodeDef  # type: ignore[import-untyped]
from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
from tensorboard.compat.proto.versions_pb2 import VersionDef  # type: ignore[import-untyped]
from tensorboard.plugins.histogram.summary_v2 import histogram_pb  # type: ignore[import-untyped]
from tensorboard.plugins.hparams.api_pb2 import (  # type: ignore[import-untyped]
    Experiment,
    HParamInfo,
    MetricInfo,
    MetricName,
)
from tensorboard.plugins.hparams.metadata import (  # type: ignore[import-untyped]
    EXPERIMENT_TAG,
    NULL_TENSOR,
    SESSION_END_INFO_TAG,
    SESSION_START_INFO_TAG,
    create_summary_metadata,
)
from tensorboard.plugins.hparams.plugin_data_pb2 import (  # type: ignore[import-untyped]
    HParamsPluginData,
    SessionEndInfo,
    SessionStartInfo,
)
from tensorboard.plugins.text.summary_v2 import text_pb  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch.utils.tensorboard import _pytorch_graph
from torch.utils.tensorboard import summary as torch_summaries

from server.pictures.colours import Picture

Charts = Mapping[str, Sequence[str]]  # title -> regular expressions of the tags that it shows


def image(tag: str, picture: Picture) -> Event:
    """``picture`` as a PNG of 256 colours: to the eye the same, in a third of the bytes."""
    data = io.BytesIO()
    few = Image.fromarray(picture).quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    few.save(data, format="PNG")
    height, width, channels = picture.shape
    drawn = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=data.getvalue())
    return _of(Summary(value=[Summary.Value(tag=tag, image=drawn)]))


def scalars(values: Mapping[str, float]) -> Event:
    """One value a tag."""
    return _of(Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]))


def histogram(tag: str, values: Tensor) -> Event:
    """``values`` (float, any shape, finite) in 30 buckets."""
    return _of(histogram_pb(tag, values.numpy()))


def pr_curve(tag: str, is_positive: Tensor, probabilities: Tensor) -> Event:
    """Precision over recall at 127 thresholds; ``is_positive`` bool [N], ``probabilities`` float32 [N], 0..1."""
    return _of(torch_summaries.pr_curve(tag, is_positive.numpy(), probabilities.numpy()))


def text(tag: str, markdown: str) -> Event:
    """``markdown`` as TensorBoard shows it."""
    return _of(text_pb(tag, markdown))


def layout(pages: Mapping[str, Charts]) -> Event:
    """The charts of the custom-scalars page, under the title of their section."""
    charts = {
        page: {title: ["Multiline", list(tags)] for title, tags in parts.items()} for page, parts in pages.items()
    }
    return _of(torch_summaries.custom_scalars(charts))


def graph(model: nn.Module, inputs: Tensor) -> Event:
    """The operations of ``model`` on ``inputs``: its layers and functions by name, as PyTorch's tracer sees them."""
    with warnings.catch_warnings(action="ignore"):  # PyTorch's tracer is deprecated, and the only one that this takes
        # To check the trace costs 54 MB and a second; this is a drawing.
        traced = torch.jit.trace(model.eval(), inputs, check_trace=False)
    nodes = _pytorch_graph.parse(traced.inlined_graph, traced)  # as SummaryWriter.add_graph does
    return Event(graph_def=GraphDef(node=_readable(nodes), versions=VersionDef(producer=22)).SerializeToString())


def hyperparameters(
    values: Mapping[str, float | str], first: Collection[str], metrics: Sequence[str]
) -> Iterator[Event]:
    """One finished session.

    Args:
        values: its hyperparameters.
        first: names of those that are shown before the others.
        metrics: tags of the scalars by which it is compared with other sessions.
    """
    infos = [
        HParamInfo(name=name, type="DATA_TYPE_STRING" if isinstance(value, str) else "DATA_TYPE_FLOAT64")
        for name, value in values.items()
    ]
    for info in infos:
        info.differs = info.name in first  # TensorBoard's order: those that differ between sessions, then by name
    start = SessionStartInfo()
    for name, value in values.items():
        setattr(start.hparams[name], "string_value" if isinstance(value, str) else "number_value", value)
    compared = [MetricInfo(name=MetricName(tag=tag)) for tag in metrics]
    yield _of_session(EXPERIMENT_TAG, experiment=Experiment(hparam_infos=infos, metric_infos=compared))
    yield _of_session(SESSION_START_INFO_TAG, session_start_info=start)
    yield _of_session(SESSION_END_INFO_TAG, session_end_info=SessionEndInfo(status="STATUS_SUCCESS"))


def _of_session(tag: str, **part: Message) -> Event:
    about = create_summary_metadata(HParamsPluginData(**part))
    return _of(Summary(value=[Summary.Value(tag=tag, metadata=about, tensor=NULL_TENSOR)]))


def _of(summary: Summary) -> Event:
    return Event(summary=summary)


def _readable(nodes: Iterable[NodeDef]) -> list[NodeDef]:
    """``nodes`` less constants, with names for people: ``conv1/convolution`` for ``LeNet5/Conv2d[conv1]/input.1``."""
    kept = [node for node in nodes if not node.op.startswith(("prim::Constant", "prim::ListConstruct"))]
    names: dict[str, str] = {}
    seen: Counter[str] = Counter()
    for node in kept:
        *_, part, last = node.name.split("/")
        what = {"prim::GetAttr": part, "IO Node": last.split(".")[0]}.get(
            node.op, node.op.removeprefix("aten::").strip("_")
        )
        layer = re.search(r"\[(\w+)\]", node.name)
        name = f"{layer[1]}/{what}" if layer else what
        seen[name] += 1
        names[node.name] = name if seen[name] == 1 else f"{name}_{seen[name]}"
    for node in kept:
        node.input[:] = [names[taken] for taken in node.input if taken in names]
        node.name = names[node.name]
    return kept
