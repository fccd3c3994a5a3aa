"""A search by Optuna in the place of all combinations: `hydra/sweeper=optuna`.

Hydra's own plugin needs Optuna 2 in its last release. This sweeper asks a study for values, lets the launcher run them
as jobs of a sweep, and tells the study how they ended. The study is in a database, so a search goes on where it
stopped; and each run, in whatever process, tells the study its epochs (see `segtune.training.trial`).
"""

import math
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, cast

from hydra.core.override_parser.types import Quote, QuotedString
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig
from pydantic import Field
from pydantic.dataclasses import dataclass

from segtune.cli.compose import for_composition
from segtune.cli.quoting import as_typed
from segtune.cli.search_space import Space, Values, overrides_of
from segtune.cli.sweep_jobs import name_of
from segtune.config.parse import parse
from segtune.config.schema import Settings
from segtune.config.types import STRICT, Count
from segtune.errors import UserError
from segtune.runtime.paths import from_here
from segtune.runtime.sweep_files import is_finished, read_failure, was_pruned
from segtune.training.resume_rules import MAY_CHANGE
from segtune.training.trial import NAME, STUDY, TRIAL

#: The name of the sweeper in conf/hydra/sweeper/optuna.yaml.
SEARCH = "hydra_plugins.segtune.Search"
#: Settings that no job of a search is given, or that do not matter to it.
_OF_PLACE = ("run_dir", "resume", "sweep")


@dataclass(frozen=True, config=STRICT)
class SearchSettings:
    """The settings of a search; conf/hydra/sweeper/optuna.yaml explains them."""

    n_trials: Count
    direction: Literal["maximize", "minimize"]
    sampler: Literal["tpe", "random"]
    startup_trials: Count
    seed: int
    pruner: Literal["median", "hyperband", "none"]
    finished_trials: Count
    warmup_epochs: Annotated[int, Field(ge=0)]
    storage: str | None = None
    params: dict[str, str | int | float | bool | None] = field(default_factory=dict)


class Jobs(Protocol):
    """What a search needs of `segtune.cli.sweep.SweepLauncher`."""

    folder: Path

    @property
    def at_once(self) -> int:
        """The number of jobs that run at a time."""

    def expect(self, samples: Sequence[Sequence[str]], searched: Sequence[str], total: int) -> None:
        """Prepare for jobs."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run jobs."""


