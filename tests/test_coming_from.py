"""What `docs/coming-from.md` promises: each row of its tables names settings that exist, and a test that shows it."""

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

import segtune
from segtune.__main__ import main
from segtune.cli.compose import OPEN, OVERRIDE
from segtune.cli.help import config_folder
from segtune.cli.quoting import for_hydra
from segtune.config.parse import parse
from segtune.config.schema import Settings
from segtune.config.training_settings import PhaseSettings
from segtune.errors import UserError

REPOSITORY = Path(segtune.__file__).parents[1]
DOCUMENT = (REPOSITORY / "docs" / "coming-from.md").read_text(encoding="utf-8")

SCHEDULES = (
    "training/test_schedules.py"
    "::test_schedules_are_those_of_pytorch_also_after_a_resume_and_when_a_phase_becomes_longer"
)
KERAS_SCHEDULES = "training/test_schedules.py::test_schedules_are_those_of_keras"
RMSPROP = "training/test_optim.py::test_ten_steps_of_rmsprop_by_hand"

#: The tests of each row, by section and first cell: `file::test`, below `tests/`.
TESTS: dict[str, dict[str, str]] = {
    "TF-slim (`train_image_classifier.py`, tensorflow_fcn)": {
        "`checkpoint_path`": "models/test_pretrained.py::test_files_in_every_usual_form "
        "models/test_start.py::test_a_file_of_the_whole_model_needs_no_other_weights",
        "`checkpoint_exclude_scopes`": "models/test_restore.py::test_what_is_excluded_stays",
        "`ignore_missing_vars`": "models/test_start.py::test_what_the_file_lacks_is_new "
        "models/test_restore.py::test_strict_refuses_what_does_not_fit",
        "`trainable_scopes`": "training/test_freezing.py::test_modules_of_a_phase "
        "training/test_freezing.py::test_lists_of_the_decoder",
        "`tf.stop_gradient` at a layer": "training/test_phases.py::test_what_trains_is_what_gets_a_gradient "
        "training/test_phases.py::test_a_cut_that_leaves_nothing_to_train",
        "variables left out of the optimizer": (
            "training/test_optim.py::test_the_optimizer_holds_what_trains_and_nothing_else "
            "training/test_invariants.py::test_a_run_with_a_wrong_optimizer_stops"
        ),
        "`max_number_of_steps`": "training/test_loop.py::test_a_phase_of_steps_makes_just_these",
        "`batch_size`": "training/test_epoch.py::test_accumulated_gradients_equal_those_of_the_whole_batch",
        "`learning_rate`": "training/test_optim.py::test_rates_of_layer_wise_decay_by_hand",
        "`learning_rate_decay_type`": SCHEDULES,
        "`learning_rate_decay_factor`, `num_epochs_per_decay`": SCHEDULES,
        "`end_learning_rate`": "training/test_schedules.py::test_poly_is_tensorflows_with_an_end_rate_as_a_fraction",
        "`optimizer`": "training/test_optim.py::test_ten_steps_of_rmsprop_by_hand "
        "training/test_optim.py::test_a_phase_has_its_own_optimizer",
        "`rmsprop_decay`, `rmsprop_momentum`, `opt_epsilon`": RMSPROP,
        "`momentum`, `weight_decay`": "training/test_optim.py::test_settings_that_are_not_set_are_the_optimizers_own",
        "`adam_beta1`, `adam_beta2`, `opt_epsilon`": "training/test_optim.py::test_epsilon_is_set",
        "`save_interval_secs`": "training/test_epoch.py::test_a_run_is_saved_within_an_epoch_by_the_clock",
        "`save_summaries_secs`": "training/test_step_log.py::test_steps_are_logged_by_number_and_by_time",
        "`log_every_n_steps`": "training/test_step_log.py::test_steps_are_logged_by_number_and_by_time",
        "`eval_image_classifier.py`": "commands/test_evaluate.py::test_the_numbers_are_those_of_smp",
        "converting and registering a data set": (
            "data/sources/test_folder.py::test_pairs_are_sorted_and_junk_is_passed_over"
        ),
    },
    "tensorflow_fcn (FCN-8s on VGG16)": {
        "`vgg16.npy`": "models/test_tensor_files.py::test_a_file_of_another_program_is_named",
        "`fc6`, `fc7` as convolutions (`get_fc_weight_reshape`)": (
            "models/test_pretrained.py::test_a_classifier_computes_the_same_at_the_centre_of_vgg16"
        ),
        "the skip fusion of `pool4` and `pool3`": (
            "training/test_staged.py::test_each_stage_is_the_published_network_and_begins_where_the_last_ended"
        ),
        "750 x 750 images, not divisible by 32": "models/test_model.py::test_any_size_gives_logits_of_that_size "
        "models/test_model.py::test_large_odd_photo",
        "a photo a step, momentum 0.99, rate 1e-10 of a summed loss": (
            "training/test_staged.py::test_the_rates_of_the_recipe_make_the_steps_of_the_published_solver"
        ),
        "two classes, softmax": "models/test_model.py::test_training_two_outputs_is_cross_entropy_over_two_classes",
        "freezing: `tf.stop_gradient` at a layer": "training/test_phases.py::test_what_trains_is_what_gets_a_gradient",
        "freezing: variables left out of the optimizer (`var_list`)": (
            "training/test_optim.py::test_the_optimizer_holds_what_trains_and_nothing_else"
        ),
        "freezing: features of the frozen part computed once": (
            "training/test_feature_cache.py::test_without_augmentation_kept_features_change_no_bit"
        ),
        "the gradient cut at the logits, so that the loss never moves": (
            "training/test_phases.py::test_a_cut_at_the_logits"
        ),
    },
    "TensorFlow Object Detection API (`pipeline.config`)": {
        "the pipeline file": "test_coming_from.py::test_one_file_says_everything",
        "`fine_tune_checkpoint`": "models/test_restore.py::test_a_whole_model_comes_back_to_the_last_bit",
        '`fine_tune_checkpoint_type: "full"`': "models/test_restore.py::test_a_whole_model_comes_back_to_the_last_bit",
        '`fine_tune_checkpoint_type: "classification"`, `"detection"`': (
            "models/test_restore.py::test_another_decoder_takes_the_backbone"
        ),
        "`load_all_detection_checkpoint_vars`": "models/test_restore.py::test_strict_refuses_what_does_not_fit",
        "`freeze_variables` (patterns)": "training/test_freezing.py::test_freeze_wins_over_what_trains "
        "training/test_selection.py::test_an_item_that_names_nothing_to_freeze",
        "tensors of another shape": "models/test_restore.py::test_what_does_not_fit_is_reported_and_left",
        "`num_steps`": "training/test_loop.py::test_a_phase_of_steps_makes_just_these",
        "`batch_size`": (
            "runtime/test_distributed.py::test_both_processes_have_the_weights_of_a_single_one_after_every_phase"
        ),
        "`data_augmentation_options`": "data/test_transforms.py::test_every_transform_of_a_group_does_its_part",
        "`rms_prop_optimizer`: `decay`, `momentum_optimizer_value`, `epsilon`": RMSPROP,
        "`momentum_optimizer`, `adam_optimizer`": "training/test_optim.py::test_a_phase_has_its_own_optimizer",
        "`initial_learning_rate`, `learning_rate_base`": (
            "training/test_optim.py::test_rates_of_layer_wise_decay_by_hand"
        ),
        "`exponential_decay_learning_rate`: `decay_steps`, `decay_factor`, `staircase`": SCHEDULES,
        "`manual_step_learning_rate`: `schedule { step … learning_rate … }`": SCHEDULES,
        "`cosine_decay_learning_rate`: `total_steps`, `warmup_steps`": SCHEDULES,
        "`sync_replicas`": (
            "runtime/test_distributed.py::test_both_processes_have_the_weights_of_a_single_one_after_every_phase"
        ),
    },
    "Keras": {
        '`Xception(include_top=False, weights="imagenet")`': (
            "models/backbones/test_keras.py::test_channels_and_strides_are_those_of_keras"
        ),
        '`base_model.get_layer("block4_sepconv1_act").output`': (
            "models/test_taps.py::test_keras_names_of_the_published_models"
        ),
        "`for layer in model.layers[:100]: layer.trainable = False`": (
            "models/backbones/test_keras.py::test_a_range_freezes_what_it_freezes_in_keras"
        ),
        "printing every layer with its index": "commands/test_taps.py::test_details_show_every_layer",
        "which layer is low-level, which high-level?": (
            "commands/test_taps.py::test_the_table_shows_ends_of_blocks_and_the_taps "
            "commands/test_probe.py::test_a_probe_reports_and_recommends"
        ),
        "`base_model(x, training=False)`": (
            "training/test_freezing.py::test_frozen_batchnorm_stands_still_over_real_steps "
            "training/test_freezing.py::test_dropout_of_the_frozen_part_stands_still"
        ),
        "`model.compile(SGD(1e-4))` again after thawing": (
            "training/test_optim.py::test_a_phase_has_its_own_optimizer "
            "training/test_schedules.py::test_a_phase_has_its_own_schedule"
        ),
        "`ExponentialDecay(lr, decay_steps, decay_rate, staircase)`": KERAS_SCHEDULES,
        "`PiecewiseConstantDecay([1000, 2000], [lr, lr / 10, lr / 100])`": KERAS_SCHEDULES,
        "`PolynomialDecay(lr, decay_steps, end_learning_rate, power, cycle)`": KERAS_SCHEDULES,
        "`CosineDecay(lr, decay_steps, alpha, warmup_steps=…)`": KERAS_SCHEDULES,
        "`RMSprop(rho=0.9, epsilon=1e-7)`": (
            "training/test_optim.py::test_rmsprop_is_that_of_keras_once_its_beginning_is_forgotten"
        ),
        "`EarlyStopping(patience=3)`": "training/test_loop.py::test_a_phase_that_has_converged_hands_over",
        "`ModelCheckpoint(save_best_only=True)`": (
            "training/test_loop.py::test_the_best_epoch_is_chosen_by_the_images_with_an_object"
        ),
        "`TensorBoard(update_freq=10)`": "training/test_tensorboard.py::test_epochs_and_steps_have_an_axis_each "
        "models/test_model_text.py::test_a_real_model_is_listed_whole",
        "`BackupAndRestore`": "training/test_loop.py::test_a_stopped_run_goes_on_as_if_it_had_not_stopped",
        "`load_weights(path, by_name=True, skip_mismatch=True)`": (
            "models/test_restore.py::test_what_does_not_fit_is_reported_and_left"
        ),
        "`ImageDataGenerator(shear_range, zoom_range, horizontal_flip)`": (
            "data/test_transforms.py::test_every_transform_of_a_group_does_its_part"
        ),
        "`model.summary()`": (
            "models/test_model_text.py::test_layers_are_listed_as_they_compute_with_shapes_and_parameters"
        ),
        "`plot_model(model, show_shapes=True, show_trainable=True)`": (
            "reporting/test_model_plot.py::test_colours_say_what_trains"
        ),
        "train the new head, then everything": "training/test_oracle.py::test_presets",
        "freeze until the head has converged": "training/test_loop.py::test_a_phase_that_has_converged_hands_over",
        "replace only the last layer": "training/test_oracle.py::test_presets",
        "a tenth of the learning rate for the backbone": (
            "training/test_optim.py::test_rates_of_layer_wise_decay_by_hand"
        ),
        "keep the shallow part, train the deep one": "training/test_oracle.py::test_presets",
        "Adam at 3e-4 as a first guess": "training/test_optim.py::test_a_phase_has_its_own_optimizer",
    },
    "fastai": {
        "`learn.fine_tune(12, freeze_epochs=4)`": "training/test_oracle.py::test_presets",
        "`learn.freeze_to(-2)`": "training/test_freezing.py::test_modules_of_a_phase",
        "`learn.freeze()`, `learn.unfreeze()`": "training/test_freezing.py::test_modules_of_a_phase",
        "`lr_max=slice(1e-5, 1e-3)`": "training/test_optim.py::test_rates_of_layer_wise_decay_by_hand",
        "`fit_one_cycle`, `pct_start`": SCHEDULES,
        "`bn_freeze`, `train_bn`": "training/test_freezing.py::test_frozen_batchnorm_stands_still_over_real_steps",
        "`SaveModelCallback`, `EarlyStoppingCallback`": (
            "training/test_loop.py::test_a_phase_that_has_converged_hands_over"
        ),
    },
    "segmentation_models_pytorch, Lightning, mmsegmentation": {
        '`smp.DeepLabV3Plus("xception")`': "models/test_dilation.py::test_dilated_networks_agree_with_the_strided_one",
        "`freeze_encoder()`": "training/test_oracle.py::test_presets",
        "`BackboneFinetuning(unfreeze_backbone_at_epoch=4)`": "training/test_oracle.py::test_presets",
        "`Trainer(log_every_n_steps=50)`, `LearningRateMonitor`; `LoggerHook(interval=50)`": (
            "training/test_step_log.py::test_steps_are_logged_by_number_and_by_time"
        ),
        "`TensorBoardLogger`": "training/test_tensorboard.py::test_epochs_and_steps_have_an_axis_each",
        "`MLFlowLogger`, `WandbLogger`": "training/test_mlflow.py::test_a_killed_and_resumed_run_is_one_run "
        "training/test_wandb.py::test_a_killed_and_resumed_run_has_one_id_and_every_step_once",
        "`Trainer(resume …)`, `ckpt_path`": (
            "training/test_loop.py::test_a_stopped_run_goes_on_as_if_it_had_not_stopped"
        ),
        "`frozen_stages`, `norm_eval`": "training/test_freezing.py::test_modules_of_a_phase "
        "training/test_freezing.py::test_frozen_batchnorm_is_left_out_but_where_it_is_new",
        "`paramwise_cfg.custom_keys.lr_mult`": "training/test_optim.py::test_rates_of_layer_wise_decay_by_hand",
        "`load_from`": "models/test_restore.py::test_beginnings_are_renamed_the_longest_first",
    },
}


