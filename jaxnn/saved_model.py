"""Trained models, saved and ready to predict.

The folder of a model has the file ``model.safetensors``: arrays ``params[0].weight``, ... with a
leading axis of replicates (statistics of batch normalisation included), and a manifest with sizes,
activation, loss, scale and shift of the inputs, and the names of the classes. The file is written
whole or not at all, so a crash leaves the earlier model or the new model.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import files
from jaxnn.files import COUNT, NUMBER, Check, DamagedFileError, misfit, open_regular
from jaxnn.losses import LOSSES, REGRESSIONS, predictions
from jaxnn.minibatch import as_float
from jaxnn.mlp import ACTIVATIONS, MLP
from jaxnn.modules import Module, as_model, network
from jaxnn.reporting import environment, plain
from jaxnn.spec import Spec
from jaxnn.train import flattened, logits_of, map_blocks, resolved
from jaxnn.types import (
    Array,
    ArrayLike,
    Data,
    Model,
    PyTree,
    as_array,
    numbers,
    require_type,
    shown,
    whole,
)

MODEL = "model.safetensors"
_FORMAT, _VERSION = "jaxnn model", 2
_EARLIER = "model.json"  # the manifest of version 1


def _are_texts(value: Any) -> bool:
    return type(value) is list and all(isinstance(entry, str) for entry in value)


def _are_factors(value: Any) -> bool:
    """Whether a number, or a list of numbers; or lists of one shape, of several models."""
    if type(value) is not list or not any(type(entry) is list for entry in value):
        return not misfit(value if type(value) is list else [value], [NUMBER], "")
    alike = all(type(entry) is list and len(entry) == len(value[0]) for entry in value)
    return alike and all(map(_are_factors, value))


_FACTORS = Check("numbers", _are_factors)
_SCHEMA = {
    "model": {"kind": Check("a kind of model", lambda v: v in ("mlp", "other"))},
    "loss": Check(f"null or one of {sorted(LOSSES)}", lambda v: v is None or v in [*LOSSES]),
    "scale": _FACTORS,
    "shift": Check("null or numbers", lambda v: v is None or _FACTORS.holds(v)),
    "names": Check("null or texts", lambda v: v is None or _are_texts(v)),
    "shape": Check("null or sizes", lambda v: v is None or not misfit(v, [COUNT], "")),
    "replicates": COUNT,
    "about": {},
}
_ACTIVATION = Check(f"one of {sorted(ACTIVATIONS)}", lambda v: v in [*ACTIVATIONS])


@dataclass(frozen=True, repr=False)
class SavedModel:
    """Models of one architecture, ready to predict; from ``load_model``.

    A search saves the chosen model once per replicate (seed and fold); ``replicate`` selects a
    model. No bit of an example's result depends on further examples.

    Attributes:
      model: sizes and activation; or the model given to ``load_model``.
      params: leaves [R, ...].
      loss: the name of the loss; None for a custom loss.
      scale: the network sees inputs * scale + shift: a number or [in]; [R, in] of models with a
        standardisation each.
      about: notes given to ``save_model``, such as hyperparameters; "inputs", the "low" and "high"
        of the training inputs, lets the model refuse inputs in another unit.
      shift: None adds nothing.
      names: of the classes; empty for classes 0..C-1 and for a regression.
      shape: of an example; None where not known.
      regression: whether the targets are real numbers.
    """

    model: Model
    params: PyTree
    loss: str | None
    scale: ArrayLike
    about: Mapping[str, Any]
    shift: ArrayLike | None = None
    names: tuple[str, ...] = ()
    shape: tuple[int, ...] | None = None
    regression: bool = False

    def __repr__(self) -> str:
        kind = "regression" if self.regression else f"loss {shown(self.loss)}"
        names = f", {len(self.names)} names" if self.names else ""
        return f"SavedModel({shown(self.model)}, {self.replicates} replicates, {kind}{names})"

    @property
    def replicates(self) -> int:
        """R, the number of models."""
        return len(jax.tree.leaves(self.params)[0])

    def predict(
        self, inputs: Array | np.ndarray, *, replicate: int = 0, indices: bool = False
    ) -> np.ndarray:
        """The predicted classes [N], by name if known; of a regression real numbers, [N] or [N, K].

        The class of the largest logit; with a single logit z, the second class where z > 0. Of
        ``gaussian_nll`` the means.

        Args:
          inputs: as in ``logits``.
          replicate: as in ``logits``.
          indices: whether to return class indices in place of names.
        """
        logits = self.logits(inputs, replicate=replicate)
        if self.regression:
            found = np.asarray(predictions(self.loss or "", jnp.asarray(logits)))
            return found[:, 0] if found.shape[1] == 1 else found
        single = logits.shape[1] == 1
        found = (logits[:, 0] > 0 if single else np.argmax(logits, axis=1)).astype(np.int32)
        return found if indices or not self.names else np.array(self.names)[found]

    def probabilities(self, inputs: Array | np.ndarray, *, replicate: int = 0) -> np.ndarray:
        """Class probabilities [N, C]: softmax(z); with a single logit, 1 - sigmoid(z), sigmoid(z).

        Raises:
          ValueError: as ``logits``; or a regression, or a custom loss, which defines none.
        """
        if self.regression:
            raise ValueError(
                "the model is a regression, which has no probabilities: expected logits() or "
                "predict()"
            )
        if self.loss is None:
            raise ValueError(
                "the loss of the model is a custom function, which defines no probabilities: "
                "expected logits() or predict()"
            )
        return self._map(_probabilities, inputs, replicate)

    def logits(self, inputs: Array | np.ndarray, *, replicate: int = 0) -> np.ndarray:
        """Logits [N, C].

        Args:
          inputs: [N, in] (for a model of images [N, ...], which an MLP flattens), in the range of
            the training examples, such as 8-bit pixels; the network sees inputs * scale + shift.
          replicate: the number of the model, from 0.

        Raises:
          ValueError: the shape is not [N, in], the inputs are no finite numbers or lie far from the
            range of the training examples (``about["inputs"]``), or an unknown replicate.
        """
        return self._map(_logits, inputs, replicate)

    def _map(self, program: Any, inputs: Array | np.ndarray, replicate: int) -> np.ndarray:
        """The program's outputs; see ``map_blocks``."""
        if whole(replicate) not in range(self.replicates):
            expected = f"one of the {self.replicates} models, from 0"
            raise ValueError(f"replicate is {shown(replicate)}, expected {expected}")
        inputs, low, high = numbers("inputs", inputs)
        if isinstance(self.model, MLP):
            shape = self.model.sizes[:1]
            if inputs.ndim > 2 and math.prod(inputs.shape[1:]) == shape[0]:
                inputs = inputs.reshape(len(inputs), -1)
        else:
            shape = self.shape
        if inputs.ndim < 2 or (shape is not None and inputs.shape[1:] != shape):
            expected = ", ".join(map(str, shape or ("...",)))
            raise ValueError(f"inputs have the shape {inputs.shape}, expected [N, {expected}]")
        known: Any = self.about.get("inputs")
        ends: list[Any] = [0.0]
        if isinstance(known, Mapping):
            ends = [known.get(end) for end in ("low", "high")]
        are_known = all(isinstance(end, int | float) for end in ends)
        if are_known and _other_unit(max(-low, high), max(-ends[0], ends[-1])):
            raise ValueError(
                f"inputs lie in {low:g}..{high:g}, expected the range of the training examples, "
                f"{ends[0]:g}..{ends[-1]:g}"
            )
        params = jax.tree.map(lambda leaf: leaf[replicate], self.params)
        factors: tuple[Any, Any] = self.scale, self.shift
        scale, shift = (x[replicate] if np.ndim(x) == inputs.ndim else x for x in factors)
        return map_blocks(
            lambda block: program(self.model, params, block, scale, shift),
            inputs,
            fill=True,
        )


