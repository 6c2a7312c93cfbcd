"""Trained models, saved and ready to predict; ``jaxnn.model_folder`` says what the files are."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import checkpoint, model_folder
from jaxnn.minibatch import as_float
from jaxnn.mlp import ACTIVATIONS, MLP
from jaxnn.reporting import environment
from jaxnn.spec import Spec
from jaxnn.train import map_blocks
from jaxnn.types import Array, ArrayLike, Data, PyTree


@dataclass(frozen=True)
class SavedModel:
    """Models of one architecture, ready to predict; from ``load_model``.

    A search saves its choice once per replicate (seed or fold). Each is a model of its own:
    ``replicate`` says which one answers. An example's answer is the same bits whatever other
    examples it is asked with.

    Attributes:
      model: sizes and activation.
      params: leaves [R, ...].
      loss: its name; None for one that is not of this library.
      scale: the network sees inputs * scale.
      about: what was said of it when it was saved, such as its hyperparameters.
    """

    model: MLP
    params: PyTree
    loss: str | None
    scale: ArrayLike
    about: Mapping[str, Any]

    @property
    def replicates(self) -> int:
        """R, how many models there are."""
        return len(jax.tree.leaves(self.params)[0])

    def predict(self, inputs: Array | np.ndarray, *, replicate: int = 0) -> np.ndarray:
        """Class indices, [N]: the largest logit's; of one logit, whether it is positive."""
        logits = self.logits(inputs, replicate=replicate)
        if logits.shape[1] == 1:
            return (logits[:, 0] > 0).astype(np.int32)
        return np.argmax(logits, axis=1).astype(np.int32)

    def probabilities(self, inputs: Array | np.ndarray, *, replicate: int = 0) -> np.ndarray:
        """Class probabilities [N, C]: the softmax of the logits; of one logit, 1 - h and h.

        h = sigmoid(z) is the probability of class 1.

        Raises:
          ValueError: as ``logits``; or the model was trained with a loss of somebody else's, which
            may mean anything by its logits.
        """
        if self.loss is None:
            raise ValueError(
                "the model was trained with a loss that is not of this library: expected logits() "
                "or predict(), its probabilities are unknown"
            )
        return self._map(_probabilities, inputs, replicate)

    def logits(self, inputs: Array | np.ndarray, *, replicate: int = 0) -> np.ndarray:
        """Logits [N, C].

        Args:
          inputs: [N, in], stored as the training examples were: 8-bit pixels, or floats of the same
            range, for both are multiplied by ``scale``.
          replicate: which model, from 0.

        Raises:
          ValueError: another shape than [N, in], inputs that are no numbers, or no such replicate.
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
    format: str = "npz",
) -> None:
    """Saves trained models; one that is in the folder already is replaced.

    One process at a time may write a folder.

    Args:
      folder: made if need be.
      spec: what was trained.
      params: one model's parameters, or several models', leaves [R, ...].
      scale: of the training examples: a number, or one per input.
      about: anything else worth knowing, in JSON's types.
      format: "npz", or "safetensors" (which needs the package of that name).

    Raises:
      ValueError: another format, or parameters that are not of this model.
      OSError: the folder cannot be written; a model that was there still is.
    """
    if format not in model_folder.FORMATS:
        raise ValueError(f"format is {format!r}, expected one of {list(model_folder.FORMATS)}")
    params = _with_replicates(params, jax.eval_shape(spec.model.init, jax.random.key(0)))
    content = {
        "model": _describe(spec),
        "loss": spec.loss if isinstance(spec.loss, str) else None,
        "scale": np.asarray(scale),
        "replicates": len(jax.tree.leaves(params)[0]),
        "about": about or {},
        "versions": environment()["versions"],
    }
    arrays = checkpoint.named_leaves("params", params)
    model_folder.write(Path(folder), arrays, content, format)


def load_model(folder: Path | str) -> SavedModel:
    """The models that ``save_model`` saved.

    Raises:
      FileNotFoundError: the folder holds no manifest, or not the file it names.
      DamagedFileError: the manifest or the parameters are not what was written.
      ValueError: another version of the format; or a model that is no MLP of this library, which
        only ``load_params`` can restore.
    """
    manifest = model_folder.read(Path(folder))
    model = manifest["model"]
    if model["kind"] != "mlp":
        raise ValueError(
            f"{folder} holds a model that is no MLP of this library: expected "
            "load_params(folder, template), with parameters of the model as the template"
        )
    mlp = MLP(tuple(model["sizes"]), activation=model["activation"])
    template = jax.eval_shape(mlp.init, jax.random.key(0))
    return SavedModel(
        mlp,
        _restore(Path(folder), manifest, template),
        manifest["loss"],
        np.asarray(manifest["scale"]),
        manifest["about"],
    )


def load_params(folder: Path | str, template: PyTree) -> PyTree:
    """The parameters of any model, such as Flax's: leaves [R, ...].

    Args:
      folder: where ``save_model`` saved it.
      template: one model's parameters, or their shapes: ``jax.eval_shape(model.init, key)``.

    Raises:
      ValueError: the template is not of this model; and as ``load_model``.
    """
    return _restore(Path(folder), model_folder.read(Path(folder)), template)


def _describe(spec: Spec) -> dict[str, Any]:
    """What a model can be built from again, if that can be said in words."""
    model = spec.model
    if not isinstance(model, MLP) or model.activation not in ACTIVATIONS:
        return {"kind": "other"}
    return {"kind": "mlp", "sizes": model.sizes, "activation": model.activation}


def _with_replicates(params: PyTree, template: PyTree) -> PyTree:
    """Parameters of one model or of several as leaves [R, ...].

    Raises:
      ValueError: they are not of this model.
    """
    shapes = [leaf.shape for leaf in jax.tree.leaves(template)]
    found = [np.shape(leaf) for leaf in jax.tree.leaves(params)]
    if jax.tree.structure(params) == jax.tree.structure(template):
        if found == shapes:
            return jax.tree.map(lambda leaf: np.asarray(leaf)[None], params)
        if found and found[0] and found == [(found[0][0], *shape) for shape in shapes]:
            return jax.tree.map(np.asarray, params)
    raise ValueError(f"params have the shapes {found}, expected {shapes}, or each with R in front")


def _restore(folder: Path, manifest: Mapping[str, Any], template: PyTree) -> PyTree:
    arrays = model_folder.read_arrays(folder, manifest)
    expected = {
        "params" + jax.tree_util.keystr(path): (manifest["replicates"], *leaf.shape)
        for path, leaf in jax.tree.leaves_with_path(template)
    }
    found = {name: array.shape for name, array in arrays.items()}
    if found != expected:
        name = next(n for n in [*found, *expected] if found.get(n) != expected.get(n))
        raise ValueError(
            f"{folder}: {name} has the shape {found.get(name)}, expected {expected.get(name)} as "
            "the template has it"
        )
    return checkpoint.restore("params", template, arrays)
