"""What a deployment declares in YAML: documents, enrichments, the sensor that completes them, alerts."""

from llm_assets.components.alerts import Alerts
from llm_assets.components.completion import BatchCompletion
from llm_assets.components.derived import DerivedDocuments
from llm_assets.components.documents import Documents
from llm_assets.components.enrichment import Enrichment
from llm_assets.components.enrichment_assets import enrichment_definitions
from llm_assets.components.evaluation import Evaluation
from llm_assets.components.judgement import Judgement
from llm_assets.components.paired import PairedAnswers
from llm_assets.components.spending import Spending

__all__ = [
    "Alerts",
    "BatchCompletion",
    "DerivedDocuments",
    "Documents",
    "Enrichment",
    "Evaluation",
    "Judgement",
    "PairedAnswers",
    "Spending",
    "enrichment_definitions",
]
