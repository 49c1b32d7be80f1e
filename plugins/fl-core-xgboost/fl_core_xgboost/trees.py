"""Trees as arrays, and their one JSON form: members of the ensemble, and the exported booster.

The form is XGBoost's own model JSON in the fields of version 2.1, which later versions read
(https://xgboost.readthedocs.io/en/stable/tutorials/saving_model.html). It holds what prediction
needs and nothing else: the training statistics that XGBoost writes beside it (``sum_hessian``,
``base_weights``, ``loss_changes``) say how many rows of which class reached a node, and are zero
here.

Bytes from other silos are read in Python, checked, and must be exactly what :func:`encode` writes
for the trees in them. XGBoost's native parser gets no others.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from fl_core.errors import UpdateError

_NO_PARENT = 2**31 - 1
_VERSION = [2, 1, 0]
_BYTES_PER_MODEL, _BYTES_PER_TREE, _BYTES_PER_NODE = 1024, 640, 128
_FIELDS = {
    "left_children": "i",
    "right_children": "i",
    "split_indices": "i",
    "default_left": "i",
    "split_conditions": "if",
}


@dataclass(frozen=True)
class Limits:
    """What a member may hold: that which the run's parameters can produce."""

    features: int
    trees: int
    depth: int

    @property
    def nodes(self) -> int:
        """Nodes of a full tree."""
        return 2 ** (self.depth + 1) - 1

    @property
    def bytes(self) -> int:
        """No member within the other limits is longer than this."""
        return _BYTES_PER_MODEL + self.trees * (_BYTES_PER_TREE + self.nodes * _BYTES_PER_NODE)


@dataclass(frozen=True, eq=False)
class Tree:
    """A binary tree of k nodes; node 0 is the root, and children come after their parent.

    A row goes left when its feature is less than the threshold, and where ``default_left`` says
    when it is missing. Arrays have shape (k,).
    """

    left: np.ndarray
    """int32: the left child; -1 in a leaf."""
    right: np.ndarray
    """int32: the right child; -1 in a leaf."""
    feature: np.ndarray
    """int32: the feature that splits; 0 in a leaf."""
    value: np.ndarray
    """float32: the threshold; in a leaf, what it adds to the margin."""
    default_left: np.ndarray
    """int32: 1 when missing values go left; 0 in a leaf."""

    def scaled(self, weight: float) -> Tree:
        """The tree with its leaves' values times ``weight``."""
        leaf = self.left < 0
        value = np.where(leaf, self.value.astype(np.float64) * weight, self.value)
        return Tree(
            self.left, self.right, self.feature, value.astype(np.float32), self.default_left
        )


def from_booster(raw: bytes | bytearray) -> list[Tree]:
    """The trees of a booster that this process trained, from ``Booster.save_raw("json")``.

    Nodes are numbered anew from the root, so that none stays behind that pruning has cut off.
    """
    model = json.loads(raw)["learner"]["gradient_booster"]["model"]
    return [_renumbered(_arrays(tree)) for tree in model["trees"]]


def _renumbered(tree: Tree) -> Tree:
    order = [0]
    for node in order:
        if tree.left[node] >= 0:
            order += [int(tree.left[node]), int(tree.right[node])]
    place = np.full(len(tree.left) + 1, -1, dtype=np.int32)  # the last: children of leaves
    place[order] = np.arange(len(order))
    left, right = tree.left[order], tree.right[order]
    inner = left >= 0
    return Tree(
        place[left],
        place[right],
        np.where(inner, tree.feature[order], 0).astype(np.int32),
        tree.value[order],
        np.where(inner, tree.default_left[order], 0).astype(np.int32),
    )


def encode(trees: Sequence[Tree], features: int) -> bytes:
    """A model of binary logistic regression, base score 0.5, as compact JSON."""
    count = len(trees)
    document = {
        "learner": {
            "attributes": {},
            "feature_names": [],
            "feature_types": [],
            "gradient_booster": {
                "model": {
                    "gbtree_model_param": {"num_parallel_tree": "1", "num_trees": str(count)},
                    "iteration_indptr": list(range(count + 1)),
                    "tree_info": [0] * count,
                    "trees": [_as_json(tree, i, features) for i, tree in enumerate(trees)],
                },
                "name": "gbtree",
            },
            "learner_model_param": {
                "base_score": "5E-1",
                "boost_from_average": "0",
                "num_class": "0",
                "num_feature": str(features),
                "num_target": "1",
            },
            "objective": {
                "name": "binary:logistic",
                "reg_loss_param": {"scale_pos_weight": "1"},
            },
        },
        "version": _VERSION,
    }
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()


