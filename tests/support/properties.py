"""How property tests are run: by what they find, never by how long a busy machine takes.

Hypothesis' own limits of time (200 ms an example, and its check that inputs are made quickly) fail
on a machine that does something else meanwhile.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
