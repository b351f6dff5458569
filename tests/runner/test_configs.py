"""Projects' configs: values that hydra-zen builds, the main config, config modules, and model functions."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra_zen import builds, get_target, instantiate, to_yaml
from omegaconf import OmegaConf

from deriva_ml import AssetSpec, DatasetSpec, DerivaML, DerivaMLConfig, ExecutionConfiguration, Workflow
from deriva_ml.execution import create_model_config, load_configs, run_model
from deriva_ml_core.errors import ConfigurationError, InvalidRID
from deriva_ml_core.runner.configs import find_config_folder
from deriva_ml_core.runner.model_function import check_function, function_file

URL = "https://github.com/org/repo/blob/abc/train.py"


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        (Workflow, ["name", "workflow_type", "description", "url", "checksum", "version", "script", "rid"]),
        (DatasetSpec, ["rid", "version", "materialize"]),
        (AssetSpec, ["rid"]),
        (ExecutionConfiguration, ["workflow", "description", "datasets", "assets", "parameters", "tags"]),
        (
            DerivaMLConfig,
            ["hostname", "catalog_id", "working_dir", "credential", "clean_execution_dir", "exit_timeout", "patience"],
        ),
    ],
)
def test_config_has_a_key_for_each_field(kind: Any, keys: list[str]) -> None:
    """With populate_full_signature=True a config has a key for each field, so that overrides can set it."""
    text = to_yaml(builds(kind, populate_full_signature=True))
    assert [line.partition(":")[0] for line in text.splitlines()[1:]] == keys


def test_building_a_workflow_config_detects_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The source of a workflow is detected when its config is instantiated, not when it is built."""
    conf = builds(Workflow, name="A", workflow_type="Training", populate_full_signature=True)
    assert "url: ''" in to_yaml(conf)
    monkeypatch.setenv("DERIVA_ML_WORKFLOW_URL", URL)  # set after the config is built
    assert instantiate(conf).url == URL


def test_connection_config_connects(tmp_path: Path) -> None:
    """An instantiated DerivaMLConfig connects to its catalog, with the given client class."""

    class Client(DerivaML):
        """A project's own client class."""

    conf = builds(DerivaMLConfig, populate_full_signature=True)(hostname=f"file:{tmp_path / 'here'}")
    settings = instantiate(conf)
    assert settings.connect().connection.folder == tmp_path / "here"
    assert type(settings.connect(Client)) is Client


def test_connection_config_hides_the_credential() -> None:
    """Neither the text nor the fields of a DerivaMLConfig show its credential."""
    settings = DerivaMLConfig(credential={"bearer-token": "hunter22"})  # type: ignore[dict-item]
    assert "hunter22" not in f"{settings!r} {settings} {settings.model_dump()}"


def test_patience_is_a_deprecated_exit_timeout(tmp_path: Path) -> None:
    """The old keyword `patience` sets `exit_timeout` with a warning, directly and through a config."""
    with pytest.warns(DeprecationWarning, match="use exit_timeout"):
        settings = DerivaMLConfig(hostname=f"file:{tmp_path}", patience=5)
    assert settings.exit_timeout == 5
    assert settings.connect().connection.exit_timeout == 5
    assert "patience" not in settings.model_dump()
    for conf in (builds(DerivaMLConfig), builds(DerivaMLConfig, populate_full_signature=True)):
        with pytest.warns(DeprecationWarning, match="use exit_timeout"):
            assert instantiate(builds(DerivaMLConfig, patience=6, builds_bases=(conf,))).exit_timeout == 6


def test_patience_as_an_override() -> None:
    """The override deriva_ml.patience= works on a config that stores all parameters."""
    conf = OmegaConf.create({"deriva_ml": OmegaConf.structured(builds(DerivaMLConfig, populate_full_signature=True))})
    conf.merge_with_dotlist(["deriva_ml.patience=7"])
    with pytest.warns(DeprecationWarning, match="use exit_timeout"):
        assert instantiate(conf.deriva_ml).exit_timeout == 7


def test_exit_timeout_does_not_warn(recwarn: pytest.WarningsRecorder) -> None:
    """The new name, and a config with the unset old one, do not warn."""
    assert DerivaMLConfig(exit_timeout=4).exit_timeout == 4
    assert instantiate(builds(DerivaMLConfig, populate_full_signature=True)(exit_timeout=4)).exit_timeout == 4
    assert [warning for warning in recwarn if warning.category is DeprecationWarning] == []


def test_invalid_rid_is_rejected() -> None:
    """A spec with a malformed RID raises InvalidRID."""
    with pytest.raises(InvalidRID):
        DatasetSpec(rid="no id")


def get_defaults(conf: Any) -> list[Any]:
    """Return the defaults list of a config, as Hydra reads it."""
    return list(OmegaConf.structured(conf).defaults)