def _as_json(tree: Tree, number: int, features: int) -> dict[str, Any]:
    count = len(tree.left)
    parents = np.full(count, _NO_PARENT)
    inner = np.flatnonzero(tree.left >= 0)
    parents[tree.left[inner]] = inner
    parents[tree.right[inner]] = inner
    zeros = [0.0] * count
    return {
        "base_weights": zeros,
        "categories": [],
        "categories_nodes": [],
        "categories_segments": [],
        "categories_sizes": [],
        "default_left": tree.default_left.tolist(),
        "id": number,
        "left_children": tree.left.tolist(),
        "loss_changes": zeros,
        "parents": parents.tolist(),
        "right_children": tree.right.tolist(),
        # numpy prints the shortest text that is the same float32; as a double it has 17 digits
        "split_conditions": [float(str(value)) for value in tree.value],
        "split_indices": tree.feature.tolist(),
        "split_type": [0] * count,
        "sum_hessian": zeros,
        "tree_param": {
            "num_deleted": "0",
            "num_feature": str(features),
            "num_nodes": str(count),
            "size_leaf_vector": "1",
        },
    }


def decode(data: bytes, limits: Limits, place: int = 0) -> tuple[Tree, ...]:
    """The trees of the ensemble's member at ``place``; its bytes may come from anywhere.

    Raises UpdateError, saying what is wrong, for anything but the output of :func:`encode` within
    ``limits``.
    """
    if len(data) > limits.bytes:
        _refuse(place, f"has {len(data)} bytes, over the limit of {limits.bytes}")
    try:
        document = json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        _refuse(place, f"is not JSON: {error!s:.80}")
    try:
        trees = document["learner"]["gradient_booster"]["model"]["trees"]
    except (KeyError, TypeError):
        _refuse(place, "is no booster of kind gbtree")
    if not isinstance(trees, list) or len(trees) > limits.trees:
        _refuse(place, f"does not hold a list of at most {limits.trees} trees")
    checked = []
    for number, fields in enumerate(trees):
        try:
            tree = _arrays(fields)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            _refuse(place, f"has a malformed tree {number}: {type(error).__name__} {error!s:.80}")
        problem = _problem(tree, limits)
        if problem:
            _refuse(place, f"has a tree {number} with {problem}")
        checked.append(tree)
    if encode(checked, limits.features) != data:
        _refuse(place, f"is not a booster of {limits.features} features as this plugin writes it")
    return tuple(checked)


def _arrays(fields: Any) -> Tree:
    """One tree of the JSON as arrays; its shape is still to be checked."""
    columns = {}
    for name, kinds in _FIELDS.items():
        values = np.asarray(fields[name])
        if values.ndim != 1 or values.dtype.kind not in kinds:
            raise ValueError(f"{name} is not a list of numbers")
        target = np.float32 if "f" in kinds else np.int32
        with np.errstate(over="ignore"):  # an infinite threshold is refused later
            columns[name] = values.astype(target)
        if target == np.int32 and (columns[name] != values).any():
            raise ValueError(f"{name} is out of range")
    return Tree(
        columns["left_children"],
        columns["right_children"],
        columns["split_indices"],
        columns["split_conditions"],
        columns["default_left"],
    )


def _problem(tree: Tree, limits: Limits) -> str | None:
    """Why ``tree`` is none, or None."""
    count = len(tree.left)
    if any(len(array) != count for array in vars(tree).values()):
        return "arrays of unequal length"
    if not 1 <= count <= limits.nodes:
        return f"{count} nodes, not 1 to {limits.nodes}"
    if not np.isfinite(tree.value).all():
        return "a value that is not finite"
    inner = tree.left >= 0
    if (tree.left < -1).any() or (tree.right < -1).any() or ((tree.right >= 0) != inner).any():
        return "a node that has one child"
    children = np.concatenate([tree.left[inner], tree.right[inner]])
    if not np.array_equal(np.sort(children), np.arange(1, count)):
        return "children that are not each other node once"
    if (np.tile(np.flatnonzero(inner), 2) >= children).any():
        return "a child before its parent"
    if ((tree.feature < 0) | (tree.feature >= np.where(inner, limits.features, 1))).any():
        return "a feature that does not exist"
    if ((tree.default_left < 0) | (tree.default_left > inner)).any():
        return "a default direction that is none"
    level = np.zeros(1, dtype=np.int64)
    for _ in range(limits.depth):
        level = level[inner[level]]
        level = np.concatenate([tree.left[level], tree.right[level]])
    return f"a path longer than {limits.depth}" if inner[level].any() else None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _refuse(place: int, what: str) -> NoReturn:
    raise UpdateError(
        f"member {place} of the ensemble {what}",
        "every silo must run the same version and parameters of fl-core-xgboost; if all do, the "
        "silo that sent it is at fault",
    )