def rows() -> list[tuple[str, str, str]]:
    """Return the rows of all tables: section, and both cells."""
    found, section = [], ""
    for line in DOCUMENT.splitlines():
        if line.startswith("#"):
            section = line.lstrip("# ")
        elif line.startswith("| ") and not line.startswith("| there |") and not line.startswith("| trick |"):
            left, right = (cell.strip() for cell in re.split(r"(?<!\\) \| ", line[2:].removesuffix(" |")))
            found.append((section, left, right))
    return found


ROWS = rows()


@cache
def names_of_tests(path: str) -> set[str]:
    tree = ast.parse((REPOSITORY / "tests" / path).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_row_has_a_test_and_every_test_a_row() -> None:
    assert [(section, left) for section, left, _ in ROWS] == [(s, left) for s, each in TESTS.items() for left in each]


@pytest.mark.parametrize(
    "named", sorted({test for each in TESTS.values() for tests in each.values() for test in tests.split()})
)
def test_the_tests_of_the_rows_exist(named: str) -> None:
    path, _, name = named.partition("::")
    assert name in names_of_tests(path)
    assert name.startswith("test_")


def composed(*overrides: str) -> DictConfig:
    """Return the settings of `train`, as its command line composes them."""
    words = [for_hydra(f"++{each}" if OPEN.match(each) else each, Settings) for each in overrides]
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return compose("train", overrides=words)


def code(cell: str) -> list[str]:
    """Return what stands between backticks."""
    return [text for text in re.findall(r"`([^`]+)`", cell) if "\n" not in text]


@pytest.mark.parametrize(("left", "right"), [(left, right) for _, left, right in ROWS])
def test_the_settings_of_a_row_are_taken(left: str, right: str) -> None:
    """Overrides compose and validate, dotted names are settings, and keys of phases are such."""
    earlier: list[str] = []
    for text in code(right):
        if OVERRIDE.match(text.lstrip('"')) and not re.search(r"…|=RUN|=mine", text):
            words = [word.strip('"') for word in re.findall(r'"[^"]+"|\S+=\{[^}]*\}|\S+', text)]
            words += ["data.root=DIR"] if "data=folder" in words else []
            assert any(not refused([*others, *words]) for others in ([], earlier, *NEEDED)), refused(words)
            earlier += words
        elif re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", text) and not re.search(r"\.(pt|json|csv|yaml|html|md|npy)$", text):
            assert any(names(each, text.split(".")) for each in known()), f"{left}: there is no setting {text}"
        elif match := re.fullmatch(r"(\w+): .+", text):
            assert match[1] in PhaseSettings.__dataclass_fields__, f"{left}: phases have no {match[1]}"


#: What the words around a setting say that it needs.
NEEDED = (["optimizer=sgd"], ["optimizer.milestone_steps=[9]"])


def refused(overrides: list[str]) -> str:
    """Return why overrides are refused, nothing if they are taken."""
    try:
        parse(Settings, OmegaConf.to_container(composed(*overrides), resolve=True))
    except (HydraException, UserError) as error:
        return str(error)
    return ""


@cache
def known() -> list[Any]:
    """Return all settings, as several optimizers have them."""
    return [OmegaConf.to_container(composed(f"optimizer={name}")) for name in ("adam", "sgd", "rmsprop")]


def names(values: Any, path: list[str]) -> bool:
    """Return whether a dotted name is one of nested settings."""
    for part in path:
        if not isinstance(values, dict) or part not in values:
            return False
        values = values[part]
    return True


def test_one_file_says_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Every value of the pipeline file arrives, but for one that the command line changes."""
    monkeypatch.chdir(tmp_path)
    block = next(each for each in re.findall(r"```yaml\n(.*?)```", DOCUMENT, re.DOTALL) if "pipeline.yaml" in each)
    file = tmp_path / "myconf" / "experiment" / "pipeline.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(block, encoding="utf-8")
    assert main(["train", "--config-dir", "myconf", "experiment=pipeline", "seed=7", "--cfg", "job"]) == 0
    found, wanted = yaml.safe_load(capsys.readouterr().out), yaml.safe_load(block)
    chosen = {key.removeprefix("override /"): name for each in wanted.pop("defaults") for key, name in each.items()}
    for group in ("backbone", "decoder", "data", "loss", "optimizer"):
        assert found[group]["name"] == chosen[group]
    assert list(found["freeze"]["phases"]) == list(wanted["freeze"]["phases"])
    wanted["seed"] = 7
    assert merged(found, wanted) == found
    assert parse(Settings, found).seed == 7


def merged(values: Any, over: Any) -> Any:
    """Return nested values with those of another mapping put over them."""
    if not isinstance(over, dict):
        return over
    return values | {key: merged(values.get(key, {}), each) for key, each in over.items()}


@pytest.mark.slow
def test_what_dense_does_on_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one output it is the 1 x 1 classifier; as wide as the map, it mixes each row's pixels."""
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    maps = np.random.default_rng(0).normal(size=(2, 5, 6, 8)).astype(np.float32)
    dense = keras.layers.Dense(1, activation="sigmoid")
    probability = np.asarray(dense(maps).detach())
    classifier = torch.nn.Conv2d(8, 1, 1)
    with torch.no_grad():
        classifier.weight.copy_(torch.tensor(np.asarray(dense.kernel.value.detach())).T[:, :, None, None])
        classifier.bias.copy_(torch.tensor(np.asarray(dense.bias.value.detach())))
        same = classifier(torch.tensor(maps).permute(0, 3, 1, 2)).sigmoid()[:, 0].numpy()
    assert classifier.weight.numel() + classifier.bias.numel() == dense.count_params()
    np.testing.assert_allclose(same, probability[..., 0], atol=1e-6)

    rows = maps[..., 0]  # (2, 5, 6): without channels
    wide = keras.layers.Dense(rows.shape[2])
    before = np.asarray(wide(rows).detach())
    assert wide.kernel.shape == (6, 6)
    changed = rows.copy()
    changed[0, 3, 1] += 1  # one pixel
    differs = np.asarray(wide(changed).detach()) != before
    assert differs[0, 3].all()
    assert differs.sum() == 6
    with pytest.raises(ValueError, match="incompatible"):
        wide(maps[:, :, :5, 0])
