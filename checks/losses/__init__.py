"""The ways in which PostgreSQL's backups are lost, and the faults that stand for them here.

The numbers are those of the catalogue that the suite began with, so that reports can be compared.
"""

from checks.losses.cdc import CDC_LOSSES
from checks.losses.loss import Loss
from checks.losses.registry import REGISTRY_LOSSES
from checks.losses.restored import RESTORED
from checks.losses.stored import STORED
from checks.losses.topics import TOPIC_LOSSES

LOSSES = STORED + RESTORED

__all__ = ["CDC_LOSSES", "LOSSES", "REGISTRY_LOSSES", "TOPIC_LOSSES", "Loss"]
