"""Checkpoints by Orbax: atomic, asynchronous, the newest ones kept."""

import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath


class Checkpoints:
  """A folder of numbered checkpoints of one tree of arrays.

  A checkpoint is written beside its final name and renamed when complete, so
  that a process killed at any moment leaves the one before it intact.
  """

  def __init__(self, folder: str | pathlib.Path, keep: int = 2):
    """Opens or creates the folder.

    Args:
      folder: local or any path that etils can reach.
      keep: how many of the newest checkpoints stay.
    """
    path = epath.Path(folder)
    if not path.is_absolute() and '://' not in str(folder):
      path = epath.Path(pathlib.Path(folder).absolute())
    self._manager = ocp.CheckpointManager(
      path, options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
    )

  def save(self, step: int, tree: Any) -> None:
    """Writes the tree in the background; training may go on."""
    self._manager.save(step, args=ocp.args.StandardSave(tree))

  def restore(self, like: Any) -> tuple[int, Any] | None:
    """Returns (step, tree) of the newest checkpoint, or None.

    Args:
      like: a tree with the shapes, types and shardings to restore to.

    Raises:
      ValueError: the stored tree has other names, shapes or types.
    """
    self._manager.wait_until_finished()
    step = self._manager.latest_step()
    if step is None:
      return None
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    tree = self._manager.restore(
      step, args=ocp.args.StandardRestore(abstract, strict=True)
    )
    return step, tree

  def close(self) -> None:
    """Waits for the last checkpoint to be complete."""
    self._manager.wait_until_finished()
    self._manager.close()
