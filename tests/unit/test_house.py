"""Rule: client and server do not know each other, common knows neither, and learning knows nothing that carries."""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOREIGN = {"common": {"client", "server"}, "client": {"server"}, "server": {"client"}}  # what a folder may not import
LEARNING = (
    *("models", "training", "augmentation", "lenet5_gradients", "fit_together", "optimizers", "schedules"),
    *("preprocessing", "prediction", "shards", "mnist", "own_data", "streams", "codecs", "products"),
)
CARRYING = {"flwr", "grpc", "grpc_health", "google", "tensorboard"}
FLOWERS = {"flwr.app", "flwr.clientapp", "flwr.serverapp", "flwr.serverapp.strategy"}  # its public names
PRIVATE = {"common/records.py": {"flwr.supercore.task_identity"}, "server/engines/ray.py": {"flwr.simulation"}}


@cache
def imports_of(path: Path) -> frozenset[str]:
    """Modules that a file imports, wherever in it, but not those for type checkers alone."""
    found: set[str] = set()
    skipped: set[ast.AST] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            skipped.update(node.body)
        elif isinstance(node, ast.Import) and node not in skipped:
            found.update(each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node not in skipped:
            found.add(node.module)
            found.update(f"{node.module}.{each.name}" for each in node.names)
    return frozenset(found)


def files(folder: str) -> list[Path]:
    return [path for path in sorted((ROOT / folder).rglob("*.py")) if not path.name.endswith("_pb2.py")]


def heads(modules: frozenset[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


@pytest.mark.parametrize("folder", FOREIGN)
def test_no_folder_imports_what_it_may_not_know(folder: str) -> None:
    assert {str(path): heads(imports_of(path)) & FOREIGN[folder] for path in files(folder)} == {
        str(path): set() for path in files(folder)
    }


@pytest.mark.parametrize("module", LEARNING)
def test_learning_imports_nothing_that_carries_not_even_by_a_detour(module: str) -> None:
    waiting, seen = [ROOT / "common" / f"{module}.py"], set[Path]()
    while waiting:
        path = waiting.pop()
        seen.add(path)
        assert not heads(imports_of(path)) & CARRYING, f"common.{module} imports it by way of {path.name}"
        inner = (ROOT / f"{each.replace('.', '/')}.py" for each in imports_of(path) if each.startswith("common."))
        waiting += [each for each in inner if each.exists() and each not in seen]


@pytest.mark.parametrize("folder", FOREIGN)
def test_flower_is_used_through_its_public_names(folder: str) -> None:
    """Everything below them changes every two weeks; the exceptions live in one file each."""
    for path in files(folder):
        modules = {each for each in imports_of(path) if each.startswith("flwr.")}
        allowed = FLOWERS | PRIVATE.get(str(path.relative_to(ROOT)), set())
        others = {each for each in modules if each not in allowed and each.rpartition(".")[0] not in allowed}
        assert not others, f"{path} imports {others}"
