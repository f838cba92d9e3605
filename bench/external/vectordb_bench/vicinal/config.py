"""What VectorDBBench asks about an index of Vicinal."""

from pydantic import BaseModel

from ..api import DBCaseConfig, DBConfig, MetricType


class VicinalConfig(DBConfig):
    path: str

    def to_dict(self) -> dict:
        return {"path": self.path}


class VicinalIndexConfig(BaseModel, DBCaseConfig):
    metric_type: MetricType | None = None
    M: int = 16
    ef_construction: int = 200
    ef_search: int = 64
    quantization: str = "auto"

    def index_param(self) -> dict:
        metric = {MetricType.L2: "l2", MetricType.IP: "ip", MetricType.DP: "ip"}
        return {
            "metric": metric.get(self.metric_type, "cosine"),
            "M": self.M,
            "ef_construction": self.ef_construction,
            "quantization": self.quantization,
        }

    def search_param(self) -> dict:
        return {"ef_search": self.ef_search}
