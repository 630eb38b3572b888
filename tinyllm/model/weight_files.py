"""The safetensors files of a checkpoint: what is in them, and any part of it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from safetensors import SafetensorError, safe_open
from torch import Tensor

from tinyllm.checkpoint.fields import QUANTIZED, TAKE_ANOTHER
from tinyllm.checkpoint.files import read_json
from tinyllm.config import ModelConfig
from tinyllm.errors import CheckpointError
from tinyllm.model.expert_layouts import Layout, file_shapes, layout_of, place_of

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
#: The dtypes of weights that are not quantized, as safetensors writes them.
FLOATS = ("F64", "F32", "F16", "BF16")
#: How the tensors are called that quantized weights come with: GPTQ and AWQ, compressed tensors and FP8, bitsandbytes.
SCALES = ("qweight", "qzeros", "scales", "g_idx", "weight_packed", "weight_scale", "weight_scale_inv", "absmax")


class WeightFiles:
    """The tensors of a folder's safetensors file or shards. Only their names, shapes and dtypes are read at once.

    Attributes:
        shapes: of every tensor, by name.
        dtypes: of every tensor, by name, as safetensors writes them.
        layout: how they hold experts.
    """

    def __init__(self, folder: Path) -> None:
        """Open the files; `with` closes them again.

        Raises:
            CheckpointError: there is no such file, the index names a missing one, or a file is damaged.
        """
        self.folder = folder
        self._files = ExitStack()
        self._tensors: dict[str, Any] = {}
        with self._files:
            for path in weight_paths(folder):
                file = self._files.enter_context(opened(path))
                self._tensors |= {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
            self._files = self._files.pop_all()  # all went well: they stay open
        self.shapes = {name: tuple(tensor.get_shape()) for name, tensor in self._tensors.items()}
        self.dtypes = {name: str(tensor.get_dtype()) for name, tensor in self._tensors.items()}
        self.layout = layout_of(self.shapes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._tensors.clear()
        self._files.close()

    def read(self, name: str, part: tuple[slice, ...]) -> Tensor:
        """A part of a tensor, whatever the layout. It may be a view of the file: copy what must outlive it.

        Args:
            name: as `checkpoint_shapes` has it.
            part: a slice for each dimension of its shape there.
        """
        place = place_of(name, self.layout)
        index: tuple[int | slice, ...] = part
        if place.expert is not None:
            rows, columns = part
            above = (place.half or 0) * (self.shapes[place.tensor][1] // 2)
            index = (place.expert, slice(rows.start + above, rows.stop + above), columns)
        tensor: Tensor = self._tensors[place.tensor][index]
        return tensor

    def check(self, config: ModelConfig) -> None:
        """Hold the tensors against those that a config promises.

        Raises:
            CheckpointError: some are missing, unknown, of another shape, or quantized; the first few are named.
        """
        check_not_quantized(self.dtypes, self.folder)
        check_shapes(self.shapes, config, self.layout, self.folder)


def weight_paths(folder: Path) -> list[Path]:
    """The folder's safetensors file, or the shards that its index names.

    A whole file comes first, as in `transformers`: an index beside it may be left over from before it was merged.

    Raises:
        CheckpointError: there is neither.
    """
    whole, index = folder / WEIGHTS, folder / INDEX
    if whole.is_file() or not index.is_file():
        return [whole]
    weight_map = read_json(index).get("weight_map") or None
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise CheckpointError(f"{index} has no weight_map; copy the checkpoint folder again")
    return [folder / shard for shard in sorted(set(weight_map.values()))]


def opened(path: Path) -> Any:
    """A safetensors file, whose header is right.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    if not path.is_file():
        raise CheckpointError(
            f"{path} is missing. Weights are read from {WEIGHTS}, or from the shards that {INDEX} names; "
            "download or copy the checkpoint folder again"
        )
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is damaged or was cut short ({error}); "
            f"its size is {path.stat().st_size} bytes: compare it with the original and copy it again"
        ) from None


def check_shapes(found: Mapping[str, tuple[int, ...]], config: ModelConfig, layout: Layout, folder: Path) -> None:
    """Raise CheckpointError where the tensors of a file, by name and shape, are not those that its config promises."""
    shapes = file_shapes(config, layout)
    ignored = {"lm_head.weight"} if config.tie_word_embeddings else set()  # some files repeat the tied matrix
    problems = {
        "missing": sorted(shapes.keys() - found.keys()),
        "unknown": sorted(found.keys() - shapes.keys() - ignored),
        "of the wrong shape": [
            f"{name} is {list(found[name])} and should be {list(shape)}"
            for name, shape in shapes.items()
            if name in found and found[name] != shape
        ],
    }
    said = [
        f"{len(names)} {problem}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
        for problem, names in problems.items()
        if names
    ]
    if said:
        raise CheckpointError(
            f"the weights in {folder} do not fit its config.json. Tensors {'; '.join(said)}. "
            "Check that both files belong to the same model"
        )


def check_not_quantized(dtypes: Mapping[str, str], folder: Path) -> None:
    """Raise CheckpointError for weights in fewer than 16 bits, and for the scales that such weights come with.

    The config of such a checkpoint says what it is, but not every tool that quantizes writes it there.
    """
    packed = [name for name, dtype in dtypes.items() if dtype not in FLOATS]
    scales = [name for name in dtypes if name.rsplit(".", 1)[-1] in SCALES]
    if packed or scales:
        name = (packed or scales)[0]
        raise CheckpointError(f"{QUANTIZED} (the weights in {folder} hold {name}, in {dtypes[name]}); {TAKE_ANOTHER}")
