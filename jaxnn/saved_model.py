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
        if logits.shape[1] == 1:
            return (logits[:, 0] > 0).astype(np.int32)
        return np.argmax(logits, axis=1).astype(np.int32)

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
    params = _with_replicates(params, jax.eval_shape(spec.model.init, jax.random.key(0)))
    manifest = {
        "format": _FORMAT,
        "version": _VERSION,
        "model": _describe(spec),
        "loss": spec.loss if isinstance(spec.loss, str) else None,
        "scale": np.asarray(scale),
        "replicates": len(jax.tree.leaves(params)[0]),
        "about": about or {},
        **environment(),
    }
    Path(folder).mkdir(parents=True, exist_ok=True)
    leaves = files.named_leaves("params", params)
    files.save_arrays(Path(folder) / MODEL, leaves, plain(manifest))


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
    manifest, arrays = files.load_arrays(path)
    if manifest.get("format") != _FORMAT:
        raise ValueError(f"{path} is no {_FORMAT}, expected what save_model wrote")
    if manifest["version"] != _VERSION:
        raise ValueError(
            f"{path} has version {manifest['version']!r} of the format, expected {_VERSION}"
        )
    return manifest, arrays


def _describe(spec: Spec) -> dict[str, Any]:
    """The arguments that build the model; custom models and activations have none in JSON."""
    model = spec.model
    if not isinstance(model, MLP) or model.activation not in ACTIVATIONS:
        return {"kind": "other"}
    return {"kind": "mlp", "sizes": model.sizes, "activation": model.activation}


def _with_replicates(params: PyTree, template: PyTree) -> PyTree:
    """Parameters of a single model, or of R models, as leaves [R, ...]."""
    shapes = [leaf.shape for leaf in jax.tree.leaves(template)]
    found = [np.shape(leaf) for leaf in jax.tree.leaves(params)]
    if jax.tree.structure(params) == jax.tree.structure(template):
        if found == shapes:
            return jax.tree.map(lambda leaf: np.asarray(leaf)[None], params)
        if found and found[0] and found == [(found[0][0], *shape) for shape in shapes]:
            return jax.tree.map(np.asarray, params)
    raise ValueError(f"params have the shapes {found}, expected {shapes}, or each with R in front")


def _restore(
    folder: Path | str, manifest: files.Manifest, arrays: files.Arrays, template: PyTree
) -> PyTree:
    leaves = files.named_leaves("params", template)
    expected = {name: (manifest["replicates"], *leaf.shape) for name, leaf in leaves.items()}
    found = {name: array.shape for name, array in arrays.items()}
    for name in {**found, **expected}:
        if found.get(name) != expected.get(name):
            raise ValueError(
                f"{folder}: {name} has the shape {found.get(name)}, expected {expected.get(name)} "
                "as in the template"
            )
    return files.restore("params", template, arrays)
