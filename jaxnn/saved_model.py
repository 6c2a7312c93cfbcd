"""Trained models, saved and ready to predict.

The folder of a model has the file ``model.safetensors``: arrays ``params[0].weight``, ... with a
leading axis of replicates, and a manifest with sizes, activation and loss. The file is written
whole or not at all, so a crash leaves the earlier model or the new model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import files
from jaxnn.minibatch import as_float
from jaxnn.mlp import ACTIVATIONS, MLP
from jaxnn.reporting import environment, plain
from jaxnn.spec import Spec
from jaxnn.train import map_blocks
from jaxnn.types import Array, ArrayLike, Data, PyTree

MODEL = "model.safetensors"
_FORMAT, _VERSION = "jaxnn model", 2
_EARLIER = "model.json"  # the manifest of version 1


@dataclass(frozen=True)
class SavedModel:
    """Models of one architecture, ready to predict; from ``load_model``.

    A search saves the chosen model once per replicate (seed and fold); ``replicate`` selects a
    model. No bit of an example's result depends on further examples.

    Attributes:
      model: sizes and activation.
      params: leaves [R, ...].
      loss: the name of the loss; None for a custom loss.
      scale: the network sees inputs * scale.
      about: notes given to ``save_model``, such as hyperparameters.
    """

    model: MLP
    params: PyTree
    loss: str | None
    scale: ArrayLike
    about: Mapping[str, Any]

    @property
    def replicates(self) -> int:
        """R, the number of models."""
        return len(jax.tree.leaves(self.params)[0])

    def predict(self, inputs: Array | np.ndarray, *, replicate: int = 0) -> np.ndarray:
        """Class indices [N]: the largest logit; with a single logit z, 1 where z > 0."""
        logits = self.logits(inputs, replicate=replicate)
        single = logits.shape[1] == 1
        return (logits[:, 0] > 0 if single else np.argmax(logits, axis=1)).astype(np.int32)

    def probabilities(self, inputs: Array | np.ndarray, *, replicate: int = 0) -> np.ndarray:
        """Class probabilities [N, C]: softmax(z); with a single logit, 1 - sigmoid(z), sigmoid(z).

        Raises:
          ValueError: as ``logits``; or a custom loss: custom losses define no probabilities.
        """
        if self.loss is None:
            raise ValueError(
                "the loss of the model is a custom function, which defines no probabilities: "
                "expected logits() or predict()"
            )
        return self._map(_probabilities, inputs, replicate)

    def logits(self, inputs: Array | np.ndarray, *, replicate: int = 0) -> np.ndarray:
        """Logits [N, C].

        Args:
          inputs: [N, in], in the range of the training examples, such as 8-bit pixels; the network
            sees inputs * scale.
          replicate: the number of the model, from 0.

        Raises:
          ValueError: the shape is not [N, in], the inputs are no numbers, or an unknown replicate.
        """
        return self._map(_logits, inputs, replicate)

    def _map(self, program: Any, inputs: Array | np.ndarray, replicate: int) -> np.ndarray:
        """The program's outputs; see ``map_blocks``."""
        if not 0 <= replicate < self.replicates:
            raise ValueError(
                f"replicate is {replicate}, expected one of the {self.replicates} models, from 0"
            )
        inputs, width = np.asarray(inputs), self.model.sizes[0]
        if inputs.ndim != 2 or inputs.shape[1] != width:
            raise ValueError(f"inputs have the shape {inputs.shape}, expected [N, {width}]")
        if inputs.dtype.kind not in "iufb":
            raise ValueError(f"inputs have the dtype {inputs.dtype}, expected numbers")
        params = jax.tree.map(lambda leaf: leaf[replicate], self.params)
        return map_blocks(
            lambda block: program(self.model, params, block, self.scale), inputs, fill=True
        )


@partial(jax.jit, static_argnames="model")
def _logits(model: MLP, params: PyTree, inputs: Array, scale: Array) -> Array:
    """[B, in] -> [B, C]."""
    scaled = as_float(inputs, Data(inputs, inputs, scale))
    return jax.vmap(model.apply, in_axes=(None, 0))(params, scaled)


