"""Which modules the lists of a phase name: blocks, module paths, patterns, Keras's layer names and index ranges."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from torch import nn

from segtune.errors import UserError, close_matches
from segtune.models.backbones.registry import BACKBONES
from segtune.models.backbones.spec import BackboneSpec
from segtune.models.module_paths import matching, owners, pattern_hint, within
from segtune.models.taps import ambiguity, common_form

Blocks = Mapping[str, Sequence[str]]

_RANGE = re.compile(r"\s*(-?\d+)?\s*:\s*(-?\d+)?\s*")
_PREFIX = re.compile(r"^(re:)?decoder\\?\.")
_INDEX = re.compile(r"[-:,\s\d]*[:\d][,\s]*")


def present_blocks(backbone: nn.Module, blocks: Blocks) -> dict[str, list[str]]:
    """Return the blocks that the cut backbone still has, each with its remaining module paths.

    A block of which the cut leaves no parameters is left out.
    """
    kept = {path: module for path, module in backbone.named_modules() if path}
    present = {name: [path for path in paths if path in kept] for name, paths in blocks.items()}
    return {name: paths for name, paths in present.items() if any(list(kept[path].parameters()) for path in paths)}


@dataclass(frozen=True)
class Selection:
    """The modules of a model with `backbone` and `decoder`, by the names that the list `setting` of a phase may use.

    `aim` is what the list is for, in messages: to train or to freeze. Without a `spec` there are no names of Keras.
    """

    model: nn.Module
    blocks: Blocks
    spec: BackboneSpec | None
    setting: str
    aim: str = "train"

    @cached_property
    def backbone(self) -> nn.Module:
        """The cut backbone."""
        return self.model.get_submodule("backbone")

    @cached_property
    def present(self) -> dict[str, list[str]]:
        """The blocks of the cut backbone, see `present_blocks`."""
        return present_blocks(self.backbone, self.blocks)

    @cached_property
    def kept(self) -> list[str]:
        """The paths of modules inside the cut backbone; the gradient stops that the cut inserts are no layers."""
        return [path for path, _ in self.backbone.named_modules() if path and not within(path, ["stops"])]

    @property
    def _gone(self) -> list[str]:
        """Blocks that the cut has removed, and their modules."""
        return [path for name, paths in self.blocks.items() if name not in self.present for path in (name, *paths)]

    def of_backbone(self, item: str) -> list[str]:
        """Return the modules that an item of a list means, as paths inside the backbone.

        Raises:
            UserError: It means none of the cut backbone, or none with parameters.
        """
        if item.startswith("re:"):
            found = matching(item, self.kept, self.setting, [name for name, _ in self.backbone.named_parameters()])
        elif _INDEX.fullmatch(item) and item not in self.kept:
            found = self._in_range(item)
        else:
            found = self._by_name(item)
        self._check(item, owners(self.backbone), found)
        return found

    def of_decoder(self, item: str) -> list[str]:
        """Return the modules that an item means, a path inside the decoder or a pattern, as paths in the model.

        `decoder.` in front, as in the heading of a phase, may be left out.

        Raises:
            UserError: It means none.
        """
        decoder = self.model.get_submodule("decoder")
        kept = [path for path, _ in decoder.named_modules() if path]
        parameters = [name for name, _ in decoder.named_parameters()]
        inside = _PREFIX.sub(r"\1", item)
        return [f"decoder.{path}" for path in matching(inside, kept, self.setting, parameters)]

    def of_model(self, item: str) -> list[str]:
        """Return the modules that an item means, as paths in the model; `backbone.` in front may be left out.

        Raises:
            UserError: It means none, or none with parameters.
        """
        if item.startswith("re:"):
            found = self._matching(item)
        elif item in ("backbone", "decoder"):
            found = [item]
        elif item.startswith("decoder."):
            inside = [path for path, _ in self.model.named_modules() if path.startswith("decoder.")]
            parameters = [name for name, _ in self.model.named_parameters()]
            found = matching(item, inside, self.setting, parameters)
        else:
            return [f"backbone.{path}" for path in self.of_backbone(item)]
        self._check(item, owners(self.model), found)
        return found

    def _matching(self, pattern: str) -> list[str]:
        paths = [path for path, _ in self.model.named_modules() if path and not within(path, ["backbone.stops"])]
        names = {path.removeprefix("backbone."): path for path in paths} | {path: path for path in paths}
        prefix = "" if "backbone" in pattern else "backbone."
        parameters = [name.removeprefix(prefix) for name, _ in self.model.named_parameters()]
        return [names[name] for name in matching(pattern, names, self.setting, parameters)]

    def _by_name(self, item: str) -> list[str]:
        known = {**self.spec.others, **self.spec.aliases} if self.spec else {}
        behind = next((f": {name} lies behind the deepest tap" for name in self._gone if within(item, [name])), "")
        for each in dict.fromkeys((item, common_form(item))):
            if each in self.present or each in self.kept:
                return self.present.get(each, [each])
            if self.spec and (message := ambiguity(each, self.spec)):
                raise UserError(f"{self.setting}: {message}")
            if self.spec and (path := known.get(each)):
                # Caffe's relu3_3 is the activation alone, its conv3_3 the convolution too.
                modules = [path] if each.startswith("relu") else self.spec.modules_of(path)
                found = [module for module in modules if module in self.kept]
                if found or path.endswith(".add"):  # an addition is no module
                    return found
                behind = f": {path} lies behind the deepest tap"
        if item in dict(self.backbone.named_parameters()):
            return matching(item, (), self.setting, [item])
        names = dict[str, str]()
        if self.aim == "freeze":
            paths = [path for path, _ in self.model.named_modules() if path.startswith("decoder.")]
            names = {path.removeprefix("decoder."): path for path in paths}
        own = [*self.present, *self.kept, *(name for name, path in known.items() if path in self.kept)]
        names |= {name: name for name in own}
        near = [] if behind else close_matches(item, names, 1)
        hint = f" Did you mean {names[near[0]]}?" if near else ""
        hint = pattern_hint(item, next(iter(self.present), "")) or hint
        raise UserError(
            f"{self.setting}: '{item}' is not a module of the cut backbone{behind}.{hint} "
            f"Its blocks: {', '.join(self.present)}."
        )

    def _in_range(self, item: str) -> list[str]:
        """Return the modules of a range of Keras's layers, such as `100:`, as far as the cut backbone has them."""
        if self.spec is None or not self.spec.layers:
            raise UserError(
                f"{self.setting}: '{item}': indices count the layers of Keras, which has "
                f"{', '.join(name for name, spec in BACKBONES.items() if spec.layers)}, but not "
                f"{self.spec.name if self.spec else 'this network'}. Name blocks ({', '.join(self.present)}), module "
                "paths or patterns (re:…), or set backbone to the number of the deepest blocks that train."
            )
        layers, name = self.spec.layers, self.spec.name
        every = f"{name} has {len(layers)} layers in Keras, 0 to {len(layers) - 1}"
        if not (match := _RANGE.fullmatch(item)):
            raise UserError(
                f"{self.setting}: got '{item}'; expected a range of Keras's layers: '100:', ':100', '3:7', or '5:6' "
                f"for one layer. {every}."
            )
        bounds = [None if bound is None else int(bound) for bound in match.groups()]
        if any(bound is not None and abs(bound) > len(layers) for bound in bounds):
            raise UserError(f"{self.setting}: '{item}' goes past the end: {every}.")
        chosen = range(len(layers))[slice(*bounds)]
        if not chosen:
            raise UserError(f"{self.setting}: '{item}' holds no layer: {every}.")
        modules = {index: self.spec.modules_of(path) for index, path in enumerate(layers) if _is_module(path)}
        here = [index for index, paths in modules.items() if set(paths) & set(self.kept)]
        gone = modules.keys() - here
        if gone & set(chosen) and not set(here) & set(chosen):
            still = _runs([index for index in range(max(here) + 1) if index not in gone])
            raise UserError(
                f"{self.setting}: nothing is left of '{item}' in the backbone, which is cut behind the deepest tap: "
                f"of the {len(layers)} layers in Keras it still has {still}."
            )
        return [path for index in here if index in chosen for path in modules[index] if path in self.kept]

    def _check(self, item: str, owning: Sequence[str], found: Sequence[str]) -> None:
        if not any(within(owner, found) for owner in owning):
            raise UserError(f"{self.setting}: '{item}' has no parameters to {self.aim}.")


def _is_module(path: str) -> bool:
    """Return whether the path of a layer of Keras is that of a module: inputs have none, additions a node only."""
    return bool(path) and not path.endswith(".add")


def _runs(numbers: Sequence[int]) -> str:
    """Return ascending numbers in words, neighbours joined: `0 to 86, 88`."""
    runs = [[n for _, n in run] for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)