def _other_unit(largest: float, of_training: float) -> bool:
    """Whether inputs are far larger or smaller than in training; a dark image alone is not."""
    return 0 < 64 * min(largest, of_training) <= max(largest, of_training)


@partial(jax.jit, static_argnames="model")
def _logits(
    model: Model, params: PyTree, inputs: Array, scale: Array, shift: Array | None
) -> Array:
    """[B, in] -> [B, C]."""
    logits = logits_of(model, params, as_float(inputs, Data(inputs, inputs, scale, shift)))
    return logits.reshape(len(inputs), -1)


@partial(jax.jit, static_argnames="model")
def _probabilities(
    model: Model, params: PyTree, inputs: Array, scale: Array, shift: Array | None
) -> Array:
    """[B, in] -> [B, C]."""
    logits = _logits(model, params, inputs, scale, shift)
    if logits.shape[1] > 1:
        return jax.nn.softmax(logits)
    return jax.nn.sigmoid(jnp.concatenate([-logits, logits], axis=1))


def save_model(
    folder: Path | str,
    spec: Spec,
    params: PyTree,
    *,
    scale: ArrayLike = 1.0,
    about: Mapping[str, Any] | None = None,
    data: Data | None = None,
) -> None:
    """Saves trained models in a folder, in place of an earlier model.

    Args:
      folder: created if missing.
      spec: the trained program.
      params: parameters of a single model, or of R models, leaves [R, ...], or ``Variables``.
      scale: the factor of the training inputs, a number or [in].
      about: notes, such as hyperparameters.
      data: the training examples, in place of the scale: scale, shift ([R, in] for R models that
        have a standardisation each) and names are saved, the
        shape of an example, and the range of the inputs. Needed for a module of Flax or Equinox.

    Raises:
      ModuleNotFoundError: safetensors is not installed.
      ValueError: the parameters do not fit ``spec.model``, or scale and data are given.
      OSError: the folder cannot be written; an earlier model stays.

    Example:
      >>> import tempfile, jax, jaxnn
      >>> spec = jaxnn.Spec(model=jaxnn.MLP((4, 3)), steps=1)
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     save_model(folder, spec, spec.model.init(jax.random.key(0)), scale=1 / 255)
      ...     load_model(folder).predict([[0, 255, 51, 3]]).shape
      (1,)
    """
    require_type(isinstance(spec, Spec), "spec", spec, "the jaxnn.Spec of the training")
    path = files.as_path("folder", folder)
    about = {} if about is None else about
    require_type(isinstance(about, Mapping), "about", about, "a dict of notes")
    shown_scale = scale if np.ndim(scale) or scale != 1.0 else None
    shift, names, shape = None, (), None
    if data is not None:
        require_type(isinstance(data, Data), "data", data, "jaxnn.Data, the training examples")
        if shown_scale is not None:
            raise ValueError(f"scale is {shown(scale)} beside data, expected one of both")
        inputs = np.asarray(data.inputs)
        spec, shape = resolved(spec, inputs), inputs.shape[1:]
        data = flattened(data) if isinstance(spec.model, MLP) and len(shape) > 1 else data
        scale, shift, names = data.scale, data.shift, data.names
        about = {"inputs": {"low": float(inputs.min()), "high": float(inputs.max())}, **about}
    scale = np.asarray(as_array("scale", scale))
    model, template = spec.model, jax.eval_shape(spec.model.init, jax.random.key(0))
    if files.shapes("params", params) == files.shapes("params", template):
        params = jax.tree.map(lambda leaf: np.asarray(leaf)[None], params)
    found = files.shapes("params", params)
    replicates = next(iter(found.values()), (1,))[:1]
    expected = files.shapes("params", template, *replicates)
    files.require_shapes(found, expected, "as of spec.model.init, with or without R in front")
    known: dict[str, Any] = {"kind": "other"}  # JSON has no custom models and activations
    if isinstance(model, MLP) and model.activation in ACTIVATIONS:
        known = {"kind": "mlp", "sizes": model.sizes, "activation": model.activation}
    manifest = {
        "format": _FORMAT,
        "version": _VERSION,
        "model": known,
        "loss": spec.loss if isinstance(spec.loss, str) else None,
        "scale": scale,
        "shift": None if shift is None else np.asarray(shift),
        "names": [*names] or None,
        "shape": shape and [*shape],
        "regression": callable(spec.loss) and _are_real(data),
        "replicates": replicates[0],
        "about": about,
        **environment(),
    }
    content, _ = files.pack(files.named_leaves("params", params), plain(manifest))
    files.make_folder(path)
    with files.atomic_write(path / MODEL) as file:
        file.write(content)


