from unialign.probes._class_embeddings import class_embeddings as class_embeddings
from unialign.probes._knn import knn as knn
from unialign.probes._linear import linear as linear
from unialign.probes._result import ProbeResult as ProbeResult
from unialign.probes._zero_shot import zero_shot as zero_shot

__all__ = ["ProbeResult", "class_embeddings", "knn", "linear", "zero_shot"]
