"""The launcher that is baked into every image: it starts training and answers for it.

Python standard library only, Python 3.9 or newer. It knows SageMaker training jobs, Slurm
(HyperPod) steps and a single machine; see the README beside this package.
"""

from __future__ import annotations

__version__ = "0.1.0"
