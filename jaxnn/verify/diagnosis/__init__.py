"""Which mistake a refuted formula most likely is.

``hypotheses`` (by ``anatomy`` and ``ablation``) say what may be wrong with a derivative,
``sampling`` computes it, ``fitting`` and ``reading`` say by which factors; ``substitution`` and
``repair`` look for the mistake in the formula itself.
"""

from jaxnn.verify.diagnosis.diagnosis import Diagnosis, diagnose
from jaxnn.verify.diagnosis.repair import diagnose_shapes

__all__ = ["Diagnosis", "diagnose", "diagnose_shapes"]