@partial(jax.jit, static_argnames="model")
def _probabilities(model: MLP, params: PyTree, inputs: Array, scale: Array) -> Array:
    """[B, in] -> [B, C]."""
    logits = _logits(model, params, inputs, scale)
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
) -> None:
    """Saves trained models in a folder, in place of an earlier model.

    Args:
      folder: created if missing.
      spec: the trained program.
      params: parameters of a single model, or of R models, leaves [R, ...].
      scale: the factor of the training inputs, a number or [in].
      about: notes, such as hyperparameters.

    Raises:
      ModuleNotFoundError: safetensors is not installed.
      ValueError: the parameters do not fit ``spec.model``.
      OSError: the folder cannot be written; an earlier model stays.

    Example:
      >>> import tempfile, jax, jaxnn
      >>> spec = jaxnn.Spec(model=jaxnn.MLP((4, 3)), steps=1)
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     save_model(folder, spec, spec.model.init(jax.random.key(0)), scale=1 / 255)
      ...     load_model(folder).predict([[0, 255, 51, 3]]).shape
      (1,)
    """
    model, template = spec.model, jax.eval_shape(spec.model.init, jax.random.key(0))
    if _shapes(params) == _shapes(template):
        params = jax.tree.map(lambda leaf: np.asarray(leaf)[None], params)
    found = _shapes(params)
    replicates = next(iter(found.values()))[:1]
    if found != _shapes(template, *replicates):
        raise ValueError(
            f"params have the shapes {found}, expected {_shapes(template)}, or each with R in front"
        )
    known: dict[str, Any] = {"kind": "other"}  # JSON has no custom models and activations
    if isinstance(model, MLP) and model.activation in ACTIVATIONS:
        known = {"kind": "mlp", "sizes": model.sizes, "activation": model.activation}
    manifest = {
        "format": _FORMAT,
        "version": _VERSION,
        "model": known,
        "loss": spec.loss if isinstance(spec.loss, str) else None,
        "scale": np.asarray(scale),
        "replicates": replicates[0],
        "about": about or {},
        **environment(),
    }
    content, _ = files.pack(files.named_leaves("params", params), plain(manifest))
    Path(folder).mkdir(parents=True, exist_ok=True)
    with files.atomic_write(Path(folder) / MODEL) as file:
        file.write(content)


def load_model(folder: Path | str) -> SavedModel:
    """The models in a folder by ``save_model``, ready to predict.

    Raises:
      ModuleNotFoundError: safetensors is not installed.
      FileNotFoundError: the folder holds no model.
      DamagedFileError: the content of the file differs from the saved content.
      ValueError: an unknown version of the format; or a model other than ``jaxnn.MLP``, for
        ``load_params``.

    Example:
      >>> import tempfile, jax, jaxnn
      >>> spec = jaxnn.Spec(model=jaxnn.MLP((4, 3)), steps=1)
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     save_model(folder, spec, spec.model.init(jax.random.key(0)))
      ...     model = load_model(folder)
      >>> model.model.sizes, model.loss, model.replicates
      ((4, 3), 'cross_entropy', 1)
    """
    manifest, arrays = _read(Path(folder))
    model = manifest["model"]
    if model["kind"] != "mlp":
        raise ValueError(
            f"{folder} holds a model other than jaxnn.MLP: expected load_params(folder, template), "
            "with parameters of the model as the template"
        )
    mlp = MLP(tuple(model["sizes"]), activation=model["activation"])
    params = _restore(folder, manifest, arrays, jax.eval_shape(mlp.init, jax.random.key(0)))
    scale = np.asarray(manifest["scale"])
    return SavedModel(mlp, params, manifest["loss"], scale, manifest["about"])


def load_params(folder: Path | str, template: PyTree) -> PyTree:
    """The parameters of any model, such as a Flax module: leaves [R, ...].

    Args:
      folder: the folder given to ``save_model``.
      template: parameters of a single model, or shapes: ``jax.eval_shape(model.init, key)``.

    Raises:
      ValueError: the template does not fit the saved parameters; and as ``load_model``.
    """
    return _restore(folder, *_read(Path(folder)), template)


def _read(folder: Path) -> tuple[files.Manifest, dict[str, np.ndarray]]:
    path = folder / MODEL
    if not path.is_file():
        if (folder / _EARLIER).is_file():
            raise ValueError(
                f"{folder} holds {_EARLIER}, version 1 of the format, expected version {_VERSION}: "
                "train the model again, or load it with jaxnn before 0.2"
            )
        raise FileNotFoundError(f"{folder} holds no {MODEL}, expected what save_model wrote")
    manifest, arrays = files.unpack(path.read_bytes(), path)
    if manifest.get("format") != _FORMAT:
        raise ValueError(f"{path} is no {_FORMAT}, expected what save_model wrote")
    if manifest["version"] != _VERSION:
        raise ValueError(
            f"{path} has version {manifest['version']!r} of the format, expected {_VERSION}"
        )
    return manifest, arrays


def _shapes(params: PyTree, *replicates: int) -> dict[str, tuple[int, ...]]:
    """The shapes of all leaves by name, with R in front."""
    leaves = files.named_leaves("params", params)
    return {name: (*replicates, *np.shape(leaf)) for name, leaf in leaves.items()}


def _restore(
    folder: Path | str, manifest: files.Manifest, arrays: files.Arrays, template: PyTree
) -> PyTree:
    """The arrays of a file as a tree, after a comparison of the shapes."""
    expected = _shapes(template, manifest["replicates"])
    found = {name: array.shape for name, array in arrays.items()}
    for name in {**found, **expected}:
        if found.get(name) != expected.get(name):
            raise ValueError(
                f"{folder}: {name} has the shape {found.get(name)}, expected {expected.get(name)} "
                "as in the template"
            )
    return files.restore("params", template, arrays)
