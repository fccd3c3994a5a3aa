"""The trial of a search that a run is: it is told each epoch's validation Dice, and ends a run that falls behind.

A search by Optuna (Akiba et al. 2019) names study and trial to its job by environment variables, in whatever process
the job runs. Epochs are counted over all phases. Optuna is imported only if they are set.
"""

import logging
import math
import os
from collections.abc import Mapping
from typing import Any

from segtune.errors import Pruned

log = logging.getLogger(__name__)

#: The environment variables of a job: the URL of the study's database, the study's name, and the trial's number.
STUDY, NAME, TRIAL = "SEGTUNE_STUDY", "SEGTUNE_STUDY_NAME", "SEGTUNE_TRIAL"

_WHY = {
    "median": "is below the median of the finished runs at that epoch",
    "hyperband": "is not among the best third of the runs at that epoch",
}


def pruner_of(name: str, finished_trials: int, warmup_epochs: int) -> Any:
    """Return Optuna's pruner of a name, which ends no run in its first `warmup_epochs` epochs.

    Args:
        name: `median`, `none`, or `hyperband` (Li et al. 2018), which ends none before one has finished.
        finished_trials: Runs that must have finished before `median` ends others.
        warmup_epochs: Epochs.
    """
    from optuna import pruners

    if name == "median":  # it counts steps, and an epoch is told under its number, from 1
        return pruners.MedianPruner(n_startup_trials=finished_trials, n_warmup_steps=warmup_epochs + 1)
    return pruners.HyperbandPruner(min_resource=warmup_epochs + 1) if name == "hyperband" else pruners.NopPruner()


class Trial:
    """A trial in the database of a study, which several processes share."""

    def __init__(self, name: str, url: str, number: int) -> None:
        """Load a trial by its number."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._error, self._told = optuna.exceptions.OptunaError, False
        self._study = optuna.load_study(study_name=name, storage=url)
        pruner: Mapping[str, Any] = self._study.user_attrs["pruner"]
        self._why = _WHY.get(pruner["name"], "")
        self._study.pruner = pruner_of(**pruner)
        storage = self._study._storage
        self._trial = optuna.trial.Trial(
            self._study, storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number)
        )

    @classmethod
    def of_job(cls) -> "Trial | None":
        """Return the trial that this job is; None outside a search."""
        if STUDY not in os.environ:
            return None
        return cls(os.environ[NAME], os.environ[STUDY], int(os.environ[TRIAL]))

    def epoch(self, epoch: int, dice: float, *, may_end: bool) -> None:
        """Take the validation Dice of an epoch, counted from 1; one that is not a number, or known already, is ignored.

        Raises:
            Pruned: Others were better, and the run `may_end`.
        """
        try:
            known = dict(self._trial.storage.get_trial(self._trial._trial_id).intermediate_values)
            if not math.isnan(dice) and epoch not in known:
                self._trial.report(dice, epoch)
                known[epoch] = dice
            ends = may_end and self._trial.should_prune()
        except self._error as error:  # of the database; training does not depend on it
            if not self._told:
                log.warning("The search was not told of epoch %d, and cannot end this run: %s.", epoch, error)
            self._told = True
            return
        if ends:
            raise Pruned(f"After epoch {epoch} its best validation Dice, {max(known.values()):.4f}, {self._why}.")