def test_main_config() -> None:
    """The main config builds run_model, and chooses the default config of each group."""
    conf = create_model_config(description="Mine")
    assert get_target(conf) is run_model
    assert conf.description == "Mine"
    choices = {key: value for entry in get_defaults(conf)[1:] for key, value in entry.items()}
    assert choices == {
        "deriva_ml": "default_deriva",
        "datasets": "default_dataset",
        "assets": "default_asset",
        "workflow": "default_workflow",
        "model_config": "default_model",
    }
    assert get_defaults(create_model_config(hydra_defaults=["_self_"])) == ["_self_"]


def test_main_config_with_a_client_class() -> None:
    """The main config stores the client class."""
    assert instantiate(create_model_config(DerivaML).ml_class) is DerivaML


def write_package(folder: Path, name: str, **modules: str) -> None:
    """Write a package of modules to a folder."""
    for module, text in modules.items():
        file = folder / name / Path(*module.split("__")).with_suffix(".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


def test_order_of_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules and subpackages are imported in alphabetical order, and the experiments last."""
    write_package(tmp_path, "configs_in_order", workflow="", experiments="", dev__datasets="", assets="")
    (tmp_path / "configs_in_order" / "dev" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    loaded = [name.removeprefix("configs_in_order") for name in load_configs("configs_in_order")]
    assert loaded == ["", ".assets", ".dev", ".dev.datasets", ".workflow", ".experiments"]


def test_error_in_a_config_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in a config module is reported with the module, the file and the line."""
    write_package(tmp_path, "configs_wrong", workflow="import os\n\nstore(1)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigurationError) as caught:
        load_configs("configs_wrong")
    file = tmp_path / "configs_wrong" / "workflow.py"
    assert str(caught.value) == (
        "The config module configs_wrong.workflow cannot be imported: NameError: name 'store' is not defined "
        f"({file}, line 3)."
    )


def test_missing_config_package() -> None:
    """Loading a package that does not exist raises an error that names it."""
    with pytest.raises(ConfigurationError, match="configs_nowhere"):
        load_configs("configs_nowhere")


def test_find_config_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """src/configs is preferred to configs; a named folder must exist."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="neither src/configs nor configs"):
        find_config_folder()
    (tmp_path / "configs").mkdir()
    assert find_config_folder() == tmp_path / "configs"
    (tmp_path / "src" / "configs").mkdir(parents=True)
    assert find_config_folder() == tmp_path / "src" / "configs"
    with pytest.raises(ConfigurationError, match="--config-dir"):
        find_config_folder(Path("elsewhere"))


def test_model_function_is_unwrapped() -> None:
    """The file and the parameters of a model function are found through partials, decorators and callable objects."""

    def model(rate: float, ml_instance: object, execution: object) -> None: ...

    class Model:
        def __call__(self, *, ml_instance: object, execution: object) -> None: ...

    wrapped = functools.wraps(model)(lambda *args, **kwargs: model(*args, **kwargs))
    for function in (model, functools.partial(functools.partial(model, rate=1)), wrapped, Model()):
        check_function(function)
        assert function_file(function) == Path(__file__)
    check_function(lambda **kwargs: None)
    assert function_file(len) is None


def test_function_without_execution_is_rejected() -> None:
    """The error for a function that does not accept its execution names the missing parameter and the file."""

    def model(ml_instance: object) -> None: ...

    with pytest.raises(ConfigurationError, match=r"does not accept execution\. ") as caught:
        check_function(model)
    assert __file__ in str(caught.value)
    with pytest.raises(ConfigurationError, match="zen_partial=True"):
        check_function({"learning": 1})


def test_run_model_without_hydra(ml: DerivaML, workflow: Workflow) -> None:
    """run_model works as a plain function: it records an execution and returns the model function's value."""

    def model(*, ml_instance: DerivaML, execution: Any) -> float:
        execution.asset_file_path("Model", "model.txt").write_text("learned")
        assert ml_instance.lookup_execution(execution.execution_rid).description == "By hand"
        return 0.5

    assert run_model(DerivaMLConfig(), [], [], "By hand", workflow, model) == 0.5
    (run,) = ml.find_executions()
    assert "model.txt" in {asset.filename for asset in run.list_assets("Output")}
    assert "hydra" in sys.modules  # imported by other tests, but no job of Hydra is running


@pytest.mark.parametrize("text", ["server.org", "C:\\records", "it's", "ends\\", "\\\\", "\\'", "two\nlines", ""])
def test_any_text_can_be_an_override_value(text: str) -> None:
    """Hydra parses a quoted override value back to the same text."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from deriva_ml_core.runner.hydra_files import quote_override_value

    assert OverridesParser.create().parse_override(f"key={quote_override_value(text)}").value() == text
