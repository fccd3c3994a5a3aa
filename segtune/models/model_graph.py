"""The graph of a whole model: blocks of the backbone, taps, modules of the decoder, and which reads which.

One forward pass on fake tensors is followed operation by operation, so that the edges are those of the values, whatever
the decoder's code looks like.
"""

import copy
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from segtune.models.build import BuiltModel
from segtune.models.model import SegmentationModel
from segtune.models.module_paths import within
from segtune.models.receptive_field import dry_run
from segtune.models.taps import StopGradient

Shape = tuple[int, ...]


@dataclass
class Node:
    """A part of the model: the image, a block, a tap, a module or an operation of the decoder, or the logits.

    `label` is what it is: a class, a layer. `shape` is that of its output for one image, `parameters` the names of its
    parameters, `inputs` the positions in the graph of the nodes that it reads.
    """

    kind: Literal["image", "block", "tap", "module", "operation", "logits"]
    name: str
    label: str = ""
    shape: Shape = ()
    parameters: tuple[str, ...] = ()
    inputs: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class ModelGraph:
    """A model for images of one size.

    `nodes` are in the order of computation, and each parameter belongs to one of them; `counts` holds the number of
    values of each parameter. `stops` holds the node behind which gradients can stop, by the name of the stop.
    """

    nodes: Sequence[Node]
    counts: Mapping[str, int]
    stops: Mapping[str, int]


def trace_model(built: BuiltModel, size: tuple[int, int]) -> ModelGraph:
    """Return the graph of a model for images of `size` (height, width); nothing is computed and the model unchanged.

    The decoder's nodes are the modules that its forward pass calls, and operations between them that join values or
    resize maps. If these do not hold all of the decoder's parameters, the decoder is one node.

    Raises:
        UserError: The backbone does not take images of this size.
    """
    return _trace(built, size, whole=False) or _trace(built, size, whole=True)  # type: ignore[return-value]


