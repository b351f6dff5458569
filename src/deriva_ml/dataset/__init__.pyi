from deriva_ml_core.datasets import Dataset, DatasetBag, DatasetVersion, VersionPart
from deriva_ml_core.models import DatasetSpec

__all__ = ["Dataset", "DatasetBag", "DatasetSpec", "DatasetVersion", "VersionPart"]