def _are_real(data: Data | None) -> bool:
    """Whether the targets, of a custom loss, are real numbers [N] that are no labels."""
    targets = np.asarray(0 if data is None else data.targets)
    return targets.ndim == 1 and bool(np.any(targets != np.floor(targets)))


def load_model(folder: Path | str, model: Any = None) -> SavedModel:
    """The models in a folder by ``save_model``, ready to predict.

    Args:
      folder: the folder given to ``save_model``.
      model: for models other than ``jaxnn.MLP``: the model of the training, such as a module of
        Flax or Equinox.

    Raises:
      ModuleNotFoundError: safetensors is not installed.
      FileNotFoundError: the folder holds no model.
      DamagedFileError: the content of the file differs from the saved content.
      OSError: the file cannot be read, or is no regular file.
      ValueError: an unknown version of the format; or a model other than ``jaxnn.MLP`` without
        ``model``, or of other shapes.

    Example:
      >>> import tempfile, jax, jaxnn
      >>> spec = jaxnn.Spec(model=jaxnn.MLP((4, 3)), steps=1)
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     save_model(folder, spec, spec.model.init(jax.random.key(0)))
      ...     model = load_model(folder)
      >>> model.model.sizes, model.loss, model.replicates
      ((4, 3), 'cross_entropy', 1)
    """
    manifest, arrays = _read(files.as_path("folder", folder))
    if model is not None or manifest["model"]["kind"] != "mlp":
        return _loaded(folder, manifest, arrays, model)
    count = len(arrays) // 2 + 1  # a weight and a bias between two sizes
    _check(folder, manifest, {"model": {"sizes": (COUNT,) * count, "activation": _ACTIVATION}})
    sizes, scale = manifest["model"]["sizes"], np.asarray(manifest["scale"])
    shapes = [np.shape(arrays.get(f"params[{i}].weight", ()))[1:] for i in range(len(sizes) - 1)]
    floating = all(jnp.issubdtype(array.dtype, jnp.floating) for array in arrays.values())
    each = (), (sizes[0],), (manifest["replicates"], sizes[0])
    scaled = {scale.shape, np.shape(manifest.get("shift") or 0.0)} <= {*each}
    if not (floating and scaled and shapes == [*zip(sizes[1:], sizes, strict=False)]):
        raise DamagedFileError(
            f"{Path(folder) / MODEL} is damaged: the sizes are {files.short(str(sizes))}, expected "
            "sizes of floating-point weights and of the scale"
        )
    return _loaded(
        folder, manifest, arrays, MLP(tuple(sizes), activation=manifest["model"]["activation"])
    )