def _trace(built: BuiltModel, size: tuple[int, int], *, whole: bool) -> ModelGraph | None:
    """Return the graph with the decoder as one node if `whole`; else None if its modules lack some parameters."""
    fake = FakeTensorMode()
    with FakeCopyMode(fake):
        model, stops = copy.deepcopy((built.model, dict(built.stops)))
    counts = {name: parameter.numel() for name, parameter in model.named_parameters()}
    recorder = _Recorder(model, built.blocks)
    with fake, ExitStack() as hooks:
        for name, stop in stops.items():
            hooks.enter_context(stop.register_forward_pre_hook(partial(recorder.reach_stop, name)))
        recorder.watch(hooks, whole=whole)
        image = torch.empty(1, 3, *size, dtype=torch.uint8, device=model.mean.device)
        recorder.add(Node("image", "image", shape=(3, *size)), made=image)
        dry_run(model, image, recorder)
    lacking = [name for name in counts if not any(name in node.parameters for node in recorder.nodes)]
    if not whole and any(name.startswith("decoder.") for name in lacking):
        return None
    # Parameters of the backbone in no block that is called count with the first.
    recorder.nodes[1].parameters += tuple(name for name in lacking if name.startswith("backbone."))
    return ModelGraph(recorder.nodes, counts, recorder.stops)


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows values through a model: which node made each tensor, and which nodes read it."""

    def __init__(self, model: SegmentationModel, blocks: Mapping[str, Sequence[str]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.nodes: list[Node] = []
        self.stops: dict[str, int] = {}
        self._model, self._blocks = model, blocks
        self._maker = WeakTensorKeyDictionary()
        self._calls: list[int] = []  # the nodes of the modules that are being called, from the outermost
        self._part = "backbone"

    def watch(self, hooks: ExitStack, *, whole: bool) -> None:
        """Let the modules of the model report their calls."""
        decoder = root = self._model.decoder
        while not whole and len(inner := list(root.children())) == 1 and list(inner[0].children()):
            root = inner[0]  # a module around the decoder's own ones
        drawn = {id(module) for module in root.modules()} - {id(root)} | ({id(decoder)} if whole else set())
        hooks.enter_context(self._model.backbone.register_forward_hook(self._leave_backbone))
        hooks.enter_context(decoder.register_forward_pre_hook(self._enter_decoder))
        for path, module in self._model.named_modules():
            if path.startswith("backbone.") and not isinstance(module, StopGradient):
                enter = partial(self._enter_block, path)
            elif id(module) in drawn:
                enter = partial(self._enter_module, path)
            else:
                continue
            hooks.enter_context(module.register_forward_pre_hook(enter))
            hooks.enter_context(module.register_forward_hook(self._leave))
        hooks.enter_context(decoder.register_forward_hook(self._leave_decoder))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation and record which node it belongs to."""
        out = func(*args, **(kwargs or {}))
        if makers := self._makers((args, kwargs)):
            here = self._place(func, makers, args, out)
            self._read(here, (args, kwargs))
            results = _tensors(out)
            for result in results:
                self._maker[result] = here
            between = not self._calls and self._part in ("scale", "decoder")
            if results and not (between and self.nodes[here].shape):  # further results are statistics or the like
                self.nodes[here].shape = tuple(results[0].shape[1:])
        return out

    def _place(self, func: Any, makers: Sequence[int], args: Any, out: Any) -> int:
        """Return the node of an operation: the module that is being called or, between modules, what it reads."""
        if self._calls:
            return self._calls[-1]
        if self._part != "decoder":  # between the layers of the backbone, or behind the decoder
            return len(self.nodes) - 1 if self._part == "logits" else max(makers)
        sizes = {tensor.shape[2:] for tensor in _tensors((args, out)) if tensor.ndim == 4}
        if len(makers) == 1 and len(sizes) < 2:
            return makers[0]
        kind = func.overloadpacket.__name__
        return self.add(Node("operation", _OPERATIONS.get(kind, "resize" if kind.startswith("upsample") else kind)))

    def add(self, node: Node, made: Any = ()) -> int:
        """Add a node that has made some tensors, and return its position."""
        self.nodes.append(node)
        for tensor in _tensors(made):
            self._maker[tensor] = len(self.nodes) - 1
        return len(self.nodes) - 1

    def reach_stop(self, name: str, _module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Record the node behind which a gradient stop lies."""
        if inputs[0] in self._maker:
            self.stops[name] = self._maker[inputs[0]]

    def _makers(self, values: Any) -> list[int]:
        """Return the nodes that have made the tensors among some values, each once."""
        return list(dict.fromkeys(self._maker[tensor] for tensor in _tensors(values) if tensor in self._maker))

    def _read(self, here: int, values: Any) -> None:
        inputs = self.nodes[here].inputs
        inputs += [maker for maker in self._makers(values) if maker not in (here, *inputs)]

    def _enter_block(self, path: str, _module: nn.Module, inputs: tuple[Any, ...]) -> None:
        inside = path.removeprefix("backbone.")
        name = next((name for name, paths in self._blocks.items() if within(inside, paths)), None)
        known = {node.name: index for index, node in enumerate(self.nodes) if node.kind == "block"}
        if name is None and known:  # a layer outside all blocks, such as a pooling, belongs to the one before it
            self._calls.append(max(self._makers(inputs), default=len(self.nodes) - 1))
            return
        if name not in known:
            name = name or "backbone"
            paths = [f"backbone.{path}" for path in self._blocks.get(name, ())]
            known[name] = self.add(Node("block", name, parameters=self._held(paths)))
        self._calls.append(known[name])

    def _leave_backbone(self, *_: Any) -> None:
        self._part = "scale"

    def _enter_decoder(self, _module: nn.Module, inputs: tuple[Mapping[str, Tensor]]) -> None:
        self._part = "decoder"
        for role, tensor in inputs[0].items():
            shape, layer = tuple(tensor.shape[1:]), self._model.features[role].node
            self.add(Node("tap", role, layer, shape, inputs=[self._maker[tensor]]), made=tensor)

    def _enter_module(self, path: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if self._calls:
            self._calls.append(self._calls[-1])
            return
        here = self.add(Node("module", path, type(module).__name__, parameters=self._held([path])))
        if path == "decoder":  # as one node; how it reads may be hidden
            self._read(here, inputs)
        self._calls.append(here)

    def _leave(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        here = self._calls.pop()
        for tensor in _tensors(output):
            if tensor not in self._maker:  # made of parameters alone, or where nothing can be followed
                self._maker[tensor], self.nodes[here].shape = here, tuple(tensor.shape[1:])
        if self.nodes[here].kind == "module" and not self.nodes[here].shape and not self._calls:
            self.nodes.pop()  # it computed nothing: its output is its input

    def _leave_decoder(self, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        self._part = "logits"
        logits = Node("logits", "logits", shape=tuple(output.shape[1:]))
        self._read(self.add(logits), output)

    def _held(self, paths: Sequence[str]) -> tuple[str, ...]:
        """Return the parameters inside some paths that no node has yet."""
        taken = {name for node in self.nodes for name in node.parameters}
        names = (name for name, _ in self._model.named_parameters())
        return tuple(name for name in names if within(name, paths) and name not in taken)


def shape_text(shape: Sequence[int]) -> str:
    """Return a shape for readers."""
    return " x ".join(map(str, shape))


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


#: What operations are called in drawings.
_OPERATIONS = {"cat": "concat"}
