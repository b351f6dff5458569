"""What projects' configs are made of: values that hydra-zen builds, a main configuration, modules that are imported."""

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
        (ExecutionConfiguration, ["workflow", "description", "datasets", "assets", "parameters"]),
        (
            DerivaMLConfig,
            ["hostname", "catalog_id", "working_dir", "credential", "clean_execution_dir", "exit_timeout"],
        ),
    ],
)
def test_each_value_is_built_with_all_its_fields(kind: Any, keys: list[str]) -> None:
    """With populate_full_signature=True each field is a key that can be overridden."""
    text = to_yaml(builds(kind, populate_full_signature=True))
    assert [line.partition(":")[0] for line in text.splitlines()[1:]] == keys


def test_building_detects_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A workflow's config holds no URL and asks nobody; what is instantiated of it has one."""
    conf = builds(Workflow, name="A", workflow_type="Training", populate_full_signature=True)
    assert "url: ''" in to_yaml(conf)
    monkeypatch.setenv("DERIVA_ML_WORKFLOW_URL", URL)  # after it was built
    assert instantiate(conf).url == URL


def test_a_configuration_opens_its_catalog(tmp_path: Path) -> None:
    """What is instantiated opens the catalog that it names, with the class that is asked for."""

    class Ours(DerivaML):
        """A client of a project's own."""

    conf = builds(DerivaMLConfig, populate_full_signature=True)(hostname=f"file:{tmp_path / 'here'}")
    settings = instantiate(conf)
    assert settings.connect().connection.folder == tmp_path / "here"
    assert type(settings.connect(Ours)) is Ours


def test_a_credential_is_shown_nowhere() -> None:
    """Neither the value's text nor its fields show it."""
    settings = DerivaMLConfig(credential={"bearer-token": "hunter22"})  # type: ignore[dict-item]
    assert "hunter22" not in f"{settings!r} {settings} {settings.model_dump()}"


def test_a_wrong_record_id_is_refused_when_it_is_instantiated() -> None:
    """As by the constructor itself."""
    with pytest.raises(InvalidRID):
        DatasetSpec(rid="no id")


def defaults(conf: Any) -> list[Any]:
    """A config's defaults list, as hydra reads it."""
    return list(OmegaConf.structured(conf).defaults)


def test_the_main_configuration() -> None:
    """It is one of run_model, has its keys, and chooses a config of each group by the names that others use as well."""
    conf = create_model_config(description="Mine")
    assert get_target(conf) is run_model
    assert conf.description == "Mine"
    chosen = {key: value for entry in defaults(conf)[1:] for key, value in entry.items()}
    assert chosen == {
        "deriva_ml": "default_deriva",
        "datasets": "default_dataset",
        "assets": "default_asset",
        "workflow": "default_workflow",
        "model_config": "default_model",
    }
    assert defaults(create_model_config(hydra_defaults=["_self_"])) == ["_self_"]


def test_a_client_of_ones_own_is_part_of_the_main_configuration() -> None:
    """The class is named in the configuration, and is what instantiating gives."""
    assert instantiate(create_model_config(DerivaML).ml_class) is DerivaML


def package(folder: Path, name: str, **modules: str) -> None:
    """A package of modules, written to a folder."""
    for module, text in modules.items():
        file = folder / name / Path(*module.split("__")).with_suffix(".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


def test_configs_are_imported_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules by the alphabet, those of inner packages too, and the experiments after what they choose from."""
    package(tmp_path, "configs_in_order", workflow="", experiments="", dev__datasets="", assets="")
    (tmp_path / "configs_in_order" / "dev" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    loaded = [name.removeprefix("configs_in_order") for name in load_configs("configs_in_order")]
    assert loaded == ["", ".assets", ".dev", ".dev.datasets", ".workflow", ".experiments"]


def test_a_module_with_a_mistake_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What went wrong is said, with the module, the file and the line."""
    package(tmp_path, "configs_wrong", workflow="import os\n\nstore(1)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigurationError) as caught:
        load_configs("configs_wrong")
    file = tmp_path / "configs_wrong" / "workflow.py"
    assert str(caught.value) == (
        "The configs module configs_wrong.workflow cannot be imported: NameError: name 'store' is not defined "
        f"({file}, line 3)."
    )


def test_no_such_package() -> None:
    """A package that is not there is said, not passed over."""
    with pytest.raises(ConfigurationError, match="configs_nowhere"):
        load_configs("configs_nowhere")


def test_where_configs_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In src/configs before configs; a folder that is named counts alone, and has to be there."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="neither src/configs nor configs"):
        find_config_folder()
    (tmp_path / "configs").mkdir()
    assert find_config_folder() == tmp_path / "configs"
    (tmp_path / "src" / "configs").mkdir(parents=True)
    assert find_config_folder() == tmp_path / "src" / "configs"
    with pytest.raises(ConfigurationError, match="--config-dir"):
        find_config_folder(Path("elsewhere"))


def test_a_model_function_is_known_in_its_wrappings() -> None:
    """Its file is found, and its parameters are judged, through partials, decorators, classes and objects."""

    def model(rate: float, ml_instance: object, execution: object) -> None: ...

    class Model:
        def __call__(self, *, ml_instance: object, execution: object) -> None: ...

    wrapped = functools.wraps(model)(lambda *words, **named: model(*words, **named))
    for each in (model, functools.partial(functools.partial(model, rate=1)), wrapped, Model()):
        check_function(each)
        assert function_file(each) == Path(__file__)
    check_function(lambda **named: None)
    assert function_file(len) is None


def test_a_function_that_cannot_be_given_its_execution_is_refused() -> None:
    """The message names what is missing, and the file."""

    def model(ml_instance: object) -> None: ...

    with pytest.raises(ConfigurationError, match="does not take execution: ") as caught:
        check_function(model)
    assert __file__ in str(caught.value)
    with pytest.raises(ConfigurationError, match="zen_partial=True"):
        check_function({"learning": 1})


def test_a_model_runs_without_hydra(ml: DerivaML, workflow: Workflow) -> None:
    """run_model is a plain function: it makes, runs and uploads an execution, and returns what the model did."""

    def model(*, ml_instance: DerivaML, execution: Any) -> float:
        execution.asset_file_path("Model", "model.txt").write_text("learned")
        assert ml_instance.lookup_execution(execution.execution_rid).description == "By hand"
        return 0.5

    assert run_model(DerivaMLConfig(), [], [], "By hand", workflow, model) == 0.5
    (run,) = ml.find_executions()
    assert "model.txt" in {asset.filename for asset in run.list_assets("Output")}
    assert "hydra" in sys.modules  # that it is imported by others changes nothing


@pytest.mark.parametrize("text", ["server.org", "C:\\records", "it's", "ends\\", "\\\\", "\\'", "two\nlines", ""])
def test_any_text_is_an_override(text: str) -> None:
    """What --host and --catalog say comes to the configuration letter by letter."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from deriva_ml_core.runner.hydra_files import quote_override_value

    assert OverridesParser.create().parse_override(f"key={quote_override_value(text)}").value() == text