def _loaded(
    folder: Path | str, manifest: files.Manifest, arrays: files.Arrays, model: Any
) -> SavedModel:
    """The models of a file, for a model whose parameters have the shapes of the arrays."""
    shape, names, shift = (manifest.get(name) for name in ("shape", "names", "shift"))
    if model is None:
        raise ValueError(
            f"{folder} holds a model other than jaxnn.MLP: expected load_params(folder, template), "
            "with parameters of the model as the template, or load_model(folder, model)"
        )
    model = as_model(model)
    if isinstance(model, Module):
        if shape is None:
            raise ValueError(
                f"{folder} has no shape of an example, expected load_model(folder, "
                "jaxnn.modules.network(module, shape)), or save_model(..., data=data)"
            )
        model = network(model, tuple(shape))
    fits = all(callable(getattr(model, name, None)) for name in ("init", "apply"))
    require_type(fits, "model", model, "the model of the training")
    params = _restore(folder, manifest, arrays, jax.eval_shape(model.init, jax.random.key(0)))
    return SavedModel(
        model,
        params,
        manifest.get("loss"),
        np.asarray(manifest["scale"]),
        manifest["about"],
        None if shift is None else np.asarray(shift),
        tuple(names or ()),
        None if shape is None else tuple(shape),
        manifest.get("loss") in REGRESSIONS or bool(manifest.get("regression")),
    )


def load_params(folder: Path | str, template: PyTree) -> PyTree:
    """The parameters of any model, such as a Flax module: leaves [R, ...].

    Args:
      folder: the folder given to ``save_model``.
      template: parameters of a single model, or shapes: ``jax.eval_shape(model.init, key)``.

    Raises:
      ValueError: the template does not fit the saved parameters; and as ``load_model``.
    """
    return _restore(folder, *_read(files.as_path("folder", folder)), template)


def _read(folder: Path) -> tuple[files.Manifest, dict[str, np.ndarray]]:
    if folder.name == MODEL and folder.is_file():
        folder = folder.parent
    path = folder / MODEL
    if not path.exists():
        if (folder / _EARLIER).is_file():
            raise ValueError(
                f"{folder} holds {_EARLIER}, version 1 of the format, expected version {_VERSION}: "
                "train the model again, or load it with jaxnn before 0.2"
            )
        raise FileNotFoundError(f"{folder} holds no {MODEL}, expected what save_model wrote")
    with open_regular(path) as file:
        manifest, arrays = files.unpack(file.read(), path)
    if manifest.get("format") != _FORMAT:
        raise ValueError(f"{path} is no {_FORMAT}, expected what save_model wrote")
    version = manifest.get("version")
    if version != _VERSION:
        found = files.printable(files.short(repr(version)))
        raise ValueError(f"{path} has version {found} of the format, expected {_VERSION}")
    _check(folder, manifest, _SCHEMA)
    return manifest, arrays


def _check(folder: Path | str, manifest: files.Manifest, schema: Mapping[str, Any]) -> None:
    """Refuses a manifest of another schema: an edit can leave the checksum right."""
    if fault := misfit(manifest, schema, "manifest"):
        raise DamagedFileError(f"{Path(folder) / MODEL} is damaged: {fault}")


def _restore(
    folder: Path | str, manifest: files.Manifest, arrays: files.Arrays, template: PyTree
) -> PyTree:
    """The arrays of a file as a tree, after a comparison of the shapes."""
    expected = files.shapes("params", template, manifest["replicates"])
    found = {name: array.shape for name, array in arrays.items()}
    files.require_shapes(found, expected, f"as in the template ({folder})")
    leaves = [arrays[name] for name in files.named_leaves("params", template)]
    return jax.tree.unflatten(jax.tree.structure(template), leaves)