class Search(Sweeper):
    """Hydra's sweeper for a search."""

    def __init__(self, **settings: Any) -> None:
        """Take the settings of hydra.sweeper."""
        self._given = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Make the launcher.

        Raises:
            UserError: A setting is wrong, the command is not `train`, or Optuna is not installed.
        """
        given = {**self._given, "params": dict(self._given.get("params") or {})}
        try:
            self._settings = parse(SearchSettings, given)
        except UserError as error:
            raise UserError(str(error).replace("\n  ", "\n  hydra.sweeper.")) from error
        if (command := str(config.hydra.job.config_name)) != "train":
            raise UserError(f"hydra/sweeper=optuna searches for settings of train; got the command {command}.")
        _import_optuna()
        self._phases = list(config.freeze.phases)
        launcher = Plugins.instance().instantiate_launcher(
            config=config, hydra_context=hydra_context, task_function=task_function
        )
        self._jobs = cast(Jobs, launcher)

    def sweep(self, arguments: list[str]) -> None:
        """Run the trials of the search that are left.

        Raises:
            UserError: There is nothing to search, or the study is of another search.
        """
        space, settings = self._space(arguments), self._settings
        whole = space.points <= settings.n_trials
        total = int(min(space.points, settings.n_trials))
        samples = [self._overrides(each, space.distributions, space.fixed) for each in space.samples()]
        self._jobs.expect(samples, [name.lstrip("+") for name in space.distributions], total)
        study = self._study(space)
        for values in space.all() if whole else ():
            study.enqueue_trial(values, skip_if_exists=True)
        try:
            self._run(study, _trials(study, "RUNNING"), space)  # those at which the search was stopped
            while count := min(self._jobs.at_once, self._left(study, whole=whole)):
                self._run(study, [self._ask(study, space) for _ in range(count)], space)
        finally:
            self._say(study, total)

    def _space(self, arguments: Sequence[str]) -> Space:
        """Return the space of the group `sweep` and the command line, whose overrides count more.

        Raises:
            UserError: It is empty.
        """
        params = self._settings.params
        there = {name: value for name, value in params.items() if self._is_there(name)}
        ready = for_composition("train", [f"{name}={'null' if v is None else v}" for name, v in there.items()])
        space = Space.of([*ready, *(each for each in arguments if name_of(each) != "sweep")])
        if not space.distributions:
            absent = f" Its phases are {', '.join(self._phases)}; the space has {', '.join(params)}." if params else ""
            raise UserError(
                f"hydra/sweeper=optuna: there is nothing to search.{absent} Give a setting several values, such as "
                "'lr=tag(log, interval(1e-4, 1e-2))' or optimizer=adamw,sgd, or choose a ready space: sweep=rates."
            )
        return space

    def _is_there(self, name: str) -> bool:
        of_phase = re.match(r"freeze\.phases\.(\w+)\.", name)
        return not of_phase or of_phase[1] in self._phases

    def _study(self, space: Space) -> Any:
        """Return the study: a new one, or that of the same search.

        Raises:
            UserError: It is of another search, or cannot be read.
        """
        optuna, settings = _import_optuna(), self._settings
        self._url = settings.storage or f"sqlite:///{(self._jobs.folder / 'study.db').as_uri()}?uri=true"
        self._name = str(self._jobs.folder) if settings.storage else "segtune"
        try:
            study = optuna.create_study(
                study_name=self._name, storage=self._url, direction=settings.direction, load_if_exists=True
            )
        except Exception as error:  # of Optuna, SQLAlchemy or the database's driver
            where = settings.storage or from_here(self._jobs.folder / "study.db")
            raise UserError(f"The study in {where} cannot be used: {type(error).__name__}: {error}") from error
        self._check_same(study, space)
        pruner = {name: getattr(settings, name) for name in ("finished_trials", "warmup_epochs")}
        study.set_user_attr("pruner", {"name": settings.pruner, **pruner})
        return study

    def _check_same(self, study: Any, space: Space) -> None:
        """Check that the trials of a study were of the same settings and choices, and record the settings.

        Raises:
            UserError: They were not.
        """
        from optuna.distributions import check_distribution_compatibility

        typed = (as_typed(each.removeprefix("++"), Settings) for each in space.fixed)
        fixed = sorted(each for each in typed if name_of(each) not in (*_OF_PLACE, *MAY_CHANGE))
        before = study.user_attrs.get("fixed", fixed)
        advice = "Give the same, or choose another folder (run_dir=…)."
        if study.trials and before != fixed:
            raise UserError(
                f"The search in {from_here(self._jobs.folder)} has other settings beside its space: "
                f"got {' '.join(fixed) or 'none'}; expected {' '.join(before) or 'none'}. {advice}"
            )
        for trial in study.trials:
            for name in space.distributions.keys() & trial.distributions.keys():
                try:
                    check_distribution_compatibility(trial.distributions[name], space.distributions[name])
                except ValueError as error:
                    raise UserError(
                        f"{name}: the search in {from_here(self._jobs.folder)} has another kind of range or other "
                        f"choices: got {space.distributions[name]}; expected {trial.distributions[name]}. {advice}"
                    ) from error
        study.set_user_attr("fixed", fixed)

    def _left(self, study: Any, *, whole: bool) -> int:
        """Return the number of trials to begin: of a space that is tried whole, of those that wait for it."""
        waiting = len(_trials(study, "WAITING"))
        return waiting if whole else max(0, self._settings.n_trials - len(study.trials) + waiting)

    def _ask(self, study: Any, space: Space) -> Any:
        """Return a new trial. Its random numbers follow from its own number, so that a search may stop anywhere."""
        from optuna import samplers

        seed = random.Random(f"{self._settings.seed} {len(study.trials)}").getrandbits(32)
        if self._settings.sampler == "random":
            study.sampler = samplers.RandomSampler(seed)
        else:
            study.sampler = samplers.TPESampler(seed=seed, n_startup_trials=self._settings.startup_trials)
        return study.ask(space.distributions)

    def _overrides(self, values: Values, distributions: Mapping[str, Any], fixed: Sequence[str]) -> list[str]:
        return [*fixed, *for_composition("train", overrides_of(values, distributions))]

    def _run(self, study: Any, trials: Sequence[Any], space: Space) -> None:
        """Run the jobs of trials, and tell the study how they ended."""
        overrides = []
        for trial in trials:
            own = {NAME: self._name, STUDY: self._url, TRIAL: str(trial.number)}
            quoted = {name: QuotedString(value, Quote.single).with_quotes() for name, value in own.items()}
            places = [f"+hydra.job.env_set.{name}={value}" for name, value in quoted.items()]
            overrides.append([*self._overrides(trial.params, trial.distributions, space.fixed), *places])
        for trial, result in zip(trials, self._jobs.launch(overrides, 0) if trials else (), strict=True):
            _tell(study, trial.number, result)

    def _say(self, study: Any, total: int) -> None:
        """Say how the trials have ended."""
        counts = Counter(trial.state.name for trial in study.trials)
        words = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "interrupted"}
        told = ", ".join(f"{counts[state]} {word}" for state, word in words.items() if counts[state])
        print(f"\nSearch: {told or 'no run has begun'}, of {total} runs.", flush=True)


def _tell(study: Any, number: int, result: JobReturn) -> None:
    """Tell a study how a job has ended; nothing of one that was interrupted, whose trial goes on with the search."""
    from optuna.trial import TrialState

    folder, value = Path(str(result.working_dir)), result.return_value
    if was_pruned(folder):
        study.tell(number, state=TrialState.PRUNED)
    elif isinstance(value, float) and not math.isnan(value):
        study.tell(number, value)
    elif read_failure(folder) or is_finished(folder):  # or no validation image has an object
        study.tell(number, state=TrialState.FAIL)


def _trials(study: Any, state: str) -> list[Any]:
    return [trial for trial in study.trials if trial.state.name == state]


def _import_optuna() -> Any:
    """Return the package, made silent.

    Raises:
        UserError: It is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise UserError(
            f"hydra/sweeper=optuna needs Optuna, which cannot be imported ({error}). To install it: "
            "pip install 'segtune[optuna]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
