"""pydensecrf's call surface: old scripts run by changing an import.

``import ninefold.compat.pydensecrf.densecrf as dcrf`` and ``from ninefold.compat.pydensecrf.utils import unary_from_softmax``.
"""

from ninefold.compat.pydensecrf import densecrf, utils

__all__ = ["densecrf", "utils"]
